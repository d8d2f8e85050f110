"""The draw, the truncations and the end of a response."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from tiny_models import make_tokenizer, words

from lm_gym import SamplingConfig
from lm_gym.errors import ConfigError
from lm_gym.models.response_text import ResponseText
from lm_gym.models.sampling import StopRule, draw, truncated_logits

INF = float("inf")


def test_draws_come_as_often_as_their_probabilities_say() -> None:
    probabilities = np.array([0.5, 0.0, 0.2, 0.05, 0.25])
    rows = 20_000
    uniform = torch.rand(rows, generator=torch.Generator().manual_seed(0))
    logits = torch.tensor(probabilities).log().float().repeat(rows, 1)
    tokens, log_probs = draw(logits, uniform)
    counts = np.bincount(tokens.numpy(), minlength=5)
    assert counts[1] == 0
    kept = probabilities > 0
    assert chisquare(counts[kept], probabilities[kept] * rows).pvalue > 0.01
    np.testing.assert_allclose(log_probs.numpy(), np.log(probabilities[tokens.numpy()]), atol=1e-6)


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.0, 1e-12, 0.3, 0.999, 1 - 2**-24]))
@settings(max_examples=80)
def test_no_draw_ever_lands_on_a_token_of_probability_zero(seed: int, uniform: float) -> None:
    rng = np.random.default_rng(seed)
    logits = rng.normal(scale=5.0, size=(4, 300)).astype(np.float32)
    logits[rng.random(logits.shape) < rng.choice([0.0, 0.5, 0.98])] = -INF
    logits[:, rng.integers(300)] = 0.0
    tokens, log_probs = draw(torch.from_numpy(logits), torch.full((4,), uniform))
    assert torch.isfinite(log_probs).all()
    assert np.isfinite(logits[np.arange(4), tokens.numpy()]).all()


@pytest.mark.parametrize(("uniform", "token"), [(0.0, 1), (0.4999, 1), (0.5001, 3), (0.9999999, 3), (1 - 2**-24, 3)])
def test_the_edges_of_the_uniform_number_hit_the_outermost_possible_tokens(uniform: float, token: int) -> None:
    logits = torch.tensor([[-INF, 0.0, -INF, 0.0, -INF]])
    tokens, log_probs = draw(logits, torch.tensor([uniform]))
    assert tokens.item() == token
    assert log_probs.item() == pytest.approx(np.log(0.5))


def test_every_row_is_drawn_with_its_own_number() -> None:
    logits = torch.zeros(4, 4)
    tokens, _ = draw(logits, torch.tensor([0.1, 0.3, 0.6, 0.9]))
    assert tokens.tolist() == [0, 1, 2, 3]


LOGITS = torch.log(torch.tensor([[0.4, 0.3, 0.2, 0.1], [0.04, 0.06, 0.8, 0.1]]))


@pytest.mark.parametrize(
    ("config", "num_tokens", "kept"),
    [
        ({}, 0, [[0, 1, 2, 3], [0, 1, 2, 3]]),
        ({"top_k": 2}, 0, [[0, 1], [2, 3]]),
        ({"top_k": 99}, 0, [[0, 1, 2, 3], [0, 1, 2, 3]]),
        ({"top_p": 0.65}, 0, [[0, 1], [2]]),
        ({"top_p": 1.0}, 0, [[0, 1, 2, 3], [0, 1, 2, 3]]),
        ({"min_p": 0.4}, 0, [[0, 1, 2], [2]]),
        ({"min_new_tokens": 2}, 1, [[1, 2, 3], [0, 1, 3]]),
        ({"min_new_tokens": 2}, 2, [[0, 1, 2, 3], [0, 1, 2, 3]]),
        # The stop tokens leave first, so that top-k still has two to choose from.
        ({"min_new_tokens": 2, "top_k": 2}, 0, [[1, 2], [1, 3]]),
        ({"top_k": 3, "top_p": 0.7}, 0, [[0, 1], [2]]),
    ],
)
def test_truncation_by_hand(config: dict[str, float], num_tokens: int, kept: list[list[int]]) -> None:
    out = []
    for row, stop_id in enumerate([0, 2]):
        cut = truncated_logits(LOGITS[row : row + 1], num_tokens, SamplingConfig(**config, stop_token_ids=(stop_id,)))  # type: ignore[arg-type]
        out.append(torch.isfinite(cut[0]).nonzero().flatten().tolist())
    assert out == kept


def test_every_row_may_have_its_own_number_of_tokens() -> None:
    cut = truncated_logits(LOGITS, np.array([1, 2]), SamplingConfig(min_new_tokens=2, stop_token_ids=(0, 3)))
    assert torch.isfinite(cut).tolist() == [[False, True, True, False], [True, True, True, True]]


def test_temperature_divides_the_logits_and_nothing_is_changed_in_place() -> None:
    before = LOGITS.clone()
    out = truncated_logits(LOGITS, 0, SamplingConfig(temperature=0.5, top_k=2, min_new_tokens=1, stop_token_ids=(3,)))
    torch.testing.assert_close(out[0, :2], LOGITS[0, :2] / 0.5)
    torch.testing.assert_close(LOGITS, before)


PROMPT = np.array(words("x y"))


def stop_rule(**config: object) -> StopRule:
    return StopRule(
        ResponseText(make_tokenizer()), SamplingConfig(**({"max_new_tokens": 4, "stop_token_ids": (0,)} | config))
    )  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("response", "strings", "reason", "text"),
    [
        ("$", (), "eos", ""),
        ("a $", (), "eos", " a"),
        ("a", (), None, " a"),
        ("a b c d", (), "length", " a b c d"),
        ("a b c $", (), "eos", " a b c"),
        ("a b", ("b",), "stop_string", " a "),
        ("a b c", ("b c",), "stop_string", " a "),
        ("b", ("b",), "stop_string", " "),
        ("a b c", ("c", "a b"), "stop_string", " "),
        ("a b c", ("c", " b"), "stop_string", " a"),
        ("b", (" b",), "stop_string", ""),
        ("a b c d", ("d",), "stop_string", " a b c "),
        ("a b", ("c",), None, " a b"),
        ("a b $", ("c",), "eos", " a b"),
    ],
)
def test_why_and_where_a_response_ends(response: str, strings: tuple[str, ...], reason: str | None, text: str) -> None:
    rule = stop_rule(stop_strings=strings)
    ids = np.array(words(response))
    assert rule.reason(PROMPT, ids) == reason
    assert rule.text(PROMPT, ids, rule.reason(PROMPT, ids)) == text


def test_a_stop_string_that_the_tokenizer_cannot_produce_is_refused() -> None:
    with pytest.raises(
        ConfigError,
        match=r"stop_strings: every one must survive encoding .* '###' does not, so it could never be met; use",
    ):
        stop_rule(stop_strings=("###",))


def test_the_check_of_a_stop_string_decodes_as_the_response_is_decoded() -> None:
    tokenizer = make_tokenizer(pad_token=None)
    tokenizer.clean_up_tokenization_spaces = True
    tokenizer.add_tokens(["."])
    assert tokenizer.decode([1, len(tokenizer) - 1]) == "a."
    rule = StopRule(ResponseText(tokenizer), SamplingConfig(stop_strings=("a .",), stop_token_ids=(0,)))
    assert rule.reason(PROMPT, np.array([1, len(tokenizer) - 1])) == "stop_string"
