"""The single environment: types, observations, info, determinism, and what a failure leaves behind."""

from typing import Any

import numpy as np
import pytest
from tiny_models import EOS, MAX_LENGTH, PROMPTS, V, length_score, make_tokenizer, single_env, text_score

from lm_gym import Reference, RewardConfig, SamplingConfig, Scores, TextGenerationEnv, TextGenerationVectorEnv
from lm_gym.errors import ConfigError, EpisodeOverError, PromptError, RewardModelError

FLOATS = {"ref_log_prob", "log_prob", "kl", "score", "score_valid", "episode_return", "episode_length"}
STRINGS = {"response", "stop_reason"}


def make(reference: Reference | None, **settings: Any) -> TextGenerationEnv:
    settings = {"max_new_tokens": 5, "action_mode": "token_and_log_prob", "kl_coef": 0.1} | settings
    return single_env(reference, settings.pop("prompts", PROMPTS), settings.pop("reward_model", text_score), **settings)


def play(env: TextGenerationEnv, seed: int) -> list[tuple[Any, ...]]:
    """One episode of sampled actions; the steps with the reset in front."""
    env.action_space.seed(seed)
    steps: list[tuple[Any, ...]] = [env.reset(seed=seed)]
    while not (len(steps) > 1 and (steps[-1][2] or steps[-1][3])):
        steps.append(env.step(env.action_space.sample()))
    return steps


@pytest.mark.parametrize("settings", [{}, {"on_length_limit": "truncate"}, {"action_mode": "token"}])
def test_rewards_flags_and_info_are_plain_python(settings: dict[str, Any], reference: Reference) -> None:
    env = make(reference, **settings)
    for seed in range(10):
        first, *steps = play(env, seed)
        assert type(first[1]["prompt"]) is str
        assert set(first[1]) == {"prompt"}
        for _, reward, terminated, truncated, info in steps:
            assert type(reward) is float
            assert type(terminated) is bool
            assert type(truncated) is bool
            for key, value in info.items():
                assert type(value) is (float if key in FLOATS else str)
                assert key in FLOATS | STRINGS
                assert value == value, f"info[{key!r}] is NaN"


END = {"response", "stop_reason", "episode_return", "episode_length"}


@pytest.mark.parametrize(
    ("settings", "action", "during", "at_the_end"),
    [
        ({}, "dict", {"ref_log_prob", "log_prob", "kl"}, END | {"score", "score_valid"}),
        ({"action_mode": "token"}, "token", {"ref_log_prob"}, END | {"score", "score_valid"}),
        ({"on_length_limit": "truncate"}, "dict", {"ref_log_prob", "log_prob", "kl"}, END),
        (
            {"reward_model": lambda prompts, completions: [None]},
            "dict",
            {"ref_log_prob", "log_prob", "kl"},
            END | {"score_valid"},
        ),
        ({"reference": None}, "dict", {"log_prob"}, END | {"score", "score_valid"}),
        ({"reference": None, "action_mode": "token"}, "token", set(), END | {"score", "score_valid"}),
    ],
)
def test_info_has_the_defined_keys_and_no_others(
    settings: dict[str, Any], action: str, during: set[str], at_the_end: set[str], reference: Reference
) -> None:
    settings = dict(settings)
    if "reference" in settings:
        settings |= {"tokenizer": make_tokenizer(), "kl_coef": 0.0}
    env = make(settings.pop("reference", reference), max_new_tokens=2, **settings)
    env.reset(seed=0)
    one = 3 if action == "token" else {"token": 3, "log_prob": -1.0}
    assert set(env.step(one)[4]) == during
    assert set(env.step(one)[4]) == during | at_the_end


