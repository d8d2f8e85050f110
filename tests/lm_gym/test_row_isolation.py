"""What one row does never shows in another's numbers, beyond the rounding of a batch of another size or width.

One row plays the same in every test; its neighbours end, restart, have longer prompts, draw other tokens, or break.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import (
    ARCHITECTURES,
    EOS,
    SamplingPolicy,
    ScriptedPolicy,
    architecture_model,
    make_model,
    text_score,
    vector_env,
)

from lm_gym import LanguageModel, Reference, TextGenerationVectorEnv
from lm_gym.errors import UnsupportedModelError

ROUNDING = 2e-5
"""Nats, and so rewards: float32 sums in another order. A token that is seen by the wrong row moves them by tenths."""
SETTINGS: dict[str, Any] = {
    "action_mode": "token_and_log_prob",
    "autoreset_mode": "Disabled",
    "max_new_tokens": 10,
    "max_prompt_tokens": 13,
    "kl_coef": 0.5,
}
ALONE = "a b c"
LONG = "e f g h i j k l m n o p"
NEIGHBOURS: dict[str, list[int]] = {
    "draw other tokens": [5, 6, 7, 8, 9, 10, 11, 12],
    "end at once": [EOS] * 8,
    "end by turns": [5, EOS, 6, 7, EOS, EOS, 8, 9],
}
PLAYED = [2, 9, 4, 4, 17, 30, 1, 3]


def env_of(reference: Reference, rows: int, **changes: Any) -> TextGenerationVectorEnv:
    return vector_env(rows, reference, [ALONE, "d", LONG], text_score, **(SETTINGS | changes))


def paid_to_row_0(reference: Reference, rows: int, neighbours: list[int]) -> np.ndarray:
    """Row 0 takes ``PLAYED``; the others take ``neighbours`` and restart from a long prompt and a short one in turn."""
    env = env_of(reference, rows)
    env.reset(seed=0, options={"prompt": ALONE})
    paid = []
    for number, (token, other) in enumerate(zip(PLAYED, neighbours, strict=True)):
        tokens = np.array([token] + [other] * (rows - 1))
        _, rewards, terminated, *_ = env.step({"token": tokens, "log_prob": np.full(rows, -1.5)})
        paid.append(rewards[0])
        if terminated.any():
            env.reset(options={"reset_mask": terminated, "prompt": LONG if number % 2 else "d"})
    return np.array(paid)


@pytest.mark.parametrize("neighbours", NEIGHBOURS.values(), ids=NEIGHBOURS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_stepping_pays_a_row_as_it_does_alone(
    architecture: str, neighbours: list[int], reference_of: Callable[[str], Reference]
) -> None:
    reference = reference_of(architecture)
    alone = paid_to_row_0(reference, 1, neighbours)
    assert np.abs(np.diff(alone)).min() > 1e-3
    np.testing.assert_allclose(paid_to_row_0(reference, 3, neighbours), alone, atol=ROUNDING)


@pytest.mark.parametrize("before", ["d", LONG, "a"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_rollout_draws_and_pays_a_row_the_same_beside_other_prompts(
    architecture: str, before: str, reference_of: Callable[[str], Reference]
) -> None:
    tokenizer = reference_of(architecture).tokenizer
    sampler = SamplingPolicy(LanguageModel(make_model(architecture, seed=3), tokenizer))
    found = []
    for prompts in (["b b", ALONE], [before, ALONE, LONG]):
        env = env_of(reference_of(architecture), 1, temperature=1.2, top_k=12, seed=9)
        found.append(env.rollout_on(sampler, prompts)[[1]])
    one, other = found
    np.testing.assert_array_equal(one.response_ids, other.response_ids)
    np.testing.assert_allclose(one.log_probs, other.log_probs, atol=ROUNDING)
    np.testing.assert_allclose(one.rewards, other.rewards, atol=ROUNDING)


def broken_reference(architecture: str) -> Reference:
    """One that has no finite state once it has read token 31, in whatever row."""
    model = make_model(architecture)
    with torch.no_grad():
        head = model.get_output_embeddings()
        head.weight = torch.nn.Parameter(head.weight.clone(), requires_grad=False)
        model.get_input_embeddings().weight[31] = math.nan
    return Reference(LanguageModel(model, architecture_model(architecture).tokenizer))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_row_without_finite_log_probs_is_named_and_can_be_restarted_beside_the_others(architecture: str) -> None:
    reference = broken_reference(architecture)
    alone = paid_to_row_0(reference, 1, NEIGHBOURS["end at once"])
    env = env_of(reference, 2)
    env.reset(seed=0, options={"prompt": ALONE})
    paid = []
    for number, token in enumerate(PLAYED):
        action = {"token": np.array([token, 31 if number == 3 else 8]), "log_prob": np.full(2, -1.5)}
        if number == 4:
            with pytest.raises(
                UnsupportedModelError, match="must be a finite number, got nan in row 1; use a reference"
            ):
                env.step(action)
            env.reset(options={"reset_mask": np.array([False, True]), "prompt": "d"})
        rewards = env.step(action)[1]
        assert np.isfinite(rewards).all()
        paid.append(rewards[0])
    np.testing.assert_allclose(paid, alone, atol=ROUNDING)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_rollout_without_finite_log_probs_is_stopped(architecture: str) -> None:
    env = env_of(broken_reference(architecture), 1)
    env.reset(seed=0)
    policy = ScriptedPolicy([[5, 6, EOS], [7, 31, EOS], [9] * 10])
    with pytest.raises(UnsupportedModelError, match="must be a finite number, got nan in row 1; use a reference"):
        env.rollout_on(policy, [ALONE, "d", LONG])
