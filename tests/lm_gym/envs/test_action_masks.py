"""Action masks are the reference's own support under the environment's rules of sampling."""

from typing import Any

import gymnasium
import numpy as np
import pytest
from tiny_models import EOS, PROMPTS, V, full_log_probs, single_env, vector_env

from lm_gym import Reference
from lm_gym.envs.env import Observation
from lm_gym.errors import ConfigError


def by_hand(reference: Reference, observation: Observation, rules: dict[str, Any], num_tokens: int) -> np.ndarray:
    """Sorted probabilities, one rule at a time. Shape: (V,), bool."""
    ids = observation["input_ids"][observation["attention_mask"] == 1]
    probs = np.exp(full_log_probs(reference.language_model, ids, rules.get("temperature", 1.0)))
    if num_tokens < rules.get("min_new_tokens", 0):
        probs[EOS] = 0.0
    order = np.argsort(-probs)
    if "top_k" in rules:
        return np.isin(np.arange(V), order[: rules["top_k"]])
    if "min_p" in rules:
        return probs >= rules["min_p"] * probs.max()  # type: ignore[no-any-return]
    if "top_p" in rules:
        before = np.cumsum(probs[order]) - probs[order]
        return np.isin(np.arange(V), order[before < rules["top_p"]])
    return probs > 0  # type: ignore[no-any-return]


RULES: list[dict[str, Any]] = [
    {},
    {"top_k": 3},
    {"top_p": 0.6},
    {"top_p": 0.6, "temperature": 2.0},
    {"min_p": 0.3, "temperature": 0.5},
    {"min_new_tokens": 2},
    {"min_new_tokens": 2, "top_k": 2},
]


@pytest.mark.parametrize("rules", RULES, ids=str)
def test_they_are_what_truncation_keeps_of_the_reference(rules: dict[str, Any], reference: Reference) -> None:
    env = single_env(reference, PROMPTS, None, max_new_tokens=4, **rules)
    rows = vector_env(2, reference, PROMPTS, None, max_new_tokens=4, **rules)
    observation, _ = env.reset(seed=1)
    rows.reset(seed=0)
    for num_tokens in range(4):
        mask = env.action_masks()
        assert mask.shape == (V,)
        assert mask.dtype == np.bool_
        np.testing.assert_array_equal(mask, by_hand(reference, observation, rules, num_tokens))
        np.testing.assert_array_equal(rows.action_masks()[1], mask)
        token = 5 + num_tokens
        observation = env.step(token)[0]
        rows.step(np.array([7, token]))
    assert env.action_masks().all()  # no episode runs


def test_they_are_reached_by_name_through_wrappers(reference: Reference) -> None:
    env = gymnasium.wrappers.RecordEpisodeStatistics(single_env(reference, PROMPTS, None, top_k=3, max_new_tokens=4))
    env.reset(seed=0)
    assert env.get_wrapper_attr("action_masks")().sum() == 3


def test_without_a_reference_there_are_none(reference: Reference) -> None:
    env = single_env(None, PROMPTS, None, tokenizer=reference.tokenizer, kl_coef=0, top_k=3, max_new_tokens=4)
    env.reset(seed=0)
    with pytest.raises(ConfigError, match=r"action_masks: needs the reference, .* make the environment with a model"):
        env.action_masks()
