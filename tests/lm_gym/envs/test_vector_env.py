"""The vector env against Gymnasium's SyncVectorEnv of single envs: same seeds, same actions, same everything."""

from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.wrappers.vector import NormalizeReward, RecordEpisodeStatistics
from tiny_models import PROMPTS, V, single_env, text_score, vector_env

from lm_gym import Reference, TextGenerationVectorEnv
from lm_gym.errors import ConfigError, EpisodeOverError

NUM = 3
SETTINGS: dict[str, Any] = {"max_new_tokens": 5, "kl_coef": 0.2, "stop_strings": ("c d",)}
MODES = list(AutoresetMode)


def sometimes(prompts: list[str], completions: list[str], **kwargs: Any) -> list[float | None]:
    """Abstains on about a third of the texts."""
    scores = text_score(prompts, completions)
    return [None if score % 0.3 < 0.1 else score for score in scores]


def both(
    reference: Reference, mode: AutoresetMode, action_mode: str = "token_and_log_prob", **settings: Any
) -> tuple[TextGenerationVectorEnv, SyncVectorEnv]:
    arguments = (reference, PROMPTS, sometimes)
    settings = SETTINGS | {"action_mode": action_mode} | settings
    ours = vector_env(NUM, *arguments, autoreset_mode=mode, **settings)
    singles = [lambda: single_env(*arguments, **settings)] * NUM
    return ours, SyncVectorEnv(singles, autoreset_mode=mode)


def actions(steps: int, action_mode: str = "token_and_log_prob") -> Iterator[Any]:
    rng = np.random.default_rng(0)
    for _ in range(steps):
        tokens = np.where(rng.random(NUM) < 0.15, 0, rng.integers(1, V, NUM))
        log_probs = -rng.exponential(size=NUM).astype(np.float32)
        yield tokens if action_mode == "token" else {"token": tokens, "log_prob": log_probs}


def assert_same(ours: Any, theirs: Any, where: str) -> None:
    """Equal structure, types of arrays and values; numbers to 2e-4 (rows share a batch, so sums differ in order)."""
    if isinstance(theirs, dict):
        assert set(ours) == set(theirs), where
        for key, value in theirs.items():
            assert_same(ours[key], value, f"{where}.{key}")
    elif isinstance(theirs, np.ndarray) and theirs.dtype != object:
        assert ours.dtype == theirs.dtype, where
        np.testing.assert_allclose(ours, theirs, atol=2e-4, err_msg=where)
    elif isinstance(theirs, np.ndarray | tuple):
        assert len(ours) == len(theirs), where
        for index, value in enumerate(theirs):
            assert_same(ours[index], value, f"{where}[{index}]")
    elif isinstance(theirs, float):
        assert ours == pytest.approx(theirs, abs=2e-4), where
    else:
        assert ours == theirs, where


@pytest.mark.parametrize("action_mode", ["token", "token_and_log_prob"])
@pytest.mark.parametrize("mode", MODES)
def test_it_equals_a_sync_vector_env_of_single_envs(
    mode: AutoresetMode, action_mode: str, reference: Reference
) -> None:
    ours, theirs = both(reference, mode, action_mode)
    assert_same(ours.reset(seed=5), theirs.reset(seed=5), "reset")
    endings = 0
    for number, action in enumerate(actions(40, action_mode)):
        mine, other = ours.step(action), theirs.step(action)
        for index, name in enumerate(("obs", "rewards", "terminated", "truncated", "info")):
            assert_same(mine[index], other[index], f"step {number}, {name}")
        ended = mine[2] | mine[3]
        endings += int(ended.sum())
        if mode is AutoresetMode.SAME_STEP and ended.any():
            assert {"final_obs", "_final_obs", "final_info", "_final_info"} <= set(mine[4])
        if mode is AutoresetMode.DISABLED and ended.any():
            resets = [env.reset(options={"reset_mask": ended.copy()}) for env in (ours, theirs)]
            assert_same(resets[0], resets[1], f"step {number}, reset")
    assert endings > 10


def test_truncation_reaches_the_same_rows_as_in_single_envs(reference: Reference) -> None:
    ours, theirs = both(reference, AutoresetMode.SAME_STEP, on_length_limit="truncate")
    ours.reset(seed=1)
    theirs.reset(seed=1)
    seen = 0
    for action in actions(25):
        mine, other = ours.step(action), theirs.step(action)
        np.testing.assert_array_equal(mine[3], other[3])
        np.testing.assert_array_equal(mine[2], other[2])
        np.testing.assert_allclose(mine[1], other[1], atol=2e-4)
        assert not (mine[2] & mine[3]).any()
        seen += int(mine[3].sum())
    assert seen > 3


