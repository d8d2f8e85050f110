"""Prompts that rows share: found, counted, cut into batches, and run once, with the numbers of whole rows."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import CAUSAL, ENCODER_DECODERS, SamplingPolicy, make_model, make_tokenizer, vector_env

from lm_gym import Episodes, LanguageModel, Reference, SamplingConfig
from lm_gym.models.decoder import decoder_for
from lm_gym.models.decoding import shared_prompts
from lm_gym.models.decoding.shared_prompts import SharedPrompts, padded_tokens, sharing_pays
from lm_gym.models.generate import generate
from lm_gym.models.teacher_forcing import episode_batches

CPU, GPU = torch.device("cpu"), torch.device("cuda")
PROMPTS = [np.array(ids) for ids in ([3, 1, 4, 1, 5, 9, 2, 6], [2, 7], [3, 1, 4, 1, 5, 9, 2, 6], [2, 7], [2, 7])]
RESPONSES = [np.array(ids) for ids in ([5, 8], [9, 7, 9, 3, 2], [3], [8, 4, 6, 2], [6, 4])]
ALWAYS, NEVER = 1, 1 << 40


@pytest.fixture
def second_pass(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Sets the tokens that a second pass must save."""

    def set_to(tokens: int) -> None:
        monkeypatch.setattr(shared_prompts, "SECOND_PASS_ON_CPU", tokens)

    return set_to


