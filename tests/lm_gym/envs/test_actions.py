"""What counts as an action, and what the refusal of any other says."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import PROMPTS, V, single_env, vector_env

from lm_gym import Reference, TextGenerationEnv, TextGenerationVectorEnv
from lm_gym.errors import ActionError, LmGymError

Make = Callable[..., TextGenerationEnv]


@pytest.fixture
def single(reference: Reference) -> Make:
    def make(mode: str = "token") -> TextGenerationEnv:
        env = single_env(reference, PROMPTS, None, max_new_tokens=4, action_mode=mode)  # type: ignore[arg-type]
        env.reset(seed=0)
        return env

    return make


@pytest.fixture
def vector(reference: Reference) -> Callable[..., TextGenerationVectorEnv]:
    def make(mode: str = "token", num: int = 2) -> TextGenerationVectorEnv:
        env = vector_env(num, reference, PROMPTS, None, max_new_tokens=4, action_mode=mode)  # type: ignore[arg-type]
        env.reset(seed=0)
        return env

    return make


@pytest.mark.parametrize("token", [3, np.int64(3), np.int32(3), np.uint8(3), np.array(3), torch.tensor(3)])
def test_any_integer_scalar_is_a_token(token: Any, single: Make) -> None:
    obs, *_ = single().step(token)
    assert 3 in obs["input_ids"]


@pytest.mark.parametrize("log_prob", [-1, -1.0, np.float32(-1), np.float64(-1), np.array(-1.0), torch.tensor(-1.0)])
def test_any_real_scalar_is_a_log_prob(log_prob: Any, single: Make) -> None:
    *_, info = single("token_and_log_prob").step({"token": 3, "log_prob": log_prob})
    assert info["log_prob"] == -1.0


def test_a_log_prob_as_low_as_the_bound_of_the_space_is_taken(single: Make) -> None:
    assert single("token_and_log_prob").step({"token": 3, "log_prob": -1e4})[4]["log_prob"] == -1e4


def test_rounding_may_lift_a_log_prob_a_little_above_zero(single: Make) -> None:
    single("token_and_log_prob").step({"token": 3, "log_prob": 9e-7})


@pytest.mark.parametrize("token", [V, -1, 10**6])
def test_a_token_outside_the_vocabulary_is_refused(token: int, single: Make) -> None:
    with pytest.raises(ActionError, match=rf"action: a token id must lie in \[0, {V}\), got {token} in row 0"):
        single().step(token)


@pytest.mark.parametrize(
    "token", [3.0, np.float32(3), True, np.bool_(True), "3", None, [3], np.array([3]), [[3]], {"token": 3}, 2**70]
)
def test_a_token_of_another_type_or_shape_is_refused(token: Any, single: Make) -> None:
    with pytest.raises(ActionError, match=r"action: must be 1 token id\(s\) of an integer type, shape \(1,\); got"):
        single().step(token)


@pytest.mark.parametrize("log_prob", [1e-3, 1.0, float("inf"), float("nan"), -float("inf"), -1e30, -10001.0])
def test_a_log_prob_that_is_none_is_refused(log_prob: float, single: Make) -> None:
    with pytest.raises(
        ActionError,
        match=r"log_prob must be a log-probability in nats, from -10000 to 0 .* in row 0; pass the log-probability",
    ):
        single("token_and_log_prob").step({"token": 3, "log_prob": log_prob})


@pytest.mark.parametrize("log_prob", ["-1.0", "low", None, -1j, np.complex64(-1), [], [-1.0, -1.0], [[-1.0]]])
def test_a_log_prob_of_another_type_or_shape_is_refused(log_prob: Any, single: Make) -> None:
    with pytest.raises(ActionError, match="action: log_prob must"):
        single("token_and_log_prob").step({"token": 3, "log_prob": log_prob})


@pytest.mark.parametrize("log_prob", [[-1.0], np.array([-1.0]), torch.tensor([-1.0])])
def test_a_log_prob_of_shape_1_is_taken_for_a_number(log_prob: Any, single: Make) -> None:
    """Networks give it so."""
    env, calm = single("token_and_log_prob"), single("token_and_log_prob")
    for _ in range(2):
        assert env.step({"token": 3, "log_prob": log_prob})[1] == calm.step({"token": 3, "log_prob": -1.0})[1]


@pytest.mark.parametrize(
    "action", [3, {"token": 3}, {"log_prob": -1.0}, {"token": 3, "log_prob": -1.0, "more": 0}, (3, -1.0), None]
)
def test_an_action_without_its_two_parts_is_refused(action: Any, single: Make) -> None:
    with pytest.raises(
        ActionError, match=r'with action_mode="token_and_log_prob" must be \{"token": \.\.\., "log_prob": \.\.\.\}, got'
    ):
        single("token_and_log_prob").step(action)


def test_a_refused_action_leaves_the_episode_as_it_was(single: Make) -> None:
    env, calm = single("token_and_log_prob"), single("token_and_log_prob")
    for wrong in ({"token": V, "log_prob": -1.0}, {"token": 1, "log_prob": float("nan")}, 3):
        with pytest.raises(ActionError):
            env.step(wrong)
    good = {"token": 1, "log_prob": -1.0}
    assert env.step(good)[1:] == calm.step(good)[1:]


@pytest.mark.parametrize("tokens", [3, [3], [1, 2, 3], [[1], [2]], [1.0, 2.0], [True, False], "ab", [1, [2, 3]]])
def test_a_vector_env_wants_one_token_per_row(tokens: Any, vector: Callable[..., TextGenerationVectorEnv]) -> None:
    with pytest.raises(ActionError, match=r"action: must be 2 token id\(s\) of an integer type, shape \(2,\); got"):
        vector().step(tokens)


def test_a_vector_env_names_the_row_of_a_wrong_token(vector: Callable[..., TextGenerationVectorEnv]) -> None:
    with pytest.raises(ActionError, match=rf"got {V} in row 1"):
        vector().step([0, V])
    with pytest.raises(ActionError, match=r"to 0 .* got 0\.5 in row 1"):
        vector("token_and_log_prob").step({"token": [0, 1], "log_prob": [-1.0, 0.5]})


@pytest.mark.parametrize("log_prob", [-1.0, [-1.0], [[-1.0, -1.0]], [-1.0, [-1.0, 2.0]]])
def test_a_vector_env_wants_one_log_prob_per_row(log_prob: Any, vector: Callable[..., TextGenerationVectorEnv]) -> None:
    with pytest.raises(ActionError, match="action: log_prob must"):
        vector("token_and_log_prob").step({"token": [0, 1], "log_prob": log_prob})


def test_the_action_of_a_row_that_is_being_reset_is_ignored(vector: Callable[..., TextGenerationVectorEnv]) -> None:
    env = vector("token_and_log_prob")
    env.step({"token": [0, 1], "log_prob": [-1.0, -1.0]})
    # Row 0 restarts in this step: not even an impossible action matters.
    _, rewards, terminated, _, info = env.step({"token": [V + 5, 1], "log_prob": [float("nan"), -1.0]})
    assert rewards[0] == 0
    assert not terminated.any()
    assert info["_prompt"].tolist() == [True, False]


def test_every_refusal_is_an_error_of_the_library_and_a_value_error(single: Make) -> None:
    for base in (LmGymError, ValueError):
        with pytest.raises(base):
            single().step(V)
