"""The fused sampler: its draws, its log-probabilities and its keep sets, checked against plain forward passes."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import ARCHITECTURES, EOS, V, architecture_model, full_log_probs, make_model, make_tokenizer

from lm_gym import LanguageModel, SamplingConfig
from lm_gym.errors import ConfigError, DivergedError
from lm_gym.models.generate import LanguageModelSampler, generate
from lm_gym.policy import Generation

PROMPTS = [np.array(ids) for ids in ([1, 2, 3], [4], [5, 6, 7, 8, 9, 10], [2, 2], [11, 3, 5, 1])]
SAMPLINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "temperature": {"temperature": 0.7},
    "top_k": {"top_k": 5},
    "top_p": {"top_p": 0.9},
    "min_p": {"min_p": 0.1},
    "min_new_tokens": {"min_new_tokens": 4},
    "together": {"temperature": 1.5, "top_k": 12, "top_p": 0.8, "min_new_tokens": 2},
}


def sample(
    model: LanguageModel, prompts: list[np.ndarray] = PROMPTS, seed: int = 0, limit: int = 1 << 30, **settings: Any
) -> Generation:
    generator = torch.Generator().manual_seed(seed)
    sampling = SamplingConfig(**({"max_new_tokens": 8} | settings))
    return generate(model, prompts, sampling, generator=generator, max_keep_set_bytes=limit)


def stored_sets(generation: Generation) -> np.ndarray:
    """The keep set of every counted token, row-major. Shape: (N, V), bool."""
    count = int(generation.mask.sum())
    if generation.keep_sets is None:
        return np.ones((count, V), dtype=bool)
    return generation.keep_sets.dense(0, count, generation.mask)


def expected_set(log_probs: np.ndarray, column: int, settings: dict[str, Any]) -> np.ndarray:
    """The set of tokens that may be drawn, from the definitions and not from the library. Shape: (V,), bool."""
    log_probs = log_probs.copy()
    if column < settings.get("min_new_tokens", 0):
        log_probs[EOS] = -np.inf
    keep = np.isfinite(log_probs)
    if "top_k" in settings:
        keep &= log_probs >= np.sort(log_probs)[-settings["top_k"]]
    if "top_p" in settings:
        p = np.where(keep, np.exp(log_probs), 0.0)
        p /= p.sum()
        order = np.argsort(-p)
        before = np.concatenate([[0.0], np.cumsum(p[order])[:-1]])
        keep[order[before >= settings["top_p"]]] = False
    if "min_p" in settings:
        keep &= log_probs >= log_probs[keep].max() + np.log(settings["min_p"])
    return keep


@pytest.mark.parametrize("name", SAMPLINGS)
def test_log_probs_and_keep_sets_equal_an_independent_recomputation(
    name: str, model_of: Callable[[str], LanguageModel]
) -> None:
    check_against_full_forwards(model_of("gpt2"), SAMPLINGS[name])


@pytest.mark.parametrize("architecture", ARCHITECTURES[1:])
def test_every_architecture_samples_what_its_full_forward_says(
    architecture: str, model_of: Callable[[str], LanguageModel]
) -> None:
    check_against_full_forwards(model_of(architecture), SAMPLINGS["together"])


def check_against_full_forwards(model: LanguageModel, settings: dict[str, Any]) -> None:
    prompts = PROMPTS * 2
    if model.is_encoder_decoder:
        prompts = [np.append(prompt, EOS) for prompt in prompts]
    generation = sample(model, prompts, **settings)
    keep = stored_sets(generation)
    rows, columns = np.nonzero(generation.mask)
    for number, (row, column) in enumerate(zip(rows, columns, strict=True)):
        prefix = [*prompts[row], *generation.ids[row, :column]]
        log_probs = full_log_probs(model, prefix, settings.get("temperature", 1.0))
        np.testing.assert_array_equal(keep[number], expected_set(log_probs, int(column), settings))
        token = generation.ids[row, column]
        assert keep[number, token]
        renormalised = log_probs[token] - np.logaddexp.reduce(log_probs[keep[number]])
        assert generation.log_probs[row, column] == pytest.approx(renormalised, abs=1e-4)
    assert (generation.keep_sets is None) == (not set(settings) - {"temperature"})


def test_what_is_off_the_mask_is_zero_and_rows_end_at_their_stop_token(
    model_of: Callable[[str], LanguageModel],
) -> None:
    generation = sample(model_of("gpt2"), PROMPTS * 4)
    lengths = generation.mask.sum(axis=1)
    assert lengths.min() < lengths.max() == generation.mask.shape[1]
    for row, length in enumerate(lengths):
        assert generation.mask[row, :length].all()
        assert (generation.ids[row, :length][:-1] != EOS).all()
        assert length == 8 or generation.ids[row, length - 1] == EOS
    assert (generation.ids[~generation.mask] == 0).all()
    assert (generation.log_probs[~generation.mask] == 0).all()


@pytest.mark.parametrize("settings", [{}, {"top_k": 5}, {"stop_strings": ("a",)}], ids=["plain", "top_k", "stop"])
def test_a_prompt_alone_draws_the_same_tokens_as_in_a_batch(
    settings: dict[str, Any], model_of: Callable[[str], LanguageModel]
) -> None:
    model = model_of("llama")
    differ = False
    for seed in range(6):
        alone = sample(model, PROMPTS[:1], seed=seed, **settings)
        batch = sample(model, PROMPTS, seed=seed, **settings)
        length = int(alone.mask.sum())
        assert batch.mask[0].sum() == length
        np.testing.assert_array_equal(batch.ids[0, :length], alone.ids[0])
        np.testing.assert_allclose(batch.log_probs[0, :length], alone.log_probs[0], atol=1e-5)
        differ |= len(set(batch.mask.sum(axis=1).tolist())) > 1
    assert differ, "no row ever left the batch early"


def test_a_row_that_ends_does_not_change_the_draws_of_those_that_go_on(
    model_of: Callable[[str], LanguageModel],
) -> None:
    # A stop string only ends rows; whoever does not meet it must go on as if there were none.
    model = model_of("gpt2")
    free = sample(model, PROMPTS * 4, seed=3, temperature=2.0)
    stopped = sample(model, PROMPTS * 4, seed=3, temperature=2.0, stop_strings=("a", "b", "c"))
    shorter = stopped.mask.sum(axis=1) < free.mask.sum(axis=1)
    assert shorter.any()
    assert not shorter.all()
    width = stopped.mask.shape[1]
    np.testing.assert_array_equal(stopped.ids, np.where(stopped.mask, free.ids[:, :width], 0))


def test_the_seed_alone_decides_the_draws(model_of: Callable[[str], LanguageModel]) -> None:
    model = model_of("gpt2")
    torch.manual_seed(1)
    first = sample(model, seed=5)
    torch.manual_seed(2)
    np.testing.assert_array_equal(first.ids, sample(model, seed=5).ids)
    assert first.ids.shape != sample(model, seed=6).ids.shape or (first.ids != sample(model, seed=6).ids).any()


@pytest.mark.parametrize("max_rows", [1, 2, 4])
@pytest.mark.parametrize("settings", [{}, {"top_k": 5}])
def test_rows_beyond_the_limit_wait_their_turn_and_draw_the_same(
    settings: dict[str, Any], max_rows: int, model_of: Callable[[str], LanguageModel]
) -> None:
    model = model_of("gpt2")
    whole = sample(model, **settings)
    generator = torch.Generator().manual_seed(0)
    sampling = SamplingConfig(max_new_tokens=8, **settings)
    parts = generate(model, PROMPTS, sampling, generator=generator, max_rows=max_rows)
    np.testing.assert_array_equal(parts.ids, whole.ids)
    np.testing.assert_array_equal(stored_sets(parts), stored_sets(whole))
    np.testing.assert_allclose(parts.log_probs, whole.log_probs, atol=1e-5)


def test_no_more_rows_than_the_limit_are_ever_in_the_cache(
    model_of: Callable[[str], LanguageModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model_of("gpt2")
    seen: list[int] = []
    hidden = model.hidden

    def watched(ids: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        seen.append(len(ids))
        return hidden(ids, *args, **kwargs)

    monkeypatch.setattr(model, "hidden", watched)
    LanguageModelSampler(model, max_rows=3).generate(PROMPTS * 2, SamplingConfig(max_new_tokens=4, seed=0))
    assert max(seen) == 3
    with pytest.raises(ConfigError, match=r"LanguageModelSampler.max_rows: must be >= 1, got 0"):
        LanguageModelSampler(model, max_rows=0)


def test_a_response_beyond_the_models_own_context_is_refused() -> None:
    model = LanguageModel(make_model(n_positions=12), make_tokenizer())
    assert sample(model, max_new_tokens=6).mask.any()
    with pytest.raises(ConfigError, match=r"fit the 12 positions .* prompt of 6 tokens and max_new_tokens = 7"):
        sample(model, max_new_tokens=7)


def test_a_model_of_lost_weights_is_named_and_not_sampled_from() -> None:
    model = architecture_model("gpt2")
    with torch.no_grad():
        model.model.get_output_embeddings().weight[3] = float("nan")
    with pytest.raises(DivergedError, match=r"probabilities of every row must be numbers, and 5 of 5 rows have NaN"):
        sample(model)


def test_stop_tokens_are_those_of_the_rules(model_of: Callable[[str], LanguageModel]) -> None:
    model = model_of("gpt2")
    generation = sample(model, PROMPTS * 4, stop_token_ids=(3, 5), min_new_tokens=2)
    lengths = generation.mask.sum(axis=1)
    ends = generation.ids[np.arange(len(lengths)), lengths - 1]
    assert set(ends[lengths < 8]) <= {3, 5}
    assert (lengths < 8).any()
    assert lengths.min() > 2
    assert EOS in generation.ids[generation.mask]  # the model's own end token ends nothing here
    with pytest.raises(ConfigError, match=rf"must lie in the model's vocabulary of {V} tokens, got \[99\]"):
        sample(model, stop_token_ids=(3, 99))


def test_keep_sets_over_the_memory_limit_are_refused_with_the_settings_named(
    model_of: Callable[[str], LanguageModel],
) -> None:
    # 5 rows x 4 bytes of bits (V = 32) per column: the third column passes 50 bytes.
    assert sample(model_of("gpt2"), min_new_tokens=8, limit=1000).keep_sets is not None
    with pytest.raises(
        ConfigError, match=r"max_keep_set_bytes = 50, and top_k/top_p/min_p/min_new_tokens needed more by token 3; use"
    ):
        sample(model_of("gpt2"), min_new_tokens=8, limit=50)


def test_without_stop_tokens_every_response_is_as_long_as_the_cap(model_of: Callable[[str], LanguageModel]) -> None:
    generation = sample(model_of("gpt2"), PROMPTS * 4, stop_token_ids=(), min_new_tokens=2)
    assert generation.mask.all()
    assert EOS in generation.ids
    stopped = sample(model_of("gpt2"), PROMPTS * 4, stop_token_ids=(), stop_strings=("a",))
    assert not stopped.mask.all()


@pytest.mark.parametrize("temperature", [2, np.float32(0.5)])
def test_a_temperature_may_be_any_real_number(temperature: Any, model_of: Callable[[str], LanguageModel]) -> None:
    generation = sample(model_of("gpt2"), temperature=temperature)
    same = sample(model_of("gpt2"), temperature=float(temperature))
    np.testing.assert_array_equal(generation.ids, same.ids)


def test_sampling_follows_the_models_probabilities(model_of: Callable[[str], LanguageModel]) -> None:
    from scipy.stats import chisquare

    model = model_of("gpt2")
    rows = 4000
    generation = sample(model, [PROMPTS[0]] * rows, max_new_tokens=1)
    counts = np.bincount(generation.ids[:, 0], minlength=V)
    expected = np.exp(full_log_probs(model, PROMPTS[0])) * rows
    rare = expected < 5
    observed = np.append(counts[~rare], counts[rare].sum())
    wanted = np.append(expected[~rare], expected[rare].sum())
    assert chisquare(observed, wanted * observed.sum() / wanted.sum()).pvalue > 0.01
