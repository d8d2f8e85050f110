import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

EOS = "<eos>"
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789+=<>:.\n "


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny models are slower on several threads, and sums in one order can be compared to the bit."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def _tokenizer(merges: list[tuple[str, str]]) -> PreTrainedTokenizerFast:
    """One token per letter (id = place in LETTERS + 1; 0 is EOS and pad), plus a token for every merge."""
    alphabet = [pre_tokenizers.ByteLevel(add_prefix_space=False).pre_tokenize_str(c)[0][0] for c in LETTERS]
    tokens = [EOS, *alphabet, *(a + b for a, b in merges)]
    core = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token=EOS, pad_token=EOS)


@pytest.fixture
def letters() -> Callable[[str], list[int]]:
    """The ids of a text by hand; "$" stands for EOS."""
    return lambda text: [0 if c == "$" else LETTERS.index(c) + 1 for c in text]


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerFast:
    return _tokenizer([])


@pytest.fixture
def merging_tokenizer() -> PreTrainedTokenizerFast:
    return _tokenizer([("a", "b")])


@pytest.fixture
def make_model(tokenizer: PreTrainedTokenizerFast) -> Callable[..., GPT2LMHeadModel]:
    def make(seed: int = 0, **changes: object) -> GPT2LMHeadModel:
        torch.manual_seed(seed)
        settings = {
            "vocab_size": len(tokenizer),
            "n_positions": 48,
            "n_embd": 32,
            "n_layer": 2,
            "n_head": 2,
            "bos_token_id": 0,
            "eos_token_id": 0,
        }
        return GPT2LMHeadModel(GPT2Config(**(settings | changes)))

    return make


@pytest.fixture
def data_folder() -> Path:
    folder = os.environ.get("LM_GYM_DATA")
    if not folder:
        pytest.skip("needs real text: set LM_GYM_DATA to the data folder")
    return Path(folder)