@pytest.mark.parametrize("mode", MODES)
def test_metadata_names_the_autoreset_mode_as_an_enum_member(mode: AutoresetMode, reference: Reference) -> None:
    env = vector_env(1, reference, PROMPTS, autoreset_mode=mode.value, **SETTINGS)
    assert env.metadata["autoreset_mode"] is mode
    assert "autoreset_mode" not in TextGenerationVectorEnv.metadata


@pytest.mark.parametrize("wrapper", [RecordEpisodeStatistics, NormalizeReward])
@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
def test_gymnasium_wrappers_count_the_same_around_both(wrapper: Any, mode: AutoresetMode, reference: Reference) -> None:
    ours, theirs = (wrapper(env) for env in both(reference, mode))
    ours.reset(seed=2)
    theirs.reset(seed=2)
    for action in actions(30):
        mine, other = ours.step(action), theirs.step(action)
        np.testing.assert_allclose(mine[1], other[1], atol=1e-3)
        if "episode" in other[4]:
            for key in ("r", "l"):
                np.testing.assert_allclose(mine[4]["episode"][key], other[4]["episode"][key], atol=1e-3)
    if wrapper is RecordEpisodeStatistics:
        assert len(ours.return_queue) > 5
        np.testing.assert_allclose(list(ours.return_queue), list(theirs.return_queue), atol=1e-3)
        assert list(ours.length_queue) == list(theirs.length_queue)


@pytest.mark.parametrize("mode", MODES)
def test_the_statistics_wrapper_agrees_with_the_envs_own_episode_return(
    mode: AutoresetMode, reference: Reference
) -> None:
    # With autoreset off, Gymnasium's wrapper counts right around this env only: SyncVectorEnv takes the mask out of
    # the options before the wrapper reads it (gymnasium 1.4.0), so there is nothing to compare with in that mode.
    if mode is AutoresetMode.SAME_STEP and gymnasium.__version__.startswith(("1.2.", "1.3.")):
        pytest.skip("Gymnasium's wrapper leaves the first reward of an episode out in this mode before 1.4")
    env: VectorEnv[Any, Any, Any] = RecordEpisodeStatistics(both(reference, mode)[0])
    env.reset(seed=2)
    checked = 0
    for action in actions(30):
        info = env.step(action)[4]
        ended = info.get("_episode", np.zeros(NUM, dtype=bool))
        own = info["final_info"] if mode is AutoresetMode.SAME_STEP and ended.any() else info
        for row in np.flatnonzero(ended):
            assert info["episode"]["r"][row] == pytest.approx(own["episode_return"][row], abs=1e-4)
            assert info["episode"]["l"][row] == own["episode_length"][row]
            checked += 1
        if mode is AutoresetMode.DISABLED and ended.any():
            env.reset(options={"reset_mask": ended.copy()})
    assert checked > 5


def test_reset_options_are_never_changed(reference: Reference) -> None:
    env, _ = both(reference, AutoresetMode.DISABLED)
    env.reset(seed=0)
    mask = np.array([True, False, True])
    options = {"reset_mask": mask, "prompt": "b b"}
    _, info = env.reset(options=options)
    assert set(options) == {"reset_mask", "prompt"}
    assert options["reset_mask"] is mask
    assert mask.tolist() == [True, False, True]
    assert info["prompt"].tolist() == ["b b", None, "b b"]
    assert info["_prompt"].tolist() == [True, False, True]


def test_a_partial_reset_leaves_the_other_rows_as_they_are(reference: Reference) -> None:
    env, _ = both(reference, AutoresetMode.DISABLED)
    env.reset(seed=0)
    before, *_ = env.step({"token": np.array([1, 2, 3]), "log_prob": np.full(NUM, -1.0)})
    after, _ = env.reset(options={"reset_mask": np.array([True, False, False])})
    np.testing.assert_array_equal(after["input_ids"][1:], before["input_ids"][1:])
    np.testing.assert_array_equal(after["attention_mask"][1:], before["attention_mask"][1:])
    assert after["attention_mask"][0].sum() in {len(prompt.split()) for prompt in PROMPTS}


def test_a_partial_reset_seeds_its_own_rows_and_no_others(reference: Reference) -> None:
    many = [f"{chr(97 + i)} {chr(97 + j)}" for i in range(9) for j in range(9)]
    ours = vector_env(NUM, reference, many, autoreset_mode=AutoresetMode.DISABLED, **SETTINGS)
    singles = [lambda: single_env(reference, many, **SETTINGS)] * NUM
    theirs = SyncVectorEnv(singles, autoreset_mode=AutoresetMode.DISABLED)
    drawn = []
    for env in (ours, theirs):
        env.reset(seed=0)
        env.reset(seed=50, options={"reset_mask": np.array([True, False, True])})
        drawn.append([env.reset()[1]["prompt"].tolist() for _ in range(3)])
    assert drawn[0] == drawn[1]


