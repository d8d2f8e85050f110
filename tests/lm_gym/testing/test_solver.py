"""The solver against brute force that shares no code with it: itertools, one full forward pass per response."""

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from tiny_models import vector_env

from lm_gym import Reference, RewardConfig, SamplingConfig
from lm_gym.agents import LanguageModelPolicy
from lm_gym.errors import ConfigError, RewardModelError, UnsupportedModelError
from lm_gym.testing import (
    enumerate_mdp,
    expected_return,
    policy_value,
    share_closed,
    solve,
    state_log_probs,
    tiny_language_model,
    tiny_tokenizer,
)

BETA = 0.25


def count_a(prompts: list[str], completions: list[str]) -> list[float]:
    return [text.split().count("a") - 0.3 * len(text.split()) for text in completions]


def all_responses(vocab_size: int, cap: int) -> list[tuple[int, ...]]:
    """By definition: words without EOS (id 0), then EOS or the cap."""
    words = range(1, vocab_size)
    short = [(*body, 0) for n in range(cap) for body in itertools.product(words, repeat=n)]
    return short + list(itertools.product(words, repeat=cap))


def forced_log_probs(reference: Reference, prompt_ids: list[int], response: tuple[int, ...], temperature: float) -> Any:
    ids = torch.tensor([[*prompt_ids, *response]])
    with torch.no_grad():
        logits = reference.model(ids).logits[0, len(prompt_ids) - 1 : -1].double() / temperature
    return torch.log_softmax(logits, -1)[torch.arange(len(response)), torch.tensor(response)].numpy()


def brute_force(reference: Reference, *, cap: int, temperature: float = 1.0, reward: Any = count_a) -> Any:
    """Responses, their log-probabilities under the tempered reference, and their scores."""
    vocab_size = reference.language_model.vocab_size
    prompt_ids = reference.tokenizer("a b")["input_ids"]
    responses = all_responses(vocab_size, cap)
    log_probs = np.array([forced_log_probs(reference, prompt_ids, y, temperature).sum() for y in responses])
    texts = [reference.tokenizer.decode([t for t in y if t != 0]) for y in responses]
    return responses, log_probs, np.array(reward(["a b"] * len(texts), texts))


def solved(reference: Reference, reward: Any = count_a, *, reward_config: Any = None, **sampling: Any) -> Any:
    config = reward_config or RewardConfig(kl_coef=BETA)
    return solve(reference, reward, "a b", reward_config=config, sampling=SamplingConfig(**sampling))


def test_numbers_by_hand() -> None:
    """V = 2 (EOS, a), two tokens at most: responses $, a$, aa, with a uniform reference and scores 0, 1, 2."""
    model = tiny_language_model(vocab_size=2, max_length=8)
    model.model.get_output_embeddings().weight.zero_()
    reference = Reference(model)
    found = solve(
        reference,
        lambda prompts, completions: [float(len(text.split())) for text in completions],
        "a",
        reward_config=RewardConfig(kl_coef=1.0),
        sampling=SamplingConfig(max_new_tokens=2),
    )
    assert found.mdp.responses == ((0,), (1, 0), (1, 1))
    assert found.mdp.texts == ("", " a", " a a")
    assert found.mdp.stop_reasons == ("eos", "eos", "length")
    partition = 0.5 + 0.25 * math.e + 0.25 * math.e**2
    assert found.optimal_return == pytest.approx(math.log(partition))
    assert found.response_probs == pytest.approx(np.array([0.5, 0.25 * math.e, 0.25 * math.e**2]) / partition)
    assert found.reference_return == pytest.approx(0.75)
    assert np.exp(found.log_probs[1, 1]) == pytest.approx(math.e / (1 + math.e))
    assert found.reference.expected_length == pytest.approx(1.5)


