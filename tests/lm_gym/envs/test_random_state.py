"""Every random stream of the environments: which seed starts it, and that a saved state brings it back."""

import json
from typing import Any

import numpy as np
import pytest
from tiny_models import SamplingPolicy
from tiny_models import single_env as make_single_env
from tiny_models import vector_env as make_vector_env

from lm_gym import Reference, TextGenerationVectorEnv
from lm_gym.agents.acting import TokenActor
from lm_gym.envs.wrappers import vector_env_of
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


def test_a_seeded_reset_of_a_single_env_starts_the_sampling_seed_anew(
    reference: Reference, policy: SamplingPolicy
) -> None:
    env = make_single_env(reference, MANY, max_new_tokens=4, seed=7)
    first, second, third = (
        env.reset(seed=seed) and vector_env_of(env, "test").rollout_on(policy, ["a b"] * 4).response_ids
        for seed in (0, 1, None)
    )
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, third)


@pytest.mark.parametrize("seed", [None, 7])
def test_the_draws_of_acting_go_on_whatever_a_reset_is_seeded_with(seed: int | None, reference: Reference) -> None:
    env = make_single_env(reference, ["a b"], max_new_tokens=4, seed=seed)
    actor = TokenActor(reference.language_model)
    drawn = [int(actor.act(env.reset(seed=0)[0], env.sampling)[0]) for _ in range(12)]
    assert len(set(drawn)) > 2  # one and the same state each time


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


def nonsense(state: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """States in which one value is none, by name."""
    rng = state["np_random"]
    inner = rng["state"]
    found = {
        "a coefficient below 0": state | {"kl_coef": -1.0},
        "a coefficient in text": state | {"kl_coef": "0.1"},
        "no coefficient": state | {"kl_coef": None},
        "a stream of None": state | {"np_random": None},
        "a stream of a number": state | {"np_random": 3},
        "a stream of nothing": state | {"np_random": {}},
        "a stream of another name": state | {"np_random": rng | {"bit_generator": "seed"}},
        "a stream of a list for a name": state | {"np_random": rng | {"bit_generator": ["PCG64"]}},
        "a stream of another kind": state | {"np_random": rng | {"bit_generator": "MT19937"}},
        "a stream with a part less": state | {"np_random": {"bit_generator": "PCG64", "state": inner}},
        "a stream between": state | {"np_random": rng | {"state": inner | {"state": 1.5}}},
        "a stream below 0": state | {"np_random": rng | {"state": inner | {"state": -1}}},
        "a stream too large": state | {"np_random": rng | {"state": inner | {"state": 2**200}}},
        "a stream in text": state | {"np_random": rng | {"state": inner | {"inc": "1"}}},
        "draws of a number": state | {"draws": 3},
    }
    if "rows" in state:
        found |= {
            "rows of a number": state | {"rows": 3},
            "rows of None": state | {"rows": None},
            "rows in text": state | {"rows": "ab"},
            "a row of a number": state | {"rows": [state["rows"][0], 3]},
            "a row of nothing": state | {"rows": [state["rows"][0], {}]},
        }
    return found


@pytest.mark.parametrize("several", [False, True], ids=["single", "vector"])
def test_a_state_of_nonsense_is_refused_and_changes_nothing(reference: Reference, several: bool) -> None:
    make: Any = (
        vector_env if several else (lambda one, **settings: make_single_env(one, MANY, max_new_tokens=4, **settings))
    )
    env, source = make(reference, seed=7), make(reference, seed=7)
    env.reset(seed=1)
    source.reset(seed=2)
    source.kl_coef = 0.37
    before = env.state_dict()
    for name, state in nonsense(source.state_dict()).items():
        with pytest.raises(ConfigError, match=r"(?s)^(environment state|RewardConfig\.kl_coef): .*must .* got "):
            env.load_state_dict(state)
        assert env.state_dict() == before, name
    env.load_state_dict(source.state_dict())
    assert env.state_dict() == source.state_dict() != before
