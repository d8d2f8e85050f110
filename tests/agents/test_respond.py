"""``respond``: text in, text out, by the same rules as a rollout."""

from collections.abc import Callable
from typing import Any

import pytest

from lm_gym import SamplingConfig, TextGenerationVectorEnv
from lm_gym.agents import LanguageModelPolicy
from lm_gym.errors import ConfigError, PromptError, UnknownSettingError

Make = Callable[..., Any]
PROMPTS = ["a b c", "d", "e f"]


@pytest.fixture
def env(make_env: Make) -> TextGenerationVectorEnv:
    return make_env(max_new_tokens=5)


@pytest.fixture
def policy(env: TextGenerationVectorEnv, make_policy: Make) -> LanguageModelPolicy:
    return make_policy(env)


def test_the_texts_are_those_of_the_sampler(env: TextGenerationVectorEnv, policy: LanguageModelPolicy) -> None:
    """Decoded with the prompt before them, without the stop token."""
    texts = policy.respond(PROMPTS, env.sampling, seed=3)
    ids = [prompt.ids for prompt in env.as_prompts(PROMPTS)]
    sampling = SamplingConfig(max_new_tokens=5, seed=3, stop_token_ids=env.sampling.stop_token_ids)
    generation = policy.sampler.generate(ids, sampling)
    rule = env.task.stop_rule()
    for row, text in enumerate(texts):
        drawn = generation.ids[row, generation.mask[row]]
        assert text == rule.text(ids[row], drawn, rule.reason(ids[row], drawn))
    assert len({*texts}) > 1


def test_a_seed_fixes_the_answers_and_none_leaves_them_free(policy: LanguageModelPolicy) -> None:
    same = [policy.respond(["a"] * 8, seed=1, max_new_tokens=8) for _ in range(2)]
    assert same[0] == same[1] != policy.respond(["a"] * 8, seed=2, max_new_tokens=8)
    assert policy.respond(["a"] * 8, max_new_tokens=8) != policy.respond(["a"] * 8, max_new_tokens=8)


def test_settings_replace_those_of_the_rules(env: TextGenerationVectorEnv, policy: LanguageModelPolicy) -> None:
    greedy = [policy.respond(PROMPTS, env.sampling, top_k=1, seed=seed) for seed in range(3)]
    assert greedy[0] == greedy[1] == greedy[2]
    short = policy.respond(PROMPTS, env.sampling, top_k=1, max_new_tokens=1)
    assert all(long.startswith(text) for long, text in zip(greedy[0], short, strict=True))


def test_no_prompts_have_no_answers(policy: LanguageModelPolicy) -> None:
    assert policy.respond([]) == []


@pytest.mark.parametrize("prompts", ["a b", b"a", {"prompt": "a"}, None, 3])
def test_one_text_is_refused(prompts: Any, policy: LanguageModelPolicy) -> None:
    with pytest.raises(ConfigError, match=r"respond: prompts must be a list of texts, got .*; write \[text\]"):
        policy.respond(prompts)


def test_a_setting_or_a_prompt_that_cannot_be_is_refused(policy: LanguageModelPolicy) -> None:
    with pytest.raises(UnknownSettingError, match=r"no setting is named 'temprature'.*Did you mean 'temperature'"):
        policy.respond(["a"], temprature=0.5)
    with pytest.raises(ConfigError, match=r"respond: sampling: must be None or a SamplingConfig, got 0\.7"):
        policy.respond(["a"], 0.7)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="temperature"):
        policy.respond(["a"], temperature=0.0)
    with pytest.raises(PromptError, match="prompt 1: must have at most"):
        policy.respond(["a b c"] * 2, max_new_tokens=int(policy.language_model.max_length or 0) - 1)
    with pytest.raises(PromptError, match="prompt 2: must be a non-empty string"):
        policy.respond(["a", ""], max_new_tokens=4)
    with pytest.raises(ConfigError, match=r"respond: max_new_tokens must leave room for a prompt in the \d+ positions"):
        policy.respond(["a"], max_new_tokens=4096)