@pytest.mark.parametrize("temperature", [1.0, 0.6])
@pytest.mark.parametrize("cap", [1, 2, 4])
def test_dynamic_programme_equals_enumeration(tiny_reference: Reference, cap: int, temperature: float) -> None:
    responses, log_ref, scores = brute_force(tiny_reference, cap=cap, temperature=temperature)
    found = solved(tiny_reference, max_new_tokens=cap, temperature=temperature)
    order = [found.mdp.responses.index(y) for y in responses]
    assert len(found.mdp.responses) == len(responses)
    weights = np.exp(log_ref + scores / BETA)
    assert np.exp(log_ref).sum() == pytest.approx(1.0, abs=1e-6)
    assert found.optimal_return == pytest.approx(BETA * math.log(weights.sum()), abs=1e-6)
    assert found.response_probs[order] == pytest.approx(weights / weights.sum(), abs=1e-6)
    assert found.reference.response_probs[order] == pytest.approx(np.exp(log_ref), abs=1e-6)
    assert found.reference_return == pytest.approx(np.exp(log_ref) @ scores, abs=1e-6)
    best = weights / weights.sum()
    # Both read float32 logits, in batches of other shapes; sums of several log-probabilities differ in the 7th digit.
    assert found.kl == pytest.approx(best @ (np.log(best) - log_ref), rel=1e-6, abs=1e-6)
    assert found.optimum.expected_reward == pytest.approx(best @ scores, abs=1e-6)
    assert found.optimum.expected_return == pytest.approx(found.optimal_return)


def test_min_new_tokens_sums_over_allowed_responses_without_renormalising(tiny_reference: Reference) -> None:
    responses, log_ref, scores = brute_force(tiny_reference, cap=3)
    allowed = np.array([len(y) > 2 for y in responses])
    found = solved(tiny_reference, max_new_tokens=3, min_new_tokens=2)
    weights = np.exp(log_ref + scores / BETA) * allowed
    assert found.optimal_return == pytest.approx(BETA * math.log(weights.sum()), abs=1e-6)
    assert found.optimum.expected_return == pytest.approx(found.optimal_return)
    probs = found.response_probs[[found.mdp.responses.index(y) for y in responses]]
    assert probs == pytest.approx(weights / weights.sum(), abs=1e-6)
    assert found.reference.kl > 0.02  # the truncated reference is not the reference


def test_top_k_equals_the_best_of_every_choice_of_support(tiny_reference: Reference) -> None:
    """k = 2 of 3 tokens in each of 3 states: all 27 supports, each with its closed-form optimum."""
    found = solved(tiny_reference, max_new_tokens=2, top_k=2)
    responses, log_ref, scores = brute_force(tiny_reference, cap=2)
    best = -math.inf
    for supports in itertools.product(itertools.combinations(range(3), 2), repeat=3):
        keep = dict(zip([(), (1,), (2,)], supports, strict=True))
        inside = np.array([all(token in keep[y[:i]] for i, token in enumerate(y)) for y in responses])
        best = max(best, BETA * math.log((np.exp(log_ref + scores / BETA) * inside).sum()))
    assert found.optimal_return == pytest.approx(best, abs=1e-6)
    assert found.optimal_return < solved(tiny_reference, max_new_tokens=2).optimal_return - 1e-3
    assert (np.isfinite(found.log_probs).sum(axis=1) == 2).all()


def test_nothing_beats_the_optimum(tiny_reference: Reference) -> None:
    """A numerical optimiser over tabular softmax policies ends at J*, from below."""
    found = solved(tiny_reference, max_new_tokens=2)
    mdp = found.mdp

    def loss(flat: np.ndarray) -> float:
        logits = flat.reshape(mdp.ref_log_probs.shape)
        return -policy_value(logits - np.logaddexp.reduce(logits, axis=1)[:, None], mdp).expected_return

    best = minimize(loss, np.zeros(mdp.ref_log_probs.size), method="BFGS")
    assert -best.fun == pytest.approx(found.optimal_return, abs=1e-6)
    assert -best.fun <= found.optimal_return + 1e-12


