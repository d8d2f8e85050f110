"""Teacher-forced passes: batching, the reference's log-probabilities and the statistics of a policy."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import ARCHITECTURES, PROMPTS, SamplingPolicy, full_log_probs, make_model, make_tokenizer, vector_env

from lm_gym import Episodes, LanguageModel, Reference
from lm_gym.models import teacher_forcing
from lm_gym.models.teacher_forcing import forced_states, scatter, token_batches, token_statistics

CPU = torch.device("cpu")


def rollout(model: LanguageModel, rows: int = 7, **settings: object) -> Episodes:
    env = vector_env(1, None, PROMPTS, tokenizer=model.tokenizer, kl_coef=0.0, **({"max_new_tokens": 6} | settings))
    env.reset(seed=0)
    return env.rollout(SamplingPolicy(model), rows)


@given(st.lists(st.integers(1, 60), min_size=1, max_size=40), st.integers(1, 200))
@settings(max_examples=100)
def test_token_batches_hold_every_row_once_and_stay_within_the_limit(lengths: list[int], limit: int) -> None:
    sizes = np.array(lengths)
    batches = list(token_batches(sizes, limit, CPU))
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))
    for rows in batches:
        assert len(rows) == 1 or len(rows) * sizes[rows].max() <= limit
    order = sizes[np.concatenate(batches)]
    assert (np.diff(order) <= 0).all()


def test_token_batches_by_hand() -> None:
    batches = [rows.tolist() for rows in token_batches(np.array([2, 9, 3, 3, 2, 1]), 6, CPU)]
    assert batches == [[1], [2, 3], [0, 4, 5]]


def test_token_batches_are_closed_before_much_shorter_rows_once_they_are_large_enough() -> None:
    lengths = np.array([200] * 8 + [160] * 2 + [40] * 30)
    batches = [rows.tolist() for rows in token_batches(lengths, 10_000, CPU)]
    assert batches == [list(range(10)), list(range(10, 40))]
    few = np.array([200] * 2 + [40] * 3)  # 400 tokens do not fill a batch, so the short rows come along
    assert [len(rows) for rows in token_batches(few, 10_000, CPU)] == [5]


def expected_log_probs(model: LanguageModel, episodes: Episodes, keep: bool) -> np.ndarray:
    out = np.zeros(episodes.response_mask.shape)
    counted = int(episodes.response_mask.sum())
    sets = np.ones((counted, model.vocab_size), dtype=bool)
    if keep and episodes.keep_sets is not None:
        sets = episodes.keep_sets.dense(0, counted, episodes.response_mask)
    for number, (row, column) in enumerate(zip(*np.nonzero(episodes.response_mask), strict=True)):
        prompt = episodes.prompt_ids[row, : episodes.prompt_lengths[row]]
        prefix = [*prompt, *episodes.response_ids[row, :column]]
        log_probs = full_log_probs(model, prefix, episodes.temperature)
        normaliser = np.logaddexp.reduce(log_probs[sets[number]])
        out[row, column] = log_probs[episodes.response_ids[row, column]] - normaliser
    return out


@pytest.mark.parametrize("max_batch_tokens", [1, 30, 10_000])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_reference_log_probs_do_not_depend_on_the_batching(
    architecture: str, max_batch_tokens: int, model_of: Callable[[str], LanguageModel]
) -> None:
    model = model_of(architecture)
    episodes = rollout(model, temperature=0.7, top_k=9)
    got = Reference(model).log_probs(episodes, max_batch_tokens=max_batch_tokens)
    # Keep sets are the sampler's: the reference is tempered, never truncated.
    np.testing.assert_allclose(got, expected_log_probs(model, episodes, keep=False), atol=1e-4)


@pytest.mark.parametrize("settings", [{}, {"top_k": 4, "temperature": 1.3}, {"min_new_tokens": 3}])
@pytest.mark.parametrize("chunk", [1, 5, 2048])
def test_teacher_forced_log_probs_equal_the_samplers_own(
    chunk: int, settings: dict[str, float], model_of: Callable[[str], LanguageModel]
) -> None:
    model = model_of("gpt2")
    episodes = rollout(model, **settings)
    states = forced_states(model, episodes)
    flat = token_statistics(model, states.before, episodes, chunk=chunk).log_probs
    grid = scatter(flat, episodes.response_mask).detach().numpy()
    np.testing.assert_allclose(grid, episodes.log_probs, atol=1e-4)
    np.testing.assert_allclose(grid, expected_log_probs(model, episodes, keep=True), atol=1e-4)


def test_entropy_is_that_of_the_truncated_distribution(model_of: Callable[[str], LanguageModel]) -> None:
    model = model_of("gpt2")
    episodes = rollout(model, top_k=4)
    statistics = token_statistics(model, forced_states(model, episodes).before, episodes)
    sets = episodes.keep_sets.dense(0, int(episodes.response_mask.sum()), episodes.response_mask)  # type: ignore[union-attr]
    for number, (row, column) in enumerate(zip(*np.nonzero(episodes.response_mask), strict=True)):
        prompt = episodes.prompt_ids[row, : episodes.prompt_lengths[row]]
        log_probs = full_log_probs(model, [*prompt, *episodes.response_ids[row, :column]])[sets[number]]
        p = np.exp(log_probs - np.logaddexp.reduce(log_probs))
        assert statistics.entropy[number].item() == pytest.approx(-(p * np.log(p)).sum(), abs=1e-4)
    assert statistics.entropy.max() <= np.log(4) + 1e-5


@pytest.mark.parametrize("entropy", [False, True])
def test_logits_are_computed_again_and_not_kept(entropy: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of (tokens, V) waits for the backward pass, and the gradient is that of one piece."""
    model = LanguageModel(make_model(vocab_size=50, n_embd=32).requires_grad_(True), make_tokenizer(size=50))
    episodes = rollout(model, rows=9, top_k=30, temperature=0.8)
    weights = list(model.model.parameters())
    found, kept = [], []
    for limit, chunk in ((1 << 26, 4), (0, 4)):
        monkeypatch.setattr(teacher_forcing, "KEPT_NUMBERS", limit)
        saved: list[int] = []

        def note(tensor: torch.Tensor, saved: list[int] = saved) -> torch.Tensor:
            saved.append(tensor.numel() if tensor.ndim == 2 and tensor.shape[-1] == 50 else 0)
            return tensor

        states = forced_states(model, episodes).before
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            statistics = token_statistics(model, states, episodes, entropy=entropy, chunk=chunk)
        found.append(torch.autograd.grad(statistics.log_probs.sum() + 0.3 * statistics.entropy.sum(), weights))
        kept.append(sum(saved))
    assert kept[0] >= 50 * int(episodes.response_mask.sum())
    assert kept[1] == 0
    for whole, cut in zip(*found, strict=True):
        # Sums over 30 tokens in another order: float32 rounding of terms of order 1.
        torch.testing.assert_close(cut, whole, rtol=1e-4, atol=1e-5)


