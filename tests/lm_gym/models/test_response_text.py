"""The text of a response over tokenizers that strip, join, prefix and split characters."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from lm_gym import SamplingConfig
from lm_gym.errors import ConfigError
from lm_gym.models.response_text import ResponseText
from lm_gym.models.sampling import StopRule

LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.,:\n"
SPECIALS = ["<s>", "</s>", "<unk>"]


def fast(core: Tokenizer) -> PreTrainedTokenizerFast:
    core.add_special_tokens([AddedToken(text, special=True) for text in SPECIALS if core.token_to_id(text) is not None])
    return PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def metaspace(prepend_scheme: str) -> PreTrainedTokenizerFast:
    """As Llama 2 and T5: a space is the mark "▁"; what is not in the vocabulary falls back to bytes."""
    pieces = [*SPECIALS, *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *LETTERS, "▁Hi", "▁yes"]
    core = Tokenizer(
        models.Unigram([(piece, -1.0 if len(piece) > 1 else -5.0) for piece in pieces], unk_id=2, byte_fallback=True)
    )
    core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=prepend_scheme, split=False)
    core.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return fast(core)


def metaspace_decoder() -> PreTrainedTokenizerFast:
    """As T5 and XLM-RoBERTa: the decoder named Metaspace strips the first mark."""
    tokenizer = metaspace("always")
    tokenizer.backend_tokenizer.decoder = decoders.Metaspace(prepend_scheme="always", split=False)
    return tokenizer


def byte_level() -> PreTrainedTokenizerFast:
    """As GPT-2, with no merges: every byte is a token."""
    vocabulary = {text: number for number, text in enumerate([*SPECIALS, *sorted(pre_tokenizers.ByteLevel.alphabet())])}
    core = Tokenizer(models.BPE(vocabulary, []))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    return fast(core)


def word_piece() -> PreTrainedTokenizerFast:
    """As BERT: words are joined by spaces, "##" continues a word, and punctuation is pulled to its word."""
    words = [*SPECIALS, "a", "hello", "play", "##ing", "yes", ".", "it", "'", "s", "n't"]
    core = Tokenizer(models.WordPiece({word: number for number, word in enumerate(words)}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    core.decoder = decoders.WordPiece(prefix="##", cleanup=True)
    return fast(core)


MAKERS: dict[str, Callable[[], PreTrainedTokenizerFast]] = {
    "metaspace first": lambda: metaspace("first"),
    "metaspace always": lambda: metaspace("always"),
    "metaspace never": lambda: metaspace("never"),
    "metaspace decoder": metaspace_decoder,
    "byte level": byte_level,
    "word piece": word_piece,
}


def encode(tokenizer: Any, text: str) -> np.ndarray:
    return np.array(tokenizer(text, add_special_tokens=False)["input_ids"], dtype=np.int64)


def pieces(tokenizer: Any, *texts: str) -> np.ndarray:
    ids = tokenizer.convert_tokens_to_ids(list(texts))
    assert tokenizer.unk_token_id not in ids
    return np.array(ids, dtype=np.int64)


def whole_rule(tokenizer: Any, prompt: np.ndarray, response: np.ndarray) -> str:
    """decode(prompt + response) minus decode(prompt), with the whole prompt."""
    before, both = (
        tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        for ids in (prompt, np.concatenate([prompt, response]))
    )
    assert both.startswith(before)
    return str(both[len(before) :])


@pytest.mark.parametrize("name", ["metaspace first", "metaspace always", "metaspace never", "metaspace decoder"])
def test_a_metaspace_tokenizer_keeps_the_leading_space(name: str) -> None:
    tokenizer = MAKERS[name]()
    response = pieces(tokenizer, "▁yes", ".")
    assert tokenizer.decode(response) == "yes.", "the space that used to be lost"
    assert ResponseText(tokenizer)(encode(tokenizer, "Hi Bob:"), response) == " yes."


def test_word_piece_joins_and_continues_words() -> None:
    tokenizer = word_piece()
    text = ResponseText(tokenizer)
    assert text(encode(tokenizer, "hello"), pieces(tokenizer, "yes", ".")) == " yes."
    assert text(encode(tokenizer, "hello play"), pieces(tokenizer, "##ing", "it")) == "ing it"
    assert text(encode(tokenizer, "hello"), pieces(tokenizer, ".")) == "."


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("length", [1, 2, 7, 8, 9, 40])
def test_the_end_of_the_prompt_says_what_the_whole_prompt_says(name: str, length: int) -> None:
    tokenizer = MAKERS[name]()
    text, rng = ResponseText(tokenizer), np.random.default_rng(length)
    known = [number for number in range(len(tokenizer)) if "<0x" not in tokenizer.convert_ids_to_tokens(number)]
    if name == "byte level":
        known = encode(tokenizer, LETTERS + " ").tolist()
    for _ in range(30):
        prompt, response = rng.choice(known, length), rng.choice(known, 5)
        assert text(prompt, response) == whole_rule(tokenizer, prompt, response)


@pytest.mark.parametrize("name", MAKERS)
def test_a_response_without_tokens_has_no_text(name: str) -> None:
    tokenizer = MAKERS[name]()
    for prompt in (encode(tokenizer, "hello"), np.zeros(0, dtype=np.int64)):
        assert ResponseText(tokenizer)(prompt, np.zeros(0, dtype=np.int64)) == ""


@pytest.mark.parametrize("name", ["metaspace first", "byte level"])
@pytest.mark.parametrize("split", [1, 2, 3])
def test_a_character_that_the_prompt_leaves_open_belongs_to_the_response(name: str, split: int) -> None:
    tokenizer = MAKERS[name]()
    ids = encode(tokenizer, "Hi \N{GRINNING FACE} yes")
    emoji = len(encode(tokenizer, "Hi "))
    prompt, response = ids[: emoji + split], ids[emoji + split :]
    assert tokenizer.decode(prompt).endswith("�")
    text = ResponseText(tokenizer)
    assert text(prompt, response) == "\N{GRINNING FACE} yes"
    assert text(prompt, encode(tokenizer, "a")[-1:]) == "a", "what no token completes stays with the prompt"
    assert text(prompt, np.array([tokenizer.eos_token_id])) == ""


@pytest.mark.parametrize("name", ["metaspace first", "byte level"])
def test_a_run_of_bytes_longer_than_the_context_is_read_whole(name: str) -> None:
    tokenizer = MAKERS[name]()
    ids = encode(tokenizer, f"Hi {'日' * 6}a")
    end = len(encode(tokenizer, f"Hi {'日' * 4}"))
    for cut in range(len(encode(tokenizer, "Hi "))):  # the last eight tokens begin within a character
        assert ResponseText(tokenizer)(ids[cut:end], ids[end:]) == "日日a"


def test_a_run_of_bytes_that_the_response_leaves_open_is_decoded_alone() -> None:
    """Byte fallback turns a whole run into one sign per byte when its last character is open, the prompt's too."""
    tokenizer = metaspace("first")
    ids = encode(tokenizer, "日本語")
    prompt, response = ids[-9:-3], ids[-3:-1]
    assert tokenizer.decode(prompt) == "日本"
    assert tokenizer.decode(ids[-9:-1]) == "�" * 8
    assert ResponseText(tokenizer)(prompt, response) == "��"
    assert ResponseText(tokenizer)(prompt, ids[-3:]) == "語"