def prompt_lengths_run(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Shapes of the token ids of every pass from now on."""
    shapes: list[tuple[int, ...]] = []
    hidden = model.hidden

    def noting(input_ids: torch.Tensor, *rest: Any) -> torch.Tensor:
        shapes.append(tuple(input_ids.shape))
        return hidden(input_ids, *rest)

    monkeypatch.setattr(model, "hidden", noting)
    return shapes


def test_equal_prompts_are_found_by_their_ids() -> None:
    shared = SharedPrompts.of(PROMPTS)
    assert [ids.tolist() for ids in shared.prompts] == [[3, 1, 4, 1, 5, 9, 2, 6], [2, 7]]
    assert shared.of_row.tolist() == [0, 1, 0, 1, 1]
    assert SharedPrompts.of([]).of_row.tolist() == []


def test_the_size_of_a_pass_by_hand(second_pass: Callable[[int], None]) -> None:
    prompts, responses = np.array([8, 2, 8, 2, 2]), np.array([2, 5, 1, 4, 2])
    of_row = np.array([0, 1, 0, 1, 1])
    second_pass(9)  # 5 rows of 8 + 2 are 50; 2 prompts of 8 and 5 responses of 5 are 41
    assert padded_tokens(prompts, responses, of_row, CPU) == (41, True)
    second_pass(10)
    assert padded_tokens(prompts, responses, of_row, CPU) == (50, False)
    second_pass(0)
    assert padded_tokens(prompts[:2], responses[:2], of_row[:2], CPU) == (20, False)  # nothing is shared


def test_sharing_must_save_a_passes_price_and_a_tenth() -> None:
    assert sharing_pays(200, 136, CPU)
    assert not sharing_pays(200, 137, CPU)
    assert sharing_pays(2000, 1800, CPU)
    assert not sharing_pays(2000, 1801, CPU)
    assert not sharing_pays(2000, 1000, GPU)


@pytest.mark.parametrize("architecture", [*CAUSAL, "mistral"])
def test_states_and_gradients_are_those_of_whole_rows(
    architecture: str, second_pass: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In double precision where the model can; mistral's window is 4 slots."""
    dtype = torch.float32 if architecture == "bloom" else torch.float64
    model = LanguageModel(make_model(architecture).to(dtype).requires_grad_(True), make_tokenizer())
    shapes = prompt_lengths_run(model, monkeypatch)
    found = []
    for least in (NEVER, ALWAYS):
        second_pass(least)
        states = decoder_for(model).teacher_forced(PROMPTS, RESPONSES)
        weights = [torch.arange(part.numel()).reshape(part.shape).cos().to(dtype) for part in states]
        loss = sum((part * weight).sum() for part, weight in zip(states, weights, strict=True))
        assert isinstance(loss, torch.Tensor)
        found.append((states, torch.autograd.grad(loss, list(model.trunk.parameters()))))
    assert shapes == [(5, 10), (2, 8), (5, 5)]
    (states, gradients), (once, once_gradients) = found
    assert once.before.shape == (14, 32)
    assert once.after.shape == (5, 32)
    for expected, got in zip((*states, *gradients), (*once, *once_gradients), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5 * expected.detach().abs().max().item())


def test_a_model_whose_cache_is_too_short_for_both_runs_whole_rows(
    second_pass: Callable[[int], None], model_of: Callable[[str], LanguageModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The longest prompt and the longest response of different rows together need more slots than any one row."""
    second_pass(ALWAYS)
    model = model_of("gpt2")
    shapes = prompt_lengths_run(model, monkeypatch)
    for slots in (12, 13):
        monkeypatch.setattr(type(model), "max_cache_slots", slots)
        decoder_for(model).teacher_forced(PROMPTS, RESPONSES)
    assert shapes == [(5, 10), (2, 8), (5, 5)]


@pytest.mark.parametrize("architecture", CAUSAL)
def test_decoding_runs_a_prompt_once_and_draws_what_its_rows_draw_alone(
    architecture: str, model_of: Callable[[str], LanguageModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, sampling = model_of(architecture), SamplingConfig(max_new_tokens=8, top_k=12)
    shapes = prompt_lengths_run(model, monkeypatch)
    draws = torch.rand((5, 8), generator=torch.Generator().manual_seed(3))
    with monkeypatch.context() as patched:
        patched.setattr(torch, "rand", lambda shape, generator: draws[: shape[0]])
        together = generate(model, PROMPTS, sampling, generator=torch.Generator())
    assert shapes[0] == (2, 8)
    for row, prompt in enumerate(PROMPTS):
        with monkeypatch.context() as patched:
            patched.setattr(torch, "rand", lambda shape, generator, row=row: draws[row : row + 1])
            alone = generate(model, [prompt], sampling, generator=torch.Generator())
        length = int(alone.mask.sum())
        assert together.mask[row].sum() == length
        np.testing.assert_array_equal(together.ids[row, :length], alone.ids[0])
        np.testing.assert_allclose(together.log_probs[row, :length], alone.log_probs[0], atol=1e-5)


def test_rows_restarted_beside_others_from_one_prompt_are_copies(
    model_of: Callable[[str], LanguageModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model_of("llama")
    decoder = decoder_for(model, 4, 20)
    decoder.prefill([0, 1, 2, 3], [PROMPTS[1], np.array([9, 9, 9]), PROMPTS[1], np.array([4])])
    alive = np.array([False, True, False, True])
    decoder.advance(np.array([1, 2, 3, 4]), alive)
    shapes = prompt_lengths_run(model, monkeypatch)
    decoder.prefill([2, 0], [PROMPTS[0], PROMPTS[0]])
    assert shapes == [(1, 8)]
    states = decoder.advance(np.array([5, 6, 7, 8]), np.ones(4, dtype=bool))
    for row, ids in enumerate(([*PROMPTS[0], 5], [9, 9, 9, 2, 6], [*PROMPTS[0], 7], [4, 4, 8])):
        expected = model.hidden(torch.tensor([ids]))[0, -1]
        torch.testing.assert_close(states[row], expected, rtol=1e-4, atol=1e-4)


def episodes_of(prompts: list[int], responses: list[int], kinds: list[int]) -> Episodes:
    """Rows of these lengths; rows of one kind have one prompt."""
    rows, width, longest = len(kinds), max(prompts), max(responses)
    prompt_lengths = np.array([prompts[kind] for kind in kinds])
    mask = np.arange(longest) < np.array(responses)[:, None]
    blank, ones = np.zeros(rows), np.ones(rows, dtype=bool)
    return Episodes(
        prompt_ids=np.repeat(np.array(kinds)[:, None], width, axis=1),
        prompt_mask=np.arange(width) < prompt_lengths[:, None],
        response_ids=mask.astype(np.int64),
        response_mask=mask,
        log_probs=np.zeros(mask.shape, dtype=np.float32),
        ref_log_probs=None,
        kl=None,
        rewards=np.zeros(mask.shape),
        kl_coef=blank,
        scores=blank,
        score_valid=ones,
        terminated=ones,
        truncated=~ones,
        stop_reasons=("length",) * rows,
        group=np.arange(rows),
        prompts=("",) * rows,
        responses=("",) * rows,
        temperature=1.0,
        max_new_tokens=longest,
    )


def test_batches_keep_the_rows_of_a_prompt_together_and_count_it_once() -> None:
    episodes = episodes_of([100, 90], [10, 9, 8, 10, 7, 10], [0, 1, 0, 1, 0, 1])
    # 2 prompts of 100 and 6 responses of 10 are 260 tokens; one prompt and its three responses are 130 and 120.
    assert [rows.tolist() for rows in episode_batches(episodes, 260, CPU)] == [[0, 2, 4, 3, 5, 1]]
    assert [rows.tolist() for rows in episode_batches(episodes, 259, CPU)] == [[0, 2, 4], [3, 5, 1]]
    assert [rows.tolist() for rows in episode_batches(episodes, 120, CPU)] == [[0, 2], [4], [3, 5, 1]]
    assert [rows.tolist() for rows in episode_batches(episodes, 1, CPU)] == [[0], [2], [4], [3], [5], [1]]


def test_a_full_batch_is_closed_before_prompts_that_would_be_padded_a_lot() -> None:
    episodes = episodes_of([900, 100], [40] * 4 + [10] * 4, [0] * 4 + [1] * 4)
    assert [rows.tolist() for rows in episode_batches(episodes, 10_000, CPU)] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    similar = episodes_of([900, 800], [40] * 8, [0] * 4 + [1] * 4)
    assert [rows.tolist() for rows in episode_batches(similar, 10_000, CPU)] == [[0, 1, 2, 3, 4, 5, 6, 7]]


@given(
    st.lists(st.integers(1, 90), min_size=1, max_size=5),
    st.lists(st.tuples(st.integers(0, 4), st.integers(1, 30)), min_size=1, max_size=30),
    st.integers(1, 400),
)
@settings(max_examples=30)
def test_batches_hold_every_row_once_and_stay_within_the_limit(
    prompts: list[int], rows: list[tuple[int, int]], limit: int
) -> None:
    episodes = episodes_of(prompts, [length for _, length in rows], [kind % len(prompts) for kind, _ in rows])
    batches = list(episode_batches(episodes, limit, CPU))
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(rows)))
    for batch in batches:
        part = episodes[batch]
        of_row = SharedPrompts.of(part.prompt_rows()).of_row
        size, _ = padded_tokens(part.prompt_lengths, part.response_lengths, of_row, CPU)
        assert len(batch) == 1 or size <= limit


def test_the_reference_pays_the_same_whether_prompts_are_shared_or_not(
    second_pass: Callable[[int], None], model_of: Callable[[str], LanguageModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model_of("llama")
    env = vector_env(1, None, ["a b c d e f g", "d"], tokenizer=make_tokenizer(), kl_coef=0.0, max_new_tokens=6)
    env.reset(seed=0)
    episodes = env.rollout(SamplingPolicy(model), 8, samples_per_prompt=4)
    second_pass(NEVER)
    expected = Reference(model).log_probs(episodes)
    second_pass(ALWAYS)
    shapes = prompt_lengths_run(model, monkeypatch)
    np.testing.assert_allclose(Reference(model).log_probs(episodes), expected, atol=2e-5)
    assert max(rows for rows, _ in shapes) == 8
    assert min(rows for rows, _ in shapes) < 3


@pytest.mark.parametrize("architecture", ENCODER_DECODERS)
def test_an_encoder_reads_a_prompt_once(architecture: str, model_of: Callable[[str], LanguageModel]) -> None:
    model = model_of(architecture)
    encoder = model.model.get_encoder()
    shapes: list[tuple[int, ...]] = []
    handle = encoder.register_forward_pre_hook(
        lambda part, args, kwargs: shapes.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    states = decoder_for(model).teacher_forced(PROMPTS, RESPONSES).after
    handle.remove()
    assert shapes == [(2, 8)]
    for row, (prompt, response) in enumerate(zip(PROMPTS, RESPONSES, strict=True)):
        alone = decoder_for(model).teacher_forced([prompt], [response]).after[0]
        torch.testing.assert_close(states[row], alone, rtol=1e-4, atol=1e-4)