def test_without_entropy_zeros_are_returned(model_of: Callable[[str], LanguageModel]) -> None:
    model = model_of("gpt2")
    episodes = rollout(model)
    statistics = token_statistics(model, forced_states(model, episodes).before, episodes, entropy=False)
    assert (statistics.entropy == 0).all()


def test_states_after_the_last_token_are_the_trunks(model_of: Callable[[str], LanguageModel]) -> None:
    model = model_of("llama")
    episodes = rollout(model)
    after = forced_states(model, episodes).after
    for row in range(len(episodes)):
        prompt = episodes.prompt_ids[row, : episodes.prompt_lengths[row]]
        whole = [*prompt, *episodes.response_ids[row, : episodes.response_lengths[row]]]
        torch.testing.assert_close(after[row], model.hidden(torch.tensor([whole]))[0, -1], atol=1e-4, rtol=1e-4)


def test_padding_changes_nothing(model_of: Callable[[str], LanguageModel]) -> None:
    model = model_of("bloom")
    episodes = rollout(model, top_k=6)
    together = Reference(model).log_probs(episodes)
    for row in range(len(episodes)):
        alone = Reference(model).log_probs(episodes[[row]])
        np.testing.assert_allclose(together[row, : alone.shape[1]], alone[0], atol=1e-4)


def test_scatter_puts_values_back_and_keeps_gradients() -> None:
    mask = np.array([[True, True, False], [True, False, False]])
    flat = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
    grid = scatter(flat, mask)
    assert grid.tolist() == [[1.0, 2.0, 0.0], [3.0, 0.0, 0.0]]
    (grid * torch.tensor([[1.0, 10.0, 100.0], [1000.0, 5.0, 5.0]])).sum().backward()
    assert flat.grad is not None
    assert flat.grad.tolist() == [1.0, 10.0, 1000.0]


def test_a_token_outside_its_keep_set_gets_no_probability(model_of: Callable[[str], LanguageModel]) -> None:
    model = model_of("gpt2")
    episodes = rollout(model, top_k=3)
    states = forced_states(model, episodes).before
    sets = episodes.keep_sets.dense(0, 1, episodes.response_mask)[0]  # type: ignore[union-attr]
    ids = episodes.response_ids.copy()
    ids[0, 0] = int(np.flatnonzero(~sets)[0])
    wrong = token_statistics(model, states, replace(episodes, response_ids=ids)).log_probs
    assert wrong[0].item() < -1e30
