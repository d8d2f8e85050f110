"""Every random stream of the environments: which seed starts it, and that a saved state brings it back."""

import json
from typing import Any

import numpy as np
import pytest
from tiny_models import SamplingPolicy
from tiny_models import single_env as make_single_env
from tiny_models import vector_env as make_vector_env

from lm_gym import Reference, TextGenerationVectorEnv
from lm_gym.errors import ConfigError

MANY = [f"{letter} {other}" for letter in "abcdefghij" for other in "klmnopqrst"]
"""A hundred prompts: two equal draws in a row are no accident."""


@pytest.fixture
def policy(reference: Reference) -> SamplingPolicy:
    return SamplingPolicy(reference.language_model)


def vector_env(reference: Reference, **settings: Any) -> TextGenerationVectorEnv:
    return make_vector_env(2, reference, MANY, max_new_tokens=4, **settings)


def test_rollouts_draw_from_a_stream_that_no_row_has(reference: Reference, policy: SamplingPolicy) -> None:
    env = vector_env(reference)
    _, info = env.reset(seed=3)
    episodes = env.rollout(policy, 2)
    assert episodes.prompts[0] != info["prompt"][0]
    assert env.np_random_seed == 3


def test_a_seeded_reset_starts_the_sampling_seed_anew(reference: Reference, policy: SamplingPolicy) -> None:
    env = vector_env(reference, seed=7)
    first, second = (env.reset(seed=0) and env.rollout(policy, 4) for _ in range(2))
    np.testing.assert_array_equal(first.response_ids, second.response_ids)
    env.reset()
    assert not np.array_equal(env.rollout(policy, 4).response_ids, first.response_ids)


@pytest.mark.parametrize("seed", [None, 7])
def test_the_state_of_a_vector_env_holds_every_stream_and_beta(
    seed: int | None, reference: Reference, policy: SamplingPolicy
) -> None:
    env = vector_env(reference, seed=seed)
    env.reset(seed=1)
    env.rollout(policy, 3)
    env.kl_coef = 0.37
    state = json.loads(json.dumps(env.state_dict()))
    expected = env.rollout(policy, 3)
    _, info = env.reset()
    other = vector_env(reference, seed=seed)
    other.load_state_dict(state)
    found = other.rollout(policy, 3)
    assert found.prompts == expected.prompts
    np.testing.assert_array_equal(found.response_ids, expected.response_ids)
    assert other.reset()[1]["prompt"].tolist() == info["prompt"].tolist()
    assert other.kl_coef == 0.37


def test_the_state_of_a_single_env_holds_its_stream_and_beta(reference: Reference) -> None:
    env = make_single_env(reference, MANY, max_new_tokens=4)
    env.reset(seed=1)
    env.kl_coef = 0.37
    state = json.loads(json.dumps(env.state_dict()))
    _, info = env.reset()
    other = make_single_env(reference, MANY, max_new_tokens=4)
    other.load_state_dict(state)
    assert (other.reset()[1], other.kl_coef) == (info, 0.37)


def test_a_state_of_another_shape_is_refused(reference: Reference) -> None:
    state = vector_env(reference).state_dict()
    with pytest.raises(ConfigError, match=r"environment of 3 rows.*got 2 rows"):
        make_vector_env(3, reference, MANY, max_new_tokens=4).load_state_dict(state)
    with pytest.raises(ConfigError, match=r"sampling.seed set, got one with it unset"):
        vector_env(reference, seed=7).load_state_dict(state)
