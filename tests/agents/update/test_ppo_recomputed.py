"""Every optimiser step of an update of PPO has the gradient and the diagnostics that ``ppo_mirror.py`` works out.

Each step is compared at the weights it was taken at, so the later ones, with ratios and values that have moved, bind
both clips.

Tolerance: 4e-6 of the largest entry of the gradient. The learner computes in float32, where one rounding is 6e-8 and
the sums behind an entry have some hundred terms; the worst case that was measured is 2e-6.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from lm_gym import Episodes, Reference, RewardModel, ScoreNormalizer, Scores, TextGenerationVectorEnv, TextTask
from lm_gym.agents import PPO, LanguageModelPolicy, PPOConfig
from lm_gym.models import teacher_forcing as forcing
from lm_gym.testing import tiny_language_model, tiny_tokenizer

from .ppo_mirror import STOPS, Case, Weights, loss_of, rewards_of, rows_of, score_of, shrunk, targets_of, variance_of

GRADIENT_ERROR = 4e-6
"""Of the largest entry of the gradient; see above."""
PROMPTS = ("a b c", "d", "e f g h i", "b b")


ALL_SAMPLING = {"temperature": 0.7, "top_k": 9, "top_p": 0.95, "min_p": 0.01, "min_new_tokens": 2}
CASES = {
    "plain": Case(),
    "llama": Case(architecture="llama"),
    "qwen2": Case(architecture="qwen2", env={"temperature": 1.3}),
    "bloom": Case(architecture="bloom"),
    "truncate": Case(env={"on_length_limit": "truncate", "max_new_tokens": 3}),
    "truncate_gamma": Case(env={"on_length_limit": "truncate", "max_new_tokens": 3}, ppo={"gamma": 0.9}),
    "abstentions": Case(abstains=True),
    "abstentions_truncate": Case(abstains=True, env={"on_length_limit": "truncate", "max_new_tokens": 5}),
    "score_clip": Case(env={"score_clip": 0.3, "score_weight": 0.8}),
    "normalizer": Case(normalizer=(0.5, -0.7), env={"score_clip": 0.9}),
    "missing_eos_penalty": Case(env={"missing_eos_penalty": 0.6, "max_new_tokens": 4}),
    "no_reference": Case(reference=False, env={"kl_coef": 0.0}),
    "kl_coef_0": Case(env={"kl_coef": 0.0}),
    "temperature": Case(env={"temperature": 0.7}),
    "top_k": Case(env={"top_k": 5}),
    "top_k_of_many": Case(vocab_size=80, env={"top_k": 2}),
    "top_p": Case(env={"top_p": 0.9}),
    "min_p": Case(env={"min_p": 0.1}),
    "min_new_tokens": Case(env={"min_new_tokens": 3}),
    "stop_strings": Case(env={"stop_strings": ("d", "g h")}),
    "all_sampling": Case(env={**ALL_SAMPLING, "stop_strings": ("d",)}, ppo={"entropy_coef": 0.05}),
    "batches_of_1_row": Case(ppo={"max_batch_tokens": 1, "minibatches": 1}),
    "uneven_batches": Case(ppo={"max_batch_tokens": 20, "minibatches": 1}),
    "uneven_minibatches": Case(abstains=True, ppo={"minibatches": 5, "max_batch_tokens": 20}),
    "one_token": Case(env={"max_new_tokens": 1}),
    "separate_critic": Case(separate_critic=True),
    "entropy": Case(ppo={"entropy_coef": 0.1}),
    "value_clip_none": Case(ppo={"value_clip": None, "value_coef": 1.0}),
    "gae_lambda_0": Case(ppo={"gae_lambda": 0.0}),
    "gae_lambda_1": Case(ppo={"gae_lambda": 1.0, "gamma": 0.95}),
    "not_whitened": Case(ppo={"whiten_advantages": False}),
    "samples_per_prompt": Case(ppo={"samples_per_prompt": 2}),
    "gradient_norm": Case(ppo={"max_grad_norm": 0.05}),
    "stale": Case(stale=True, env={"top_k": 7}),
    "small_chunks": Case(small_chunks=True, env={"top_k": 7, "temperature": 0.9}, ppo={"entropy_coef": 0.1}),
}


class LetterScore(RewardModel):
    """The mirror's score, as the environment takes it."""

    def __init__(self, case: Case) -> None:
        self._case = case
        gain, bias = case.normalizer
        self.normalizer = None if case.normalizer == (1.0, 0.0) else ScoreNormalizer(gain=gain, bias=bias)

    def score(self, prompts: Sequence[str], responses: Sequence[str], *_: Any, **columns: Any) -> Scores:
        found = [score_of(self._case, text) for text in responses]
        value = np.array([0.0 if score is None else score for score in found], dtype=np.float32)
        return Scores(value=value, valid=np.array([score is not None for score in found]))


