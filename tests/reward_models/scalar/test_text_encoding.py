from __future__ import annotations

import logging

import pytest

from lm_gym.errors import ConfigError
from lm_gym.reward_models.scalar.text_encoding import (
    PairEncoder,
    TextEncoder,
    TextTemplate,
    fitting_end,
    padded_width,
    right_padded,
    width_batches,
)


@pytest.mark.parametrize(
    ("prompt", "response", "text"),
    [
        ("a :", "good", "a : good"),
        ("a :", " good", "a : good"),
        ("a :\n", "good", "a :\ngood"),
        ("", "good", "good"),
        ("a", "", "a"),
        ("{response}", "{prompt} {0} {x", "{response} {prompt} {0} {x"),
    ],
)
def test_one_space_where_neither_side_has_white_space(prompt: str, response: str, text: str) -> None:
    assert TextTemplate().join(prompt, response) == text


def test_a_template_of_ones_own_is_taken_literally() -> None:
    assert TextTemplate("Q: {prompt}\nA: {response}<eos>").join("why {", "so }") == "Q: why {\nA: so }<eos>"


@pytest.mark.parametrize("pattern", ["", "{prompt}", "{response}{prompt}", "{prompt}{prompt}{response}", "{p}{r}"])
def test_other_templates_are_refused(pattern: str) -> None:
    with pytest.raises(ConfigError, match=r"must hold \{prompt\} and then \{response\}"):
        TextTemplate(pattern)


def test_a_long_text_loses_the_left_end_of_its_prompt_and_says_so(tokenizer_for, caplog) -> None:
    tokenizer = tokenizer_for("gpt2")
    encoder = TextEncoder(tokenizer, "{prompt}{response}", 6)
    with caplog.at_level(logging.WARNING):
        rows = encoder.encode(["one two three four five six", "one"], ["very good film", "bad"])
    assert tokenizer.decode(rows[0]) == "four five six very good film"
    assert tokenizer.decode(rows[1]) == "one bad"
    assert "1 of 2 texts were longer than max_length=6" in caplog.text


def test_a_long_response_keeps_its_end(tokenizer_for) -> None:
    tokenizer = tokenizer_for("gpt2")
    rows = TextEncoder(tokenizer, "{prompt}{response}", 3).encode(["one two"], ["very good film and bad film"])
    assert tokenizer.decode(rows[0]) == "and bad film"


def test_special_tokens_survive_the_cut(tokenizer_for) -> None:
    tokenizer = tokenizer_for("bert")
    rows = TextEncoder(tokenizer, "{prompt}{response}", 5).encode(["one two three"], ["very good"])
    assert tokenizer.decode(rows[0]) == "[CLS] three very good [SEP]"
    with pytest.raises(ConfigError, match="above the 2 special tokens"):
        TextEncoder(tokenizer, "{prompt}{response}", 2)


def test_texts_that_fit_log_nothing_and_no_text_is_fine(tokenizer_for, caplog) -> None:
    encoder = TextEncoder(tokenizer_for("gpt2"), "{prompt}{response}", 6)
    encoder.encode(["one"], ["good"])
    assert encoder.encode([], []) == []
    assert not caplog.records


def test_batches_hold_one_width_and_every_row_once() -> None:
    assert list(width_batches([8, 16, 8, 16, 8, 40, 16], 32)) == [[5], [1, 3], [6], [0, 2, 4]]
    assert list(width_batches([], 18)) == []


def test_the_padded_width_is_a_matter_of_the_length_alone() -> None:
    lengths = [1, 16, 17, 100, 127, 128, 129, 513, 1000, 1024]
    assert [padded_width(length, 1024) for length in lengths] == [16, 16, 32, 112, 128, 128, 144, 576, 1024, 1024]
    assert padded_width(17, 20) == 20
    assert all(length <= padded_width(length, 2048) <= 1.125 * length + 15 for length in range(1, 2049))


def test_right_padding_and_its_mask() -> None:
    ids, mask = right_padded([[5, 6, 7], [8]], 0)
    assert ids.tolist() == [[5, 6, 7], [8, 0, 0]]
    assert mask.tolist() == [[1, 1, 1], [1, 0, 0]]


def test_texts_that_are_cut_are_counted(tokenizer_for) -> None:
    prompts, responses = ["one two three four five six", "one", "one"], ["very good film", "bad", "good bad one two"]
    assert TextEncoder(tokenizer_for("gpt2"), "{prompt}{response}", 5).count_cut(prompts, responses) == 1
    assert TextEncoder(tokenizer_for("gpt2"), "{prompt}{response}", 4).count_cut(prompts, responses) == 2
    assert PairEncoder(tokenizer_for("bert"), 7).count_cut(prompts, responses) == 2 - 1
    assert PairEncoder(tokenizer_for("bert"), 7).count_cut([], []) == 0


def test_the_end_that_fits_is_the_longest(tokenizer_for) -> None:
    tokenizer = tokenizer_for("gpt2")
    assert fitting_end(tokenizer, "one two three", 2) == "two three"
    assert fitting_end(tokenizer, "one two three", 0) == ""
    whole = "one two"
    assert fitting_end(tokenizer, whole, 2) is whole