def test_all_that_is_paid_counts(tiny_reference: Reference) -> None:
    """Weight, clip, normaliser and missing-EOS penalty, by hand on the enumerated scores."""
    from lm_gym import ScoreNormalizer

    config = RewardConfig(
        kl_coef=BETA,
        score_weight=0.8,
        score_clip=0.9,
        normalizer=ScoreNormalizer(gain=2.0, bias=-0.5),
        missing_eos_penalty=0.4,
    )
    found = solved(tiny_reference, reward_config=config, max_new_tokens=2)
    responses, log_ref, scores = brute_force(tiny_reference, cap=2)
    paid = 0.8 * np.clip(2 * scores - 0.5, -0.9, 0.9) - 0.4 * np.array([y[-1] != 0 for y in responses])
    assert found.optimal_return == pytest.approx(BETA * math.log(np.exp(log_ref + paid / BETA).sum()), abs=1e-6)


def test_random_reward_counts_by_its_mean(tiny_reference: Reference) -> None:
    """A coin that alternates: with two draws the optimum is that of the mean, which is not the mean of exponentials."""
    calls = itertools.count()

    def coin(prompts: list[str], completions: list[str]) -> list[float]:
        base = count_a(prompts, completions)
        side = 1.0 if next(calls) % 2 == 0 else -1.0
        return [score + side * len(text.split()) for score, text in zip(base, completions, strict=True)]

    sampling, config = SamplingConfig(max_new_tokens=3), RewardConfig(kl_coef=BETA)
    mean = solve(tiny_reference, coin, "a b", reward_config=config, sampling=sampling, reward_draws=2)
    assert mean.optimal_return == pytest.approx(solved(tiny_reference, max_new_tokens=3).optimal_return)
    one = solve(tiny_reference, coin, "a b", reward_config=config, sampling=sampling)
    assert abs(one.optimal_return - mean.optimal_return) > 0.1


def test_stop_strings_end_responses(tiny_reference: Reference) -> None:
    found = solved(tiny_reference, max_new_tokens=3, stop_strings=("b",))
    assert set(found.mdp.texts) == {"", " ", " a", " a ", " a a", " a a ", " a a a"}
    assert all(2 not in y[:-1] for y in found.mdp.responses)
    assert found.reference.response_probs.sum() == pytest.approx(1.0)


@pytest.mark.parametrize(
    "sampling",
    [{}, {"temperature": 0.7, "top_k": 3}, {"top_p": 0.9, "min_new_tokens": 1}, {"min_p": 0.2}],
    ids=str,
)
def test_expected_return_is_the_mean_of_rollouts(small_reference: Reference, sampling: dict[str, Any]) -> None:
    """The value by enumeration, and 4000 sampled episodes of the environment itself."""
    policy = LanguageModelPolicy(tiny_language_model(vocab_size=5, max_length=12, seed=1))
    config = SamplingConfig(max_new_tokens=3, seed=3, **sampling)
    reward_config = RewardConfig(kl_coef=BETA)
    mdp = enumerate_mdp(small_reference, count_a, "a b", reward_config=reward_config, sampling=config)
    env = vector_env(
        1, small_reference, ["a b"], count_a, action_mode="token_and_log_prob", reward=reward_config, sampling=config
    )
    env.reset(seed=0)
    returns = env.rollout(policy, 4000).rewards.sum(axis=1)
    error = returns.std() / math.sqrt(len(returns))
    assert expected_return(policy, mdp) == pytest.approx(returns.mean(), abs=4 * error)


def test_share_closed_is_0_at_the_reference_and_1_at_the_optimum(small_reference: Reference) -> None:
    found = solved(small_reference, max_new_tokens=3)
    assert share_closed(small_reference, found) == pytest.approx(0.0, abs=1e-9)
    assert found.share_closed(policy_value(found.log_probs, found.mdp).expected_return) == pytest.approx(1.0)
    half = found.reference_return + 0.5 * (found.optimal_return - found.reference_return)
    assert found.share_closed(half) == pytest.approx(0.5)