def test_the_observation_is_right_padded_and_only_grows(reference: Reference) -> None:
    env = make(reference)
    length = 6 + 5
    for seed in range(8):
        steps = play(env, seed)
        ids = list(make_tokenizer()(steps[0][1]["prompt"])["input_ids"])
        seen: list[int] = []
        for step in steps:
            obs = step[0]
            assert obs["input_ids"].dtype == np.int64
            assert obs["attention_mask"].dtype == np.int8
            count = int(obs["attention_mask"].sum())
            assert obs["attention_mask"].tolist() == [1] * count + [0] * (length - count)
            prefix = obs["input_ids"][:count].tolist()
            assert obs["input_ids"][count:].tolist() == [EOS] * (length - count)
            assert prefix[: len(seen)] == seen
            assert count == (len(seen) + 1 if seen else len(ids))
            seen = prefix
        assert seen[: len(ids)] == ids


def test_an_eos_inside_the_prompt_still_counts(reference: Reference) -> None:
    env = make(reference, prompts=["a <eos> b"])
    obs, _ = env.reset(seed=0)
    assert obs["input_ids"][:3].tolist() == [1, EOS, 2]
    assert obs["attention_mask"].sum() == 3
    assert not env.step({"token": 3, "log_prob": -1.0})[2]


def test_pads_of_an_env_without_reference_have_the_tokenizers_pad_id() -> None:
    tokenizer = make_tokenizer(eos_token="a", pad_token="<eos>")
    assert (tokenizer.eos_token_id, tokenizer.pad_token_id) == (1, 0)
    obs, _ = make(None, tokenizer=tokenizer, kl_coef=0.0, prompts=["b"]).reset(seed=0)
    assert obs["input_ids"].tolist() == [2, 0, 0, 0, 0, 0]


def test_the_spaces_fit_the_models_vocabulary_and_lengths(reference: Reference) -> None:
    env = make(reference)
    assert env.action_space["token"].n == V  # type: ignore[index]
    box = env.action_space["log_prob"]  # type: ignore[index]
    assert (box.shape, box.dtype, float(box.low), float(box.high)) == ((), np.float32, -1e4, 0.0)
    ids = env.observation_space["input_ids"]  # type: ignore[index]
    assert (ids.shape, ids.dtype, int(ids.low.min()), int(ids.high.max())) == ((11,), np.int64, 0, V - 1)
    assert env.observation_space["attention_mask"].dtype == np.int8  # type: ignore[index]
    assert make(reference, action_mode="token").action_space.n == V  # type: ignore[attr-defined]


def test_max_prompt_tokens_sets_the_width_of_the_observation(reference: Reference) -> None:
    assert make(reference, max_prompt_tokens=9).reset(seed=0)[0]["input_ids"].shape == (14,)


def test_an_episode_repeats_exactly_under_its_seed(reference: Reference) -> None:
    env, other = make(reference), make(reference)
    for seed in range(5):
        first, again, elsewhere = play(env, seed), play(env, seed), play(other, seed)
        for one, two in ((first, again), (first, elsewhere)):
            assert len(one) == len(two)
            for a, b in zip(one, two, strict=True):
                np.testing.assert_array_equal(a[0]["input_ids"], b[0]["input_ids"])
                assert a[1:] == b[1:]


def test_prompts_are_drawn_uniformly_and_follow_the_envs_generator(reference: Reference) -> None:
    env = make(reference)
    env.reset(seed=11)
    drawn = [env.reset()[1]["prompt"] for _ in range(400)]
    counts = [drawn.count(prompt) for prompt in PROMPTS]
    assert min(counts) > 70
    assert max(counts) < 130
    env.reset(seed=11)
    assert [env.reset()[1]["prompt"] for _ in range(400)] == drawn


def test_options_set_the_prompt_and_draw_none(reference: Reference) -> None:
    env = make(reference)
    env.reset(seed=0)
    state = env.np_random.bit_generator.state
    obs, info = env.reset(options={"prompt": "x y"})
    assert info == {"prompt": "x y"}
    assert obs["input_ids"][:2].tolist() == [24, 25]
    assert env.np_random.bit_generator.state == state


