"""A reward model's normaliser is part of it: it is paid the same wherever the model is, and goes when it goes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
import pytest
from tiny_models import ScriptedPolicy, gpt2_parts, single_env, vector_env, words

from lm_gym import Reference, RewardModel, ScoreNormalizer, Scores, evaluate

OWN, OTHER = ScoreNormalizer(gain=0.5, bias=-1.0), ScoreNormalizer(gain=2.0, bias=0.25)


class Counting(RewardModel):
    """The number of words, raw; how unsure it is, a tenth of that."""

    def __init__(self, normalizer: ScoreNormalizer | None = None) -> None:
        self.normalizer = normalizer

    def score(self, prompts: Sequence[str], responses: Sequence[str]) -> Scores:  # type: ignore[override]
        counts = [float(len(text.split())) for text in responses]
        return Scores.of(counts, std=np.array(counts) / 10)


SETTINGS: dict[str, Any] = {"kl_coef": 0.0, "max_new_tokens": 4}


def paid_by_steps(env: Any, text: str = "a b c $") -> tuple[float, dict[str, Any]]:
    env.reset(seed=0)
    for token in words(text):
        _, reward, _, _, info = env.step(token)
    return float(reward), info


def test_gymnasium_make_pays_the_normalised_score_and_reports_the_raw_one() -> None:
    env = gymnasium.make(
        "lm_gym/TextGeneration-v0", model=gpt2_parts, prompts=["a"], reward_model=Counting(OWN), **SETTINGS
    )
    reward, info = paid_by_steps(env)
    assert reward == 0.5  # .5 * 3 - 1
    assert info["score"] == 3.0
    assert info["score_std"] == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("given", "set_by_user", "paid"), [(None, None, 3.0), (OWN, None, 0.5), (OWN, OTHER, 6.25), (None, OTHER, 6.25)]
)
def test_step_rollout_and_evaluation_pay_alike(
    reference: Reference, given: ScoreNormalizer | None, set_by_user: ScoreNormalizer | None, paid: float
) -> None:
    settings = SETTINGS | {"normalizer": set_by_user}
    single = single_env(reference, ["a"], Counting(given), **settings)
    vector = vector_env(1, reference, ["a"], Counting(given), **settings)
    policy = ScriptedPolicy([words("a b c $")])
    assert paid_by_steps(single)[0] == paid
    assert vector.rollout_on(policy, ["a"]).rewards.sum() == paid
    assert evaluate(policy, vector, ["a"]).episode_return == paid


def test_a_swap_brings_the_new_models_own_normaliser(reference: Reference) -> None:
    env = single_env(reference, ["a"], Counting(OWN), **SETTINGS)
    assert paid_by_steps(env)[0] == 0.5
    env.reward_model = Counting(OTHER)
    assert paid_by_steps(env)[0] == 6.25
    env.reward_model = lambda completions: [7.0] * len(completions)  # type: ignore[assignment]
    assert paid_by_steps(env)[0] == 7.0
    later = Counting()
    env.reward_model = later
    assert paid_by_steps(env)[0] == 3.0
    later.normalizer = OWN
    assert paid_by_steps(env)[0] == 0.5


class Shy(Counting):
    """Abstains on a response without "a"."""

    def score(self, prompts: Sequence[str], responses: Sequence[str]) -> Scores:  # type: ignore[override]
        found = super().score(prompts, responses)
        return Scores(value=found.value, valid=np.array(["a" in text for text in responses]), std=found.std)


def test_the_std_reaches_the_episodes_and_the_info(reference: Reference) -> None:
    env = vector_env(3, reference, ["a"], Shy(), on_length_limit="truncate", **SETTINGS)
    policy = ScriptedPolicy([words("a a $"), words("b b $"), words("a b c d")])
    episodes = env.rollout_on(policy, ["a"] * 3)
    assert episodes.score_std is not None
    assert episodes.score_std.dtype == np.float32
    np.testing.assert_allclose(episodes.score_std, [0.2, 0.0, 0.0], rtol=1e-6)
    assert episodes[[0]].score_std is not None
    joined = type(episodes).concatenate([episodes, env.rollout_on(ScriptedPolicy([words("a b c d")]), ["a"])])
    assert joined.score_std is not None
    np.testing.assert_allclose(joined.score_std, [0.2, 0.0, 0.0, 0.0], rtol=1e-6)
    single = single_env(reference, ["a"], Shy(), on_length_limit="truncate", **SETTINGS)
    assert paid_by_steps(single, "a a $")[1]["score_std"] == pytest.approx(0.2)
    assert "score_std" not in paid_by_steps(single, "b b $")[1]
    assert "score_std" not in paid_by_steps(single, "a b c d")[1]


def test_a_model_without_a_std_has_none_in_the_episodes(reference: Reference) -> None:
    env = vector_env(1, reference, ["a"], lambda completions: [1.0], **SETTINGS)
    assert env.rollout_on(ScriptedPolicy([words("a $")]), ["a"]).score_std is None