class Step(NamedTuple):
    """One step of the learner: which episodes it was taken on, from which weights, along which gradient."""

    chosen: list[int]
    weights: Weights
    gradient: list[Tensor]


@contextmanager
def recorded_steps(policy: LanguageModelPolicy, patch: pytest.MonkeyPatch) -> Iterator[list[Step]]:
    """The optimiser steps that are taken inside; episodes are known by their prompt texts, which must be numbers."""
    steps: list[Step] = []
    chosen: list[int] = []
    evaluate = policy.log_probs_and_values

    def watched(part: Episodes, **options: Any) -> Any:
        if torch.is_grad_enabled():
            chosen.extend(int(text) for text in part.prompts)
        return evaluate(part, **options)

    def before_step(*_: Any) -> None:
        gradient = [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in policy.parameters()]
        steps.append(Step(chosen.copy(), Weights(policy), gradient))
        chosen.clear()

    patch.setattr(policy, "log_probs_and_values", watched)
    handle = register_optimizer_step_pre_hook(before_step)
    try:
        yield steps
    finally:
        handle.remove()


def collected(case: Case, config: PPOConfig) -> tuple[LanguageModelPolicy, Reference | None, Episodes]:
    """A policy that is another model than the reference, and a batch of its episodes."""
    sizes: dict[str, Any] = {"vocab_size": case.vocab_size, "initializer_range": 0.25}
    reference = Reference(tiny_language_model(case.architecture, **sizes)) if case.reference else None
    settings = {"max_new_tokens": 6, "kl_coef": 0.3, "stop_token_ids": STOPS} | case.env
    tokenizer = {} if case.reference else {"tokenizer": tiny_tokenizer(case.vocab_size)}
    env = TextGenerationVectorEnv(TextTask.of(reference, PROMPTS, **settings, **tokenizer), LetterScore(case))
    env.reset(seed=5)
    model = tiny_language_model(case.architecture, seed=1, **sizes)
    policy = LanguageModelPolicy(model, separate_critic=case.separate_critic)
    add_noise(policy.value_head, 0.1)
    if policy.critic is not None:
        add_noise(policy.critic.model, 0.05)
    episodes = env.rollout(policy, config.episodes_per_iteration, samples_per_prompt=config.samples_per_prompt)
    return policy, reference, episodes


