"""A reward model that hangs: an error after the limit, by whichever way it is asked, and a process that can end."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import time
from collections.abc import Sequence
from typing import Any

import pytest
from tiny_models import ScriptedPolicy, single_env, vector_env, words

from lm_gym import Reference, RewardConfig, RewardModel, Scores
from lm_gym.errors import ConfigError, RewardModelError
from lm_gym.tools.time_limit import calls_within


def hangs(completions: Sequence[str]) -> list[float]:
    time.sleep(60)
    return [0.0] * len(completions)


class Hangs(RewardModel):
    def score(self, prompts: Sequence[str], responses: Sequence[str]) -> Scores:  # type: ignore[override]
        return Scores.of(hangs(responses))


SETTINGS: dict[str, Any] = {"kl_coef": 0.0, "max_new_tokens": 3, "score_timeout_s": 0.2}


@pytest.mark.parametrize(("reward_model", "name"), [(hangs, "hangs"), (Hangs(), "Hangs")])
def test_a_hung_reward_model_is_an_error_in_step_and_rollout(
    reference: Reference, reward_model: Any, name: str
) -> None:
    rule = rf"reward model {name}: must score a batch within 0\.2 seconds, and gave no answer for 1 responses, ' ?a'"
    env = single_env(reference, ["a"], reward_model, **SETTINGS)
    env.reset(seed=0)
    env.step(words("a")[0])
    start = time.monotonic()
    with pytest.raises(RewardModelError, match=rule):
        env.step(0)
    env.reward_model = lambda completions: [2.0] * len(completions)  # type: ignore[assignment]
    assert env.step(0)[1] == 2.0  # the episode is as it was before the failure
    vector = vector_env(1, reference, ["a"], reward_model, **SETTINGS)
    with pytest.raises(RewardModelError, match=rule):
        vector.rollout_on(ScriptedPolicy([words("a $")]), ["a"])
    assert time.monotonic() - start < 10


def test_in_time_nothing_is_different(reference: Reference) -> None:
    def fails(completions: Sequence[str]) -> list[float]:
        raise ZeroDivisionError("oops")

    settings = SETTINGS | {"score_timeout_s": 30}
    policy = ScriptedPolicy([words("a b $")])
    env = vector_env(1, reference, ["a"], lambda completions: [3.0], **settings)
    assert env.rollout_on(policy, ["a"]).scores.tolist() == [3.0]
    env.reward_model = fails  # type: ignore[assignment]
    with pytest.raises(
        RewardModelError, match="fails: raised ZeroDivisionError while scoring 1 responses: oops"
    ) as caught:
        env.rollout_on(policy, ["a"])
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_the_limit_must_be_a_time() -> None:
    with pytest.raises(ConfigError, match=r"score_timeout_s: must be None or a finite number > 0, got 0"):
        RewardConfig(score_timeout_s=0)


def test_calls_that_end_in_time_are_told_and_none_is_begun_later() -> None:
    begun: list[int] = []

    def call(number: int, seconds: float) -> int:
        begun.append(number)
        time.sleep(seconds)
        return 10 * number

    calls = [lambda: call(0, 0.0), lambda: call(1, 1.5), lambda: call(2, 0.0)]
    assert calls_within(0.7, calls) == {0: 0}
    time.sleep(1.5)
    assert begun == [0, 1]
    assert calls_within(30.0, calls, workers=3) == {0: 0, 1: 10, 2: 20}
    assert calls_within(1.0, []) == {}


HUNG = """
    import time
    from lm_gym.scoring.adapters import as_reward_model
    from lm_gym.errors import RewardModelError
    from lm_gym.reward_models import RemoteJudge
    from lm_gym.scoring.protocol import checked_scores

    def hangs(completions):
        time.sleep(600)

    remote = RemoteJudge(lambda p, r: time.sleep(600), timeout_s=0.2)
    for model, limit in ((as_reward_model(hangs), 0.2), (remote, None)):
        try:
            checked_scores(model, ["p"], ["r"], timeout_s=limit)
        except RewardModelError as error:
            print(error)
"""


def test_the_process_ends_although_calls_still_hang() -> None:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(HUNG)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("may still be running") == 2
