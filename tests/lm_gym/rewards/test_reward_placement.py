"""Where the score sits and what a token costs, by hand, in all three ways to play an episode.

The reference is uniform over 32 tokens, so log pi_ref = -ln 32 at every state; the policy's log-probability is -1, so
k1 = -1 + ln 32 for every token. The score of a text is its number of words plus a half (an empty text gets a half).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import ScriptedPolicy, make_model, make_tokenizer, single_env, vector_env, words

from lm_gym import (
    LanguageModel,
    Reference,
    ScoreNormalizer,
)

REF = -math.log(32)
KL = -1.0 - REF
Rewards = list[float]


def half_and_words(prompts: Sequence[str], completions: Sequence[str], **kwargs: Any) -> list[float]:
    return [0.5 + len(text.split()) for text in completions]


def abstaining(prompts: Sequence[str], completions: Sequence[str], **kwargs: Any) -> list[None]:
    return [None for _ in completions]


@pytest.fixture(scope="module")
def uniform() -> Reference:
    model = make_model()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    return Reference(LanguageModel(model, make_tokenizer()))


@dataclass
class Case:
    response: str
    rewards: Rewards
    settings: dict[str, Any] = field(default_factory=dict)
    stop_reason: str = "eos"
    text: str = ""
    score: float | None = None
    truncated: bool = False
    with_reference: bool = True
    reward_model: Any = half_and_words


C = 0.1 * KL
CASES = {
    "eos": Case("a b $", [-C, -C, -C + 2.5], text=" a b", score=2.5),
    "cap": Case("a b c", [-C, -C, -C + 3.5], stop_reason="length", text=" a b c", score=3.5),
    "eos at the cap": Case("a b $", [-C, -C, -C + 2.5], {"max_new_tokens": 3}, text=" a b", score=2.5),
    "one token": Case("a", [-C + 1.5], {"max_new_tokens": 1}, "length", " a", 1.5),
    "empty response": Case("$", [-C + 0.5], text="", score=0.5),
    "stop string": Case(
        "a b c", [-C, -C, -C + 2.5], {"stop_strings": ("c",), "max_new_tokens": 9}, "stop_string", " a b ", 2.5
    ),
    "stop string of two tokens": Case(
        "a b c", [-C, -C, -C + 1.5], {"stop_strings": ("b c",), "max_new_tokens": 9}, "stop_string", " a ", 1.5
    ),
    "penalty at the cap": Case(
        "a b c", [-C, -C, -C + 3.5 - 0.75], {"missing_eos_penalty": 0.75}, "length", " a b c", 3.5
    ),
    "no penalty after eos": Case("a $", [-C, -C + 1.5], {"missing_eos_penalty": 0.75}, text=" a", score=1.5),
    "no penalty after a stop string": Case(
        "a b", [-C, -C + 1.5], {"missing_eos_penalty": 0.75, "stop_strings": ("b",)}, "stop_string", " a ", 1.5
    ),
    "truncate": Case("a b c", [-C, -C, -C], {"on_length_limit": "truncate"}, "length", " a b c", None, True),
    "truncate leaves eos alone": Case("a $", [-C, -C + 1.5], {"on_length_limit": "truncate"}, text=" a", score=1.5),
    "abstention": Case("a $", [-C, -C], text=" a", score=None, reward_model=abstaining),
    "clip": Case("a b $", [-C, -C, -C + 1.0], {"score_clip": 1.0}, text=" a b", score=2.5),
    "normalizer": Case(
        "a b $", [-C, -C, -C + 0.25], {"normalizer": ScoreNormalizer(gain=0.5, bias=-1.0)}, text=" a b", score=2.5
    ),
    "weight and beta": Case(
        "a $", [-0.2 * KL, -0.2 * KL + 0.8 * 1.5], {"score_weight": 0.8, "kl_coef": 0.2}, text=" a", score=1.5
    ),
    "no beta": Case("a $", [0.0, 1.5], {"kl_coef": 0.0}, text=" a", score=1.5),
    "no reference": Case("a $", [0.0, 1.5], {"kl_coef": 0.0}, text=" a", score=1.5, with_reference=False),
    "no reward model": Case("a $", [-C, -C], text=" a", score=0.0, reward_model=None),
    "temperature": Case("a $", [-C, -C + 1.5], {"temperature": 0.7}, text=" a", score=1.5),
}


def parts(case: Case, uniform: Reference) -> tuple[tuple[Any, ...], dict[str, Any]]:
    settings = {"max_new_tokens": 3, "action_mode": "token_and_log_prob"} | case.settings
    if not case.with_reference:
        settings["tokenizer"] = make_tokenizer()
    return (uniform if case.with_reference else None, ["a b c", "d"], case.reward_model), settings


def by_step(case: Case, uniform: Reference) -> tuple[Rewards, dict[str, Any], bool]:
    arguments, settings = parts(case, uniform)
    env = single_env(*arguments, **settings)
    env.reset(seed=0)
    rewards = []
    for token in words(case.response):
        assert env._mdp.running[0], "the episode ended before its last token"
        _, reward, terminated, truncated, info = env.step({"token": token, "log_prob": -1.0})
        rewards.append(reward)
    assert (terminated, truncated) == (not case.truncated, case.truncated)
    return rewards, info, truncated


def by_vector_step(case: Case, uniform: Reference) -> tuple[Rewards, dict[str, Any], bool]:
    arguments, settings = parts(case, uniform)
    env = vector_env(2, *arguments, **settings)
    env.reset(seed=0)
    rewards = []
    for token in words(case.response):
        actions = {"token": np.full(2, token), "log_prob": np.full(2, -1.0)}
        _, reward, terminated, truncated, infos = env.step(actions)
        assert reward[0] == pytest.approx(reward[1], abs=1e-5)
        rewards.append(float(reward[1]))
    assert terminated.tolist() == [not case.truncated] * 2
    assert truncated.tolist() == [case.truncated] * 2
    row = {key: value[1] for key, value in infos.items() if not key.startswith("_") and infos[f"_{key}"][1]}
    return rewards, row, bool(truncated[1])


def by_rollout(case: Case, uniform: Reference) -> tuple[Rewards, dict[str, Any], bool]:
    arguments, settings = parts(case, uniform)
    env = vector_env(2, *arguments, **settings)
    env.reset(seed=0)
    longer = [1] * settings["max_new_tokens"]
    episodes = env.rollout(ScriptedPolicy([words(case.response), longer]))
    length = int(episodes.response_lengths[0])
    assert (episodes.rewards[0, length:] == 0).all()
    assert bool(episodes.terminated[0]) is not case.truncated
    info: dict[str, Any] = {
        "response": episodes.responses[0],
        "stop_reason": episodes.stop_reasons[0],
        "episode_return": float(episodes.rewards[0].sum()),
        "episode_length": float(length),
    }
    if episodes.terminated[0]:
        info["score_valid"] = float(episodes.score_valid[0])
    if episodes.score_valid[0]:
        info["score"] = float(episodes.scores[0])
    return episodes.rewards[0, :length].tolist(), info, bool(episodes.truncated[0])


@pytest.mark.parametrize("play", [by_step, by_vector_step, by_rollout])
@pytest.mark.parametrize("name", CASES)
def test_rewards_and_ending_by_hand(play: Callable[..., Any], name: str, uniform: Reference) -> None:
    case = CASES[name]
    rewards, info, truncated = play(case, uniform)
    assert rewards == pytest.approx(case.rewards, abs=1e-5)
    assert info["stop_reason"] == case.stop_reason
    assert info["response"] == case.text
    assert info["episode_return"] == pytest.approx(sum(case.rewards), abs=1e-5)
    assert info["episode_length"] == len(case.rewards)
    assert truncated is case.truncated
    if case.score is None:
        assert "score" not in info
        assert info.get("score_valid") == (None if case.truncated else 0.0)
    else:
        assert info["score"] == pytest.approx(case.score)
        assert info["score_valid"] == 1.0


def test_in_action_mode_token_a_step_pays_beta_times_log_pi_ref(uniform: Reference) -> None:
    env = single_env(uniform, ["a"], half_and_words, max_new_tokens=3, kl_coef=0.1)
    env.reset(seed=0)
    _, first, *_, info = env.step(5)
    _, last, terminated, _, _ = env.step(0)
    assert first == pytest.approx(0.1 * REF, abs=1e-6)
    assert last == pytest.approx(0.1 * REF + 1.5, abs=1e-6)
    assert terminated
    assert set(info) == {"ref_log_prob"}


def test_setting_kl_coef_changes_what_the_next_token_costs(uniform: Reference) -> None:
    env = single_env(uniform, ["a"], None, max_new_tokens=3, kl_coef=0.1, action_mode="token_and_log_prob")
    env.reset(seed=0)
    env.kl_coef = 0.5
    assert env.step({"token": 1, "log_prob": -1.0})[1] == pytest.approx(-0.5 * KL, abs=1e-6)
    assert env.kl_coef == 0.5


def test_a_replaced_reward_model_scores_the_next_ending(uniform: Reference) -> None:
    env = single_env(uniform, ["a"], half_and_words, max_new_tokens=3, kl_coef=0.0)
    env.reset(seed=0)
    env.reward_model = lambda prompts, completions: [7.0]
    assert env.step(0)[1] == 7.0


def test_the_reward_model_sees_the_prompt_and_the_text_without_stop_token(uniform: Reference) -> None:
    seen: list[tuple[list[str], list[str]]] = []

    def spy(prompts: list[str], completions: list[str]) -> list[float]:
        seen.append((prompts, completions))
        return [0.0] * len(completions)

    env = vector_env(2, uniform, ["d e f"], spy, max_new_tokens=3, kl_coef=0.0)
    env.reset(seed=0)
    env.step(np.array([1, 2]))
    env.step(np.array([0, 3]))
    env.step(np.array([9, 4]))
    assert seen == [(["d e f"], [" a"]), (["d e f"], [" b c d"])]


def test_every_stop_id_of_the_model_ends_a_response() -> None:
    model = make_model()
    model.generation_config.eos_token_id = [0, 7]
    env = single_env(Reference(LanguageModel(model, make_tokenizer())), ["a"], half_and_words, max_new_tokens=5)
    env.reset(seed=0)
    env.step(1)
    *_, terminated, _, info = env.step(7)
    assert terminated
    assert (info["stop_reason"], info["response"]) == ("eos", " a")