def test_observations_are_those_of_the_environment(tiny_reference: Reference) -> None:
    env = vector_env(1, tiny_reference, ["a b"], count_a, max_new_tokens=3, kl_coef=BETA)
    mdp = solved(tiny_reference, max_new_tokens=3).mdp
    shown = mdp.observations()
    observation, _ = env.reset(seed=0)
    for action in (1, 2):
        seen = {key: value[0] for key, value in observation.items()}
        row = [tuple(ids) for ids in shown["input_ids"]].index(tuple(seen["input_ids"]))
        assert (shown["attention_mask"][row] == seen["attention_mask"]).all()
        observation = env.step(np.array([action]))[0]


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "qwen2", "bloom", "t5", "bart"])
def test_reference_table_equals_the_full_forward(architecture: Any) -> None:
    reference = Reference(tiny_language_model(architecture, vocab_size=4, max_length=8))
    mdp = solved(reference, max_new_tokens=3).mdp
    for row in (0, 2, len(mdp.states) - 1):
        ids = {"input_ids": torch.tensor([[*mdp.prompt.ids, *mdp.states[row]]])}
        if architecture in ("t5", "bart"):  # 0 starts a response
            ids = {
                "input_ids": torch.tensor([mdp.prompt.ids.tolist()]),
                "decoder_input_ids": torch.tensor([[0, *mdp.states[row]]]),
            }
        expected = torch.log_softmax(reference.model(**ids).logits[0, -1].double(), -1)
        assert mdp.ref_log_probs[row] == pytest.approx(expected.numpy(), abs=1e-5)


@pytest.mark.parametrize(
    ("sampling", "reward", "words"),
    [
        ({"top_p": 0.9}, {}, "top_p must be None, got 0.9"),
        ({"min_p": 0.1}, {}, "min_p must be None, got 0.1"),
        ({"max_new_tokens": 9}, {}, "at most max_responses = 1000 responses .* got 1023"),
        ({}, {"kl_coef": 0.0}, "kl_coef must be > 0, got 0.0"),
        ({}, {"on_length_limit": "truncate"}, 'on_length_limit must be "terminate"'),
    ],
)
def test_settings_without_an_exact_optimum_are_refused(
    tiny_reference: Reference, sampling: dict[str, Any], reward: dict[str, Any], words: str
) -> None:
    config = RewardConfig(**({"kl_coef": BETA} | reward))
    with pytest.raises(ConfigError, match=words):
        solve(
            tiny_reference,
            count_a,
            "a b",
            reward_config=config,
            sampling=SamplingConfig(**({"max_new_tokens": 2} | sampling)),
            max_responses=1000,
        )


def test_other_refusals(tiny_reference: Reference) -> None:
    with pytest.raises(RewardModelError, match=r"must score every response .* abstained on ''"):
        solved(tiny_reference, lambda prompts, completions: [None] * len(prompts), max_new_tokens=2)
    mdp = solved(tiny_reference, max_new_tokens=2).mdp
    with pytest.raises(ConfigError, match=r"log_probs must have shape \(3, 3\)"):
        policy_value(np.zeros((2, 3)), mdp)
    with pytest.raises(ConfigError, match="must be a distribution, and row 0 sums to 3"):
        policy_value(np.zeros((3, 3)), mdp)
    with pytest.raises(UnsupportedModelError, match="must have a language_model over 3 tokens"):
        state_log_probs(tiny_language_model(vocab_size=4), mdp)
    with pytest.raises(ConfigError, match="vocab_size: must be a whole number >= 2"):
        tiny_tokenizer(1)
    with pytest.raises(ConfigError, match=r"tiny_language_model: architecture: must be .*got 'rnn'"):
        tiny_language_model("rnn")  # type: ignore[arg-type]
