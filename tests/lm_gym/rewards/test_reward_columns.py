"""Columns of the prompts' rows reach reward models: a right answer is paid, however the text was made."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from tiny_models import ScriptedPolicy, gpt2_parts, single_env, vector_env, words

from lm_gym import Reference, RewardModel, Scores, TextGenerationVectorEnv, evaluate, load_prompts
from lm_gym.errors import ConfigError, RewardModelError
from lm_gym.testing import enumerate_mdp
from lm_gym.tools.files import write_jsonl

ROWS: list[dict[str, Any]] = [{"prompt": "a b", "answer": "c"}, {"prompt": "d", "answer": "e"}]
ANSWER = {row["prompt"]: row["answer"] for row in ROWS}


def contains(completions: Sequence[str], answer: Sequence[str], **columns: Any) -> list[float]:
    """1 where the response holds the answer of its own row."""
    return [float(one in text.split()) for one, text in zip(answer, completions, strict=True)]


class Contains(RewardModel):
    """The same as an object that declares what it reads."""

    columns = ("answer",)

    def score(self, prompts: Sequence[str], responses: Sequence[str], answer: Sequence[str]) -> Scores:  # type: ignore[override]
        return Scores.of(contains(responses, answer))


SETTINGS: dict[str, Any] = {"kl_coef": 0.0, "max_new_tokens": 3}


def make(path: Path, **changes: Any) -> dict[str, Any]:
    """Arguments of ``gymnasium.make`` with the rows in a file."""
    prompts = write_jsonl(path / "rows.jsonl", ROWS)
    return {"model": gpt2_parts, "prompts": str(prompts), "reward_model": contains} | SETTINGS | changes


@pytest.mark.parametrize("reward_model", [contains, Contains()])
@pytest.mark.parametrize("right", [True, False])
def test_step_pays_the_right_answer(tmp_path: Path, reward_model: Any, right: bool) -> None:
    env = gymnasium.make("lm_gym/TextGeneration-v0", **make(tmp_path, reward_model=reward_model))
    for seed in range(4):
        _, info = env.reset(seed=seed)
        reply = ANSWER[info["prompt"]] if right else "z"
        env.step(words(reply)[0])
        *_, terminated, _, info = env.step(0)
        assert terminated
        assert info["score"] == float(right)


@pytest.mark.parametrize("reward_model", [contains, Contains()])
def test_each_row_of_a_vector_env_has_its_own_answer(tmp_path: Path, reward_model: Any) -> None:
    env = gymnasium.make_vec("lm_gym/TextGeneration-v0", num_envs=6, **make(tmp_path, reward_model=reward_model))
    _, info = env.reset(seed=0)
    assert len(set(info["prompt"])) == 2
    right = np.array([row % 2 == 0 for row in range(6)])
    replies = [ANSWER[prompt] if right[row] else "z" for row, prompt in enumerate(info["prompt"])]
    env.step(np.array([words(reply)[0] for reply in replies]))
    *_, info = env.step(np.zeros(6, dtype=np.int64))
    assert info["score"].tolist() == right.astype(float).tolist()


@pytest.fixture
def env(reference: Reference) -> TextGenerationVectorEnv:
    return vector_env(2, reference, ROWS, contains, **SETTINGS)


def test_rollouts_and_evaluation_pay_the_right_answer(env: TextGenerationVectorEnv) -> None:
    policy = ScriptedPolicy([words("c $"), words("c $")])
    assert env.rollout_on(policy, ROWS).scores.tolist() == [1.0, 0.0]
    assert env.rollout_on(policy, [env.task.prompts[1], env.task.prompts[0]]).scores.tolist() == [0.0, 1.0]
    env.reset(seed=3)
    drawn = env.rollout(policy)
    assert drawn.scores.tolist() == [float(ANSWER[prompt] == "c") for prompt in drawn.prompts]
    assert evaluate(policy, env, ROWS).episodes.scores.tolist() == [1.0, 0.0]


def test_a_prompt_from_outside_brings_its_columns(reference: Reference) -> None:
    env = single_env(reference, ROWS, contains, **SETTINGS)
    env.reset(options={"prompt": {"prompt": "f", "answer": "g"}})
    env.step(words("g")[0])
    assert env.step(0)[4]["score"] == 1.0
    rule = r"reward model contains: needs the column 'answer' in every prompt's row, and row 1 has the columns \[\]"
    with pytest.raises(ConfigError, match=rule):
        env.reset(options={"prompt": "f"})


def test_a_text_alone_is_refused_before_anything_is_generated(env: TextGenerationVectorEnv) -> None:
    for call in (
        lambda: env.rollout_on(None, ["f"]),  # type: ignore[arg-type]
        lambda: evaluate(None, env, ["f"]),  # type: ignore[arg-type]
        lambda: env.reset(options={"prompt": "f"}),
    ):
        with pytest.raises(ConfigError, match="needs the column 'answer'"):
            call()


def needs_level(completions: Sequence[str], level: Sequence[Any]) -> list[float]:
    return [0.0] * len(completions)


@pytest.mark.parametrize(
    ("rows", "reward_model", "text"),
    [
        (["a b", "d"], contains, r"contains: needs the column 'answer' .* row 1 has the columns \[\]"),
        ([ROWS[0], {"prompt": "d", "other": 1}], contains, r"row 2 has the columns \['other'\]; add it to the rows"),
        (ROWS, needs_level, r"needs_level: needs the column 'level' .* is passed prompts, completions and these"),
        (["a b"], Contains(), "Contains: needs the column 'answer'"),
    ],
)
def test_an_environment_without_the_column_is_refused(
    reference: Reference, rows: Any, reward_model: Any, text: str
) -> None:
    for build in (single_env, lambda *parts, **flat: vector_env(2, *parts, **flat)):
        with pytest.raises(ConfigError, match=text):
            build(reference, rows, reward_model, **SETTINGS)
    env = single_env(reference, rows, None, **SETTINGS)
    with pytest.raises(ConfigError, match=text):
        env.reward_model = reward_model
    assert env.reward_model is None


def test_a_function_that_takes_every_column_gets_none_where_a_row_lacks_it(reference: Reference) -> None:
    seen: list[dict[str, Any]] = []

    def look(completions: Sequence[str], **columns: Any) -> list[float]:
        seen.append(columns)
        return [0.0] * len(completions)

    rows = [{"prompt": "a", "level": 1, "completions": "not this", "responses": "r"}, {"prompt": "b", "hint": "x"}]
    env = vector_env(2, reference, rows, look, **SETTINGS)
    env.rollout_on(ScriptedPolicy([words("c $"), words("$")]), rows)
    assert seen == [{"prompts": ["a", "b"], "level": [1, None], "hint": [None, "x"], "responses": ["r", None]}]


def test_chats_and_rows_keep_what_else_they_hold(reference: Reference) -> None:
    tokenizer = reference.tokenizer
    prompts = load_prompts([{"prompt": "a", "answer": "b", "level": [1, 2]}, "c"], tokenizer)
    assert [dict(prompt.columns) for prompt in prompts.prompts] == [{"answer": "b", "level": [1, 2]}, {}]


def test_the_exact_solver_pays_by_the_column(reference: Reference) -> None:
    from lm_gym import RewardConfig, SamplingConfig

    [prompt] = load_prompts([ROWS[0]], reference.tokenizer).prompts
    mdp = enumerate_mdp(
        reference, contains, prompt, reward_config=RewardConfig(kl_coef=0.1), sampling=SamplingConfig(max_new_tokens=1)
    )
    assert [text.strip() for text, paid in zip(mdp.texts, mdp.paid, strict=True) if paid == 1.0] == ["c"]


def test_a_swap_in_the_middle_of_an_episode_is_still_checked(reference: Reference) -> None:
    env = single_env(reference, ROWS, None, **SETTINGS)
    env.reset(options={"prompt": "f"})
    env.reward_model = contains
    with pytest.raises((ConfigError, RewardModelError), match="needs the column 'answer'"):
        env.step(0)