def test_an_optional_prompt_over_the_limit_is_refused(reference: Reference) -> None:
    env = make(reference)
    with pytest.raises(PromptError, match="must have at most max_prompt_tokens = 6 tokens, got 7"):
        env.reset(options={"prompt": "a b c d e f g"})


def test_an_optional_prompt_is_cut_as_the_env_cuts_its_prompts(reference: Reference) -> None:
    env = make(reference, max_prompt_tokens=2, prompt_truncation="left")
    assert env.reset(options={"prompt": "a b c"})[1]["prompt"] == "b c"


def test_settings_come_as_objects_or_flat(reference: Reference) -> None:
    flat = make(reference, kl_coef=0.3, temperature=0.5)
    objects = single_env(
        reference,
        PROMPTS,
        text_score,
        reward=RewardConfig(kl_coef=0.3),
        sampling=SamplingConfig(temperature=0.5, max_new_tokens=5),
    )
    assert flat.task.reward == objects.task.reward
    assert flat.task.sampling == objects.task.sampling
    assert flat.kl_coef == 0.3


@pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf"), "x", "0.5", None, [1.0]])
def test_kl_coef_cannot_be_set_to_something_that_is_no_coefficient(value: Any, reference: Reference) -> None:
    env = make(reference)
    with pytest.raises(ConfigError, match="kl_coef: must be a finite number >= 0"):
        env.kl_coef = value
    assert env.kl_coef == 0.1


def test_stepping_before_reset_is_refused(reference: Reference) -> None:
    with pytest.raises(EpisodeOverError, match=r"^step: needs a running episode, .* or never begun; call reset\(\)"):
        make(reference).step({"token": 1, "log_prob": -1.0})


def test_stepping_an_ended_episode_is_refused(reference: Reference) -> None:
    env = make(reference)
    env.reset(seed=0)
    assert env.step({"token": EOS, "log_prob": -1.0})[2]
    with pytest.raises(EpisodeOverError, match="this one has ended"):
        env.step({"token": 1, "log_prob": -1.0})
    env.reset()
    env.step({"token": 1, "log_prob": -1.0})


class Flaky:
    """Raises once, then scores."""

    name = "flaky"

    def __init__(self, error: BaseException) -> None:
        self.error: BaseException | None = error

    def score(self, prompts: list[str], responses: list[str]) -> Scores:
        if self.error is not None:
            error, self.error = self.error, None
            raise error
        return Scores.of([2.0] * len(responses))


@pytest.mark.parametrize("error", [ValueError("no"), RewardModelError("down"), KeyboardInterrupt()])
def test_a_failing_reward_model_leaves_the_episode_as_it_was(error: BaseException, reference: Reference) -> None:
    env = make(reference, reward_model=Flaky(error))
    calm = make(reference, reward_model=lambda prompts, completions: [2.0])
    for each in (env, calm):
        each.reset(seed=0)
        each.step({"token": 4, "log_prob": -1.0})
    before = env._observation()
    with pytest.raises(KeyboardInterrupt if isinstance(error, KeyboardInterrupt) else RewardModelError):
        env.step({"token": EOS, "log_prob": -2.0})
    after = env._observation()
    np.testing.assert_array_equal(before["input_ids"], after["input_ids"])
    np.testing.assert_array_equal(before["attention_mask"], after["attention_mask"])
    # Another token and then the end: the same numbers as in an episode where nothing failed.
    for action in ({"token": 7, "log_prob": -0.5}, {"token": EOS, "log_prob": -2.0}):
        mine, theirs = env.step(action), calm.step(action)
        assert mine[1:] == theirs[1:]


