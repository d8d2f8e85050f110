"""A response that is read along while it is sampled: the sampler's own, and nothing of it is ever taken back."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import ARCHITECTURES, architecture_model, make_model
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from transformers import PreTrainedTokenizerFast

from lm_gym import LanguageModel, SamplingConfig, reviews
from lm_gym.assets import REVIEWS_LM
from lm_gym.errors import ConfigError
from lm_gym.models.generate import generate, stream
from lm_gym.models.language_model import load_language_model
from lm_gym.models.streaming import Streamed, stream_text


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("settings", [{}, {"temperature": 0.7, "top_k": 5}, {"top_p": 0.8, "min_new_tokens": 4}])
def test_a_streamed_response_is_the_generated_one(architecture: str, settings: dict[str, Any]) -> None:
    model, prompt = architecture_model(architecture), np.array([1, 2, 3])
    sampling = SamplingConfig(max_new_tokens=12, **settings)
    whole = generate(model, [prompt], sampling, generator=seeded())
    parts = list(stream(model, prompt, sampling, generator=seeded()))
    assert [part.ids.shape for part in parts] == [(1, count) for count in range(1, whole.ids.shape[1] + 1)]
    for part in parts:
        width = part.ids.shape[1]
        np.testing.assert_array_equal(part.ids, whole.ids[:, :width])
        np.testing.assert_array_equal(part.log_probs, whole.log_probs[:, :width])


def test_a_prompt_without_room_is_refused() -> None:
    with pytest.raises(ConfigError, match="must fit the 32 positions"):
        list(stream(architecture_model("gpt2"), np.arange(1, 31), SamplingConfig(max_new_tokens=8), generator=seeded()))


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return load_language_model(REVIEWS_LM, device="cpu")


def texts_of(model: LanguageModel, seed: int, **settings: Any) -> list[Streamed]:
    prompt = np.array(model.tokenizer(reviews.prompts("train")[0])["input_ids"])
    return list(stream_text(model, prompt, SamplingConfig(**settings), generator=seeded(seed)))


def check_nothing_is_taken_back(parts: list[Streamed]) -> None:
    assert [part.reason for part in parts[:-1]] == [None] * (len(parts) - 1)
    assert parts[-1].reason is not None
    for before, after in pairwise(parts):
        assert after.text.startswith(before.text), (before.text, after.text)


def test_text_that_was_shown_is_never_taken_back(model: LanguageModel) -> None:
    for seed in range(6):
        check_nothing_is_taken_back(texts_of(model, seed, max_new_tokens=40))


def test_half_a_character_is_held_back() -> None:
    """A token of this model is a byte, so that a character of two may stand for a while with its first."""
    core = Tokenizer(BPE({"<eos>": 256} | {byte: n for n, byte in enumerate(sorted(ByteLevel.alphabet()))}, merges=[]))
    core.decoder = ByteLevelDecoder()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<eos>")
    model = LanguageModel(make_model("gpt2", vocab_size=257, n_positions=128), tokenizer)
    sampling = SamplingConfig(max_new_tokens=100, temperature=3.0, stop_token_ids=())
    whole = 0
    for seed in range(6):
        parts = list(stream_text(model, np.array([1]), sampling, generator=seeded(seed)))
        check_nothing_is_taken_back(parts)
        whole += sum(ord(character) > 0x7F and character != "\ufffd" for character in parts[-1].text)
    assert whole > 5


def test_the_beginning_of_a_stop_string_is_held_back(model: LanguageModel) -> None:
    free = texts_of(model, 0, max_new_tokens=30)[-1].text
    words = free.split()
    stop = f"{words[3]} {words[4]}"
    parts = texts_of(model, 0, max_new_tokens=30, stop_strings=(stop,))
    assert parts[-1].reason == "stop_string"
    assert parts[-1].text == free[: free.index(stop)]
    assert all(parts[-1].text.startswith(part.text) for part in parts)