def test_a_prompt_of_special_tokens_alone_adds_nothing() -> None:
    tokenizer = metaspace("first")
    specials = pieces(tokenizer, *["<s>"] * 20)
    assert ResponseText(tokenizer)(specials, pieces(tokenizer, "▁yes")) == "yes"
    prompt = np.concatenate([encode(tokenizer, "Hi"), specials])
    assert ResponseText(tokenizer)(prompt, pieces(tokenizer, "▁yes")) == " yes"


def rule(tokenizer: Any, *strings: str) -> StopRule:
    return StopRule(
        ResponseText(tokenizer), SamplingConfig(max_new_tokens=20, stop_strings=strings, stop_token_ids=(1,))
    )


@pytest.mark.parametrize("name", MAKERS)
def test_a_stop_string_may_begin_with_a_space(name: str) -> None:
    tokenizer = MAKERS[name]()
    stop = rule(tokenizer, " yes")
    prompt, ids = encode(tokenizer, "hello"), encode(tokenizer, "hello yes")[len(encode(tokenizer, "hello")) :]
    assert stop.reason(prompt, ids) == "stop_string"
    assert stop.text(prompt, ids, "stop_string") == ""


@pytest.mark.parametrize(
    ("name", "strings"),
    [
        ("metaspace first", ("\n", " ", "\n\n", " Hi ", "a\n")),
        ("metaspace never", ("\n", " ", "  a")),
        ("byte level", ("\n", " ", "\n\n", "  ", "日", "a ")),
        ("word piece", (" ", "yes. it", "hello ")),
    ],
)
def test_white_space_may_be_anywhere_in_a_stop_string(name: str, strings: Sequence[str]) -> None:
    rule(MAKERS[name](), *strings)


@pytest.mark.parametrize(("name", "string"), [("word piece", "\n"), ("word piece", "yes  it"), ("word piece", "zzz")])
def test_a_stop_string_that_no_tokens_give_is_refused(name: str, string: str) -> None:
    with pytest.raises(ConfigError, match="could never be met; use text that the tokenizer can produce"):
        rule(MAKERS[name](), string)