def test_returned_arrays_stay_as_they_were_when_the_env_goes_on(reference: Reference) -> None:
    env, _ = both(reference, AutoresetMode.SAME_STEP)
    results = [env.reset(seed=0)[0]] + [env.step(action)[0] for action in actions(8)]
    copies = [{key: value.copy() for key, value in obs.items()} for obs in results]
    for action in actions(8):
        env.step(action)
    for obs, copy in zip(results, copies, strict=True):
        for key in obs:
            np.testing.assert_array_equal(obs[key], copy[key])


@pytest.mark.parametrize("seed", [7, [7, 8, 9]])
def test_an_int_seed_gives_row_i_the_seed_plus_i(seed: Any, reference: Reference) -> None:
    many = [f"{chr(97 + i)} {chr(97 + j)}" for i in range(9) for j in range(9)]
    env = vector_env(NUM, reference, many, **SETTINGS)
    single = single_env(reference, many, **SETTINGS)
    _, info = env.reset(seed=seed)
    assert info["prompt"].tolist() == [single.reset(seed=7 + row)[1]["prompt"] for row in range(NUM)]


def test_an_ended_row_must_be_reset_before_it_steps_when_autoreset_is_off(reference: Reference) -> None:
    env, _ = both(reference, AutoresetMode.DISABLED)
    env.reset(seed=0)
    action = {"token": np.array([0, 1, 0]), "log_prob": np.full(NUM, -1.0)}
    env.step(action)
    with pytest.raises(EpisodeOverError, match=r"rows \[0, 2\] have ended; call reset\(options="):
        env.step(action)


def test_where_the_pass_of_the_reference_fails_every_row_must_be_reset(
    reference: Reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    env = vector_env(2, reference, PROMPTS, None, autoreset_mode="Disabled", max_new_tokens=5)
    env.reset(seed=0)
    tokens = np.array([4, 5])
    env.step(tokens)
    first = np.array([True, False])

    def fails(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(reference.language_model, "hidden", fails)
        with pytest.raises(RuntimeError, match="out of memory"):
            env.reset(options={"reset_mask": first})
    for mask in (first, ~first):  # the row that was not asked to restart lost its prefix too
        with pytest.raises(EpisodeOverError, match=r"none was begun; call reset\(\)"):
            env.step(tokens)
        env.reset(options={"reset_mask": mask})
    env.step(tokens)


def test_stepping_before_reset_is_refused(reference: Reference) -> None:
    env, _ = both(reference, AutoresetMode.NEXT_STEP)
    with pytest.raises(EpisodeOverError, match=r"^step: needs running episodes, and none was begun; call reset\(\)"):
        env.step({"token": np.zeros(NUM, dtype=int), "log_prob": np.zeros(NUM)})


@pytest.mark.parametrize(
    "mask", [[True, False, False], np.zeros(NUM, dtype=bool), np.ones(2, dtype=bool), np.ones(NUM, dtype=int)]
)
def test_a_wrong_reset_mask_is_refused(mask: Any, reference: Reference) -> None:
    env, _ = both(reference, AutoresetMode.DISABLED)
    with pytest.raises(ConfigError, match=r'options\["reset_mask"\]: must be a bool array of shape \(3,\)'):
        env.reset(options={"reset_mask": mask})


def test_a_seed_list_of_another_length_is_refused(reference: Reference) -> None:
    env, _ = both(reference, AutoresetMode.NEXT_STEP)
    with pytest.raises(ConfigError, match="a sequence must have num_envs = 3 entries, got 2"):
        env.reset(seed=[1, 2])


def test_an_unknown_autoreset_mode_is_refused_with_the_choices(reference: Reference) -> None:
    with pytest.raises(ConfigError, match=r"autoreset_mode: must be .*NextStep.* got 'NEXT_STEP'"):
        vector_env(1, reference, PROMPTS, autoreset_mode="NEXT_STEP", **SETTINGS)


def test_zero_rows_are_refused(reference: Reference) -> None:
    with pytest.raises(ConfigError, match="num_envs: must be a whole number >= 1, got 0"):
        vector_env(0, reference, PROMPTS, **SETTINGS)


def test_its_spaces_contain_what_it_returns(reference: Reference) -> None:
    env, _ = both(reference, AutoresetMode.SAME_STEP)
    assert isinstance(env.single_action_space, gymnasium.spaces.Dict)
    assert env.reset(seed=0)[0] in env.observation_space
    env.action_space.seed(0)
    for _ in range(6):
        assert env.step(env.action_space.sample())[0] in env.observation_space


@pytest.mark.parametrize("seed", ["a", "ab", 1.5, [1, 2.5], {1: 2}])
def test_a_seed_that_is_no_number_is_named(seed: Any, reference: Reference) -> None:
    env, _ = both(reference, AutoresetMode.NEXT_STEP)
    with pytest.raises(ConfigError, match=r"reset: seed: must be .*None or a whole number >= 0, got "):
        env.reset(seed=seed)