def test_a_response_that_cannot_be_decoded_leaves_the_episode_as_it_was(
    reference: Reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    env, calm = (make(reference, stop_strings=("x y",)) for _ in range(2))
    for each in (env, calm):
        each.reset(seed=0)

    def fails(*args: Any, **kwargs: Any) -> Any:
        raise TypeError("no text")

    with monkeypatch.context() as patch:
        patch.setattr(type(env.task.response_text()), "__call__", fails)
        with pytest.raises(TypeError, match="no text"):
            env.step({"token": 4, "log_prob": -1.0})
    for token in (4, 7):
        mine, theirs = (each.step({"token": token, "log_prob": -1.0}) for each in (env, calm))
        np.testing.assert_array_equal(mine[0]["input_ids"], theirs[0]["input_ids"])
        assert mine[1:] == theirs[1:]


@pytest.mark.parametrize("at", ["step", "reset"])
@pytest.mark.parametrize("error", [RuntimeError("out of memory"), KeyboardInterrupt()])
def test_an_episode_ends_where_the_pass_of_the_reference_fails(
    error: BaseException, at: str, reference: Reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The pass has written into the cache by then: going on would pay each later token for a prefix that is not there.
    env, calm = make(reference), make(reference)
    env.reset(seed=1)
    env.step({"token": 4, "log_prob": -1.0})
    model, hidden = reference.language_model, reference.language_model.hidden

    def fails_at_its_end(*args: Any, **kwargs: Any) -> Any:
        hidden(*args, **kwargs)
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(model, "hidden", fails_at_its_end)
        with pytest.raises(type(error)):
            env.step({"token": 5, "log_prob": -1.0}) if at == "step" else env.reset()
    with pytest.raises(EpisodeOverError, match=r"call reset\(\)"):
        env.step({"token": 5, "log_prob": -1.0})
    for each in (env, calm):
        each.reset(seed=0)
    for token in (4, 7, EOS):
        mine, theirs = (each.step({"token": token, "log_prob": -1.0}) for each in (env, calm))
        assert mine[1:] == theirs[1:]


def test_kl_without_a_reference_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"kl_coef: needs a reference model, .* got kl_coef = 0.1\. Pass a model"):
        make(None, tokenizer=make_tokenizer())


def test_no_reference_and_no_tokenizer_is_refused() -> None:
    with pytest.raises(ConfigError, match="tokenizer: an environment without a reference model needs tokenizer="):
        make(None, kl_coef=0.0)


def test_a_tokenizer_without_eos_is_refused_without_a_reference_too() -> None:
    with pytest.raises(ConfigError, match=r"must have an EOS token, .* set tokenizer.eos_token"):
        make(None, kl_coef=0.0, tokenizer=make_tokenizer(eos_token=None, pad_token=None))


def test_a_response_beyond_the_models_context_is_refused(reference: Reference) -> None:
    assert make(reference, max_new_tokens=MAX_LENGTH - 6).task.max_length == MAX_LENGTH
    with pytest.raises(
        ConfigError,
        match=f"must fit the model's {MAX_LENGTH} positions, got max_prompt_tokens = 6 plus max_new_tokens = 27",
    ):
        make(reference, max_new_tokens=MAX_LENGTH - 5)


def test_an_unknown_action_mode_is_refused(reference: Reference) -> None:
    with pytest.raises(ConfigError, match='action_mode: must be "token" or "token_and_log_prob", got \'tokens\''):
        make(reference, action_mode="tokens")


def test_tokens_that_only_the_model_knows_can_be_taken() -> None:
    # A vocabulary padded beyond the tokenizer, as many models have it.
    from lm_gym import LanguageModel

    from tiny_models import make_model  # isort: skip

    env = single_env(
        Reference(LanguageModel(make_model(), make_tokenizer(V - 4))), ["a"], length_score, max_new_tokens=3
    )
    env.reset(seed=0)
    env.step(V - 1)
    env.step(2)
    assert env.step(EOS)[4]["response"] == " b"


@pytest.mark.parametrize("options", [[1], "a", 3])
def test_options_that_are_no_dict_are_named(options: Any, reference: Reference) -> None:
    task = make(reference).task
    for env in (TextGenerationEnv(task), TextGenerationVectorEnv(task, num_envs=2)):
        with pytest.raises(ConfigError, match="reset: options must be None or a dict"):
            env.reset(options=options)