@torch.no_grad()
def add_noise(module: nn.Module, scale: float) -> None:
    generator = torch.Generator().manual_seed(7)
    for parameter in module.parameters():
        parameter.add_(scale * torch.randn(parameter.shape, generator=generator))


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_every_step_of_an_update_is_the_recomputed_one(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    one_by_one = {"episodes_per_iteration": 12, "epochs": 2, "minibatches": 2, "max_grad_norm": None}
    config = PPOConfig(**(one_by_one | {"learning_rate": 0.02} | case.ppo))
    if case.small_chunks:
        monkeypatch.setattr(forcing, "HEAD_NUMBERS_ON_CPU", 1)
        monkeypatch.setattr(forcing, "MIN_HEAD_CHUNK", 4)
        monkeypatch.setattr(forcing, "KEPT_NUMBERS", 0)
    policy, reference, episodes = collected(case, config)
    rows = rows_of(episodes, case)
    rewards = rewards_of(rows, Weights(policy), reference, case)
    if case.stale:
        add_noise(policy.model, 0.03)
    targets = targets_of(rows, rewards, Weights(policy), case, config)
    counted = [number for number, row in enumerate(rows) if row.counts]

    agent = PPO(policy, config)
    with recorded_steps(policy, monkeypatch) as steps:
        metrics = agent.update(replace(episodes, prompts=tuple(map(str, range(len(rows))))))

    assert len(steps) == config.epochs * config.minibatches
    for start in range(0, len(steps), config.minibatches):
        one_pass = [number for step in steps[start : start + config.minibatches] for number in step.chosen]
        assert sorted(one_pass) == counted
    diagnostics, gradients = [], []
    for step in steps:
        loss, found = loss_of(step.weights, rows, step.chosen, targets, case, config)
        diagnostics.append(found)
        named = step.weights.parameters()
        gradient = torch.autograd.grad(loss, list(named.values()), allow_unused=True, materialize_grads=True)
        gradients.append(shrunk(dict(zip(named, gradient, strict=True)), config.max_grad_norm))
    # Of all steps: the gradient of one small minibatch may nearly cancel, and its rounding does not.
    largest = max(float(each.abs().max()) for gradient in gradients for each in gradient.values())
    for number, (step, gradient) in enumerate(zip(steps, gradients, strict=True)):
        for (name, expected), found in zip(gradient.items(), step.gradient, strict=True):
            error = float((found.double() - expected).abs().max()) / largest
            assert error <= GRADIENT_ERROR, f"step {number}, {name}: off by {error:.1e} of the largest entry"
    for name in diagnostics[0]:
        each = [found[name] for found in diagnostics]
        summary = max(each) if name == "ratio_max" else sum(each) / len(each)
        assert metrics[name] == pytest.approx(summary, rel=1e-4, abs=1e-6), name
    returns = [value for number in counted for value in targets.returns[number]]
    values = [float(value) for number in counted for value in targets.old[number].values]
    missed = variance_of([target - value for target, value in zip(returns, values, strict=True)])
    assert metrics["explained_variance"] == pytest.approx(1 - missed / variance_of(returns), rel=1e-4, abs=1e-5)
    entropies = [float(entropy) for number in counted for entropy in targets.old[number].entropies]
    assert metrics["entropy"] == pytest.approx(sum(entropies) / len(entropies), rel=1e-5)
    assert metrics["clip_fraction"] > 0
    assert (metrics["value_clip_fraction"] > 0) == (config.value_clip is not None)


def test_the_batches_hold_what_their_cases_are_for() -> None:
    """The comparison would be empty without: lengths, ends, subsets of either form, abstentions, scores that clip."""
    batches = {name: collected(case, PPOConfig(episodes_per_iteration=12))[2] for name, case in CASES.items()}
    for name, episodes in batches.items():
        assert (len(set(episodes.response_lengths)) > 1) == (name != "one_token")
        assert len(set(episodes.prompt_lengths)) > 1
        assert episodes.truncated.any() == ("truncate" in name)
        assert episodes.abstained.any() == CASES[name].abstains
    assert {"eos", "length"} == set(batches["plain"].stop_reasons)
    assert "stop_string" in batches["stop_strings"].stop_reasons
    assert all("eos" in batches[name].stop_reasons for name in ("truncate", "abstentions_truncate"))
    kinds = {name: set() if b.keep_sets is None else set(b.keep_sets.kind.flat) for name, b in batches.items()}
    assert 1 in kinds["top_k_of_many"]
    assert all(2 in kinds[name] for name in ("top_k", "top_p", "min_p", "min_new_tokens", "all_sampling", "stale"))
    assert (np.abs(batches["score_clip"].scores) > 0.3).any()
    assert (np.abs(batches["score_clip"].scores) < 0.3).any()
