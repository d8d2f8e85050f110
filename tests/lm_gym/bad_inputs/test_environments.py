"""Bad inputs of environments: what they are made of, how they are reset, stepped and rolled out."""

import math
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from tiny_models import PROMPTS, gpt2_parts, length_score, make_model, make_tokenizer

import lm_gym
from lm_gym import RewardConfig, SamplingConfig, TextTask, reviews
from lm_gym.testing import (
    check_reward_model,
    expected_return,
    policy_value,
    share_closed,
    solve,
    tiny_language_model,
    tiny_tokenizer,
)

Case = tuple[str, Callable[[Any], Any], tuple[str, ...]]
NO_GPU = not torch.cuda.is_available()


def made(**settings: Any) -> Callable[[Any], Any]:
    """``gymnasium.make`` of a small task, with one thing wrong."""
    good = {"model": gpt2_parts, "prompts": list(PROMPTS), "reward_model": length_score, "max_new_tokens": 3}
    good |= {"disable_env_checker": True, "device": "cpu"}
    return lambda world: gymnasium.make("lm_gym/TextGeneration-v0", **good | settings)


def made_vector(num_envs: Any = 2, **settings: Any) -> Callable[[Any], Any]:
    good = {"model": gpt2_parts, "prompts": list(PROMPTS), "reward_model": length_score, "max_new_tokens": 3}
    return lambda world: gymnasium.make_vec(
        "lm_gym/TextGeneration-v0",
        num_envs=num_envs,
        vectorization_mode="vector_entry_point",
        **good | {"device": "cpu"} | settings,
    )


MODELS: list[Case] = [
    ("a number", made(model=3), ("model", "3")),
    ("a fraction", made(model=3.5), ("model", "3.5")),
    ("bytes", made(model=b"gpt2"), ("model", "b'gpt2'")),
    ("a list", made(model=["gpt2"]), ("model", "['gpt2']")),
    ("a mapping", made(model={}), ("model", "{}")),
    ("a switch", made(model=True), ("model", "True")),
    ("an empty name", made(model=""), ("model", "''")),
    ("no folder", made(model="./nope"), ("./nope",)),
    ("no module", made(model="no_such_module:make"), ("no_such_module",)),
    ("no attribute", made(model="os:nope"), ("os:nope",)),
    ("a surrogate", made(model="\ud800"), ("model", "ud800")),
    ("an attribute that is no factory", made(model="os:sep"), ("os:sep",)),
    ("a factory of nothing", made(model=lambda: None), ("model", "None")),
    ("a factory of a number", made(model=lambda: 3), ("model", "3")),
    ("a factory of numbers", made(model=lambda: (3, 4)), ("model", "3")),
    ("a factory of three", made(model=lambda: (1, 2, 3)), ("model", "3")),
    ("a factory of a model alone", made(model=lambda: make_model()), ("tokenizer", "GPT2LMHeadModel")),
    ("a factory of a model and a number", made(model=lambda: (make_model(), 3)), ("tokenizer", "3")),
    ("a factory that needs something", made(model=lambda x: gpt2_parts()), ("model", "x")),
    ("a factory that fails", made(model=lambda: 1 / 0), ("model", "division by zero")),
    ("a tokenizer that is a number", made(tokenizer=3), ("tokenizer", "3")),
    ("a tokenizer that is a list", made(tokenizer=[1]), ("tokenizer", "[1]")),
    ("no tokenizer's folder", made(tokenizer="./nope"), ("./nope",)),
    ("no model, a KL", made(model=None), ("kl_coef",)),
    ("no model, no tokenizer", made(model=None, kl_coef=0), ("tokenizer",)),
    ("no model, a tokenizer that is a number", made(model=None, kl_coef=0, tokenizer=3), ("tokenizer", "3")),
    ("a device of no kind", made(device="gpu"), ("device", "'gpu'")),
    ("a device that is a fraction", made(device=3.5), ("device", "3.5")),
    ("a device that is None", made(device=None), ("device", "None")),
    ("a device number that is text", made(device="cuda:x"), ("device", "cuda:x")),
    ("a type of whole numbers", made(dtype="int8"), ("dtype", "'int8'")),
    ("a type of torch", made(dtype=torch.int8), ("dtype", "torch.int8")),
    ("half precision", made(dtype="float16"), ("dtype", "'float16'")),
    ("a type that is a number", made(dtype=16), ("dtype", "16")),
    ("a type that is None", made(dtype=None), ("dtype", "None")),
    ("trust in words", made(trust_remote_code="false"), ("trust_remote_code", "'false'")),
    ("trust in numbers", made(trust_remote_code=1), ("trust_remote_code", "1")),
]
if NO_GPU:
    MODELS.append(("a device that is not there", made(device="cuda"), ("device", "cuda")))

PROMPT_SOURCES: list[Case] = [
    ("nothing", made(prompts=None), ("prompts", "None")),
    ("a number", made(prompts=3), ("prompts", "int")),
    ("bytes", made(prompts=b"a b"), ("prompts", "bytes")),
    ("a mapping", made(prompts={"prompt": "a"}), ("prompts", "dict")),
    ("none of them", made(prompts=[]), ("prompts", "none")),
    ("an empty one", made(prompts=["a", ""]), ("prompt 2", "''")),
    ("a blank one", made(prompts=["  "]), ("prompt 1", "'  '")),
    ("a number among them", made(prompts=["a", 3]), ("prompt 2", "3")),
    ("None among them", made(prompts=[None]), ("prompt 1", "None")),
    ("bytes among them", made(prompts=[b"a"]), ("prompt 1", "b'a'")),
    ("a list among them", made(prompts=[["a"]]), ("prompt 1", "['a']")),
    ("half a surrogate pair", made(prompts=["a \ud800"]), ("prompt 1", "ud800")),
    ("a row without a prompt", made(prompts=[{"text": "a"}]), ("prompt 1", "text")),
    ("a row with a number", made(prompts=[{"prompt": 3}]), ("prompt 1", "3")),
    ("a row with None", made(prompts=[{"prompt": None}]), ("prompt 1", "None")),
    ("a chat without a template", made(prompts=[{"messages": [{"role": "user", "content": "a"}]}]), ("prompt 1",)),
    ("messages that are none", made(prompts=[{"messages": []}]), ("prompt 1",)),
    ("messages that are text", made(prompts=[{"messages": "a"}]), ("prompt 1",)),
    ("a file that is not there", made(prompts="no/such/file.jsonl"), ("no/such/file.jsonl",)),
    ("a limit of none", made(max_prompt_tokens=0), ("max_prompt_tokens", "0")),
    ("a limit below none", made(max_prompt_tokens=-1), ("max_prompt_tokens", "-1")),
    ("a limit between", made(max_prompt_tokens=2.5), ("max_prompt_tokens", "2.5")),
    ("a limit in text", made(max_prompt_tokens="8"), ("max_prompt_tokens", "'8'")),
    ("a limit that is a switch", made(max_prompt_tokens=True), ("max_prompt_tokens", "True")),
    ("one over the limit", made(max_prompt_tokens=2), ("prompt 1", "max_prompt_tokens = 2")),
    ("cut in the middle", made(prompt_truncation="middle"), ("truncation", "'middle'")),
    ("cut by None", made(prompt_truncation=None), ("truncation", "None")),
    ("cut by a list", made(prompt_truncation=["left"]), ("truncation", "['left']")),
    ("a file of broken rows", lambda w: made(prompts=w.file("p.jsonl", "{"))(w), ("p.jsonl, line 1", "'{'")),
    ("a file of numbers", lambda w: made(prompts=w.file("p.jsonl", "3\n"))(w), ("p.jsonl", "1")),
    ("a file of nothing", lambda w: made(prompts=w.file("p.jsonl", ""))(w), ("p.jsonl", "empty")),
    ("a file in Latin-1", lambda w: made(prompts=w.file("p.jsonl", b'{"prompt": "\xe9"}'))(w), ("p.jsonl", "UTF-8")),
    ("a deep file", lambda w: made(prompts=w.file("p.jsonl", "[" * 200_000))(w), ("p.jsonl", "line 1")),
    ("a huge number", lambda w: made(prompts=w.file("p.jsonl", '{"prompt": ' + "9" * 5000 + "}"))(w), ("p.jsonl",)),
    ("a surrogate in a file", lambda w: made(prompts=w.file("p.jsonl", '{"prompt": "\\ud800"}'))(w), ("ud800",)),
    ("a file that is no gzip", lambda w: made(prompts=w.file("p.jsonl.gz", "{}"))(w), ("p.jsonl.gz",)),
]

SETTINGS: list[Case] = [
    ("another mode", made(action_mode="tokens"), ("action_mode", "'tokens'")),
    ("no mode", made(action_mode=None), ("action_mode", "None")),
    ("a mode that is a list", made(action_mode=["token"]), ("action_mode", "['token']")),
    ("reward as a mapping", made(reward={"kl_coef": 0.1}), ("reward", "{'kl_coef': 0.1}")),
    ("reward as a number", made(reward=3), ("reward", "3")),
    ("reward of the other class", made(reward=SamplingConfig()), ("reward", "SamplingConfig")),
    ("sampling as a mapping", made(sampling={}), ("sampling", "{}")),
    ("sampling of the other class", made(sampling=RewardConfig()), ("sampling", "RewardConfig")),
    ("a coefficient in text", made(kl_coef="0.1"), ("kl_coef", "'0.1'")),
    ("a coefficient that is a switch", made(kl_coef=True), ("kl_coef", "True")),
    ("a coefficient that is no number", made(kl_coef=math.nan), ("kl_coef", "nan")),
    ("stop strings that are None", made(stop_strings=None), ("stop_strings", "None")),
    ("one stop string", made(stop_strings="END"), ("stop_strings", "'END'")),
    ("a stop token outside", made(stop_token_ids=[999]), ("stop_token_ids", "999")),
    ("a response past the context", made(max_new_tokens=10_000), ("max_new_tokens", "10000")),
    ("a misspelt setting", made(max_new_token=3), ("max_new_token", "Did you mean")),
    ("a setting of another library", made(frameskip=4), ("frameskip", "unexpected keyword argument")),
    ("both forms", made(reward=RewardConfig(), kl_coef=0.2), ("kl_coef", "not both")),
    ("a render mode", made(render_mode="human!"), ("render_mode", "human!")),
    ("no rows", made_vector(0), ("num_envs", "0")),
    ("fewer rows", made_vector(-1), ("num_envs", "-1")),
    ("a row and a half", made_vector(1.5), ("num_envs", "1.5")),
    ("rows in text", made_vector("2"), ("num_envs", "'2'")),
    ("rows that are a switch", lambda w: w.vector(True), ("num_envs", "True")),
    ("rows that are None", lambda w: w.vector(None), ("num_envs", "None")),
    ("more rows than there is memory", lambda w: w.vector(2**63), ("num_envs", str(2**63))),
    ("another autoreset", made_vector(autoreset_mode="later"), ("autoreset_mode", "'later'")),
    ("an autoreset that is a number", made_vector(autoreset_mode=3), ("autoreset_mode", "3")),
    ("an autoreset that is a list", made_vector(autoreset_mode=[1]), ("autoreset_mode", "[1]")),
    ("a task that is a number", lambda w: lm_gym.TextGenerationEnv(3), ("task", "3")),
    ("a task that is a model", lambda w: lm_gym.TextGenerationVectorEnv(make_model()), ("task", "GPT2LMHeadModel")),
    ("a reference that is a model", lambda w: TextTask.of(make_model(), ["a"]), ("reference", "GPT2LMHeadModel")),
    ("a reference that is a number", lambda w: TextTask.of(3, ["a"]), ("reference", "3")),
    ("a tokenizer of nothing", lambda w: TextTask.of(w.reference, ["a"], tokenizer=3), ("tokenizer", "3")),
    ("a render mode that is a list", lambda w: w.env(render_mode=["ansi"]), ("render_mode", "['ansi']")),
    ("a render mode that is a number", lambda w: w.vector(render_mode=3), ("render_mode", "3")),
]

RESETS: list[Case] = [
    ("a seed in text", lambda w: w.env().reset(seed="1"), ("seed", "'1'")),
    ("a seed below 0", lambda w: w.env().reset(seed=-1), ("seed", "-1")),
    ("a seed between", lambda w: w.env().reset(seed=1.5), ("seed", "1.5")),
    ("a seed that is a list", lambda w: w.env().reset(seed=[1, 2]), ("seed", "[1, 2]")),
    ("a seed that is a switch", lambda w: w.env().reset(seed=True), ("seed", "True")),
    ("options in text", lambda w: w.env().reset(options="x"), ("options", "'x'")),
    ("options in a list", lambda w: w.env().reset(options=["prompt"]), ("options", "['prompt']")),
    ("a misspelt option", lambda w: w.env().reset(options={"promt": "a"}), ("options", "promt", "prompt")),
    ("an unknown option", lambda w: w.env().reset(options={"low": 3}), ("options", "low")),
    ("an option that is a number", lambda w: w.env().reset(options={3: 4}), ("options", "3")),
    ("an option of the vector env", lambda w: w.env().reset(options={"reset_mask": [True]}), ("reset_mask",)),
    ("a prompt that is a number", lambda w: w.env().reset(options={"prompt": 3}), ("prompt", "3")),
    ("a prompt that is empty", lambda w: w.env().reset(options={"prompt": ""}), ("prompt", "''")),
    ("a prompt that is a list", lambda w: w.env().reset(options={"prompt": ["a"]}), ("prompt", "['a']")),
    ("a prompt with a surrogate", lambda w: w.env().reset(options={"prompt": "\ud800"}), ("prompt", "ud800")),
    ("a prompt that is too long", lambda w: w.env().reset(options={"prompt": "a " * 20}), ("prompt", "20")),
    ("a vector's seed in text", lambda w: w.vector().reset(seed="12"), ("seed", "'12'")),
    ("a vector's seed below 0", lambda w: w.vector().reset(seed=-1), ("seed", "-1")),
    ("one seed for two rows", lambda w: w.vector().reset(seed=[1]), ("seed", "1")),
    ("a seed between among two", lambda w: w.vector().reset(seed=[1, 2.5]), ("seed", "2.5")),
    ("a switch among two", lambda w: w.vector().reset(seed=[1, True]), ("seed", "True")),
    ("a seed below 0 among two", lambda w: w.vector().reset(seed=[1, -2]), ("seed", "-2")),
    ("a vector's unknown option", lambda w: w.vector().reset(options={"mask": 1}), ("options", "mask")),
    ("a mask that is a list", lambda w: w.vector().reset(options={"reset_mask": [True, True]}), ("reset_mask",)),
    ("a mask of numbers", lambda w: w.vector().reset(options={"reset_mask": np.array([1, 0])}), ("reset_mask",)),
    ("a mask of none", lambda w: w.vector().reset(options={"reset_mask": np.zeros(2, bool)}), ("reset_mask",)),
    ("a mask of three", lambda w: w.vector().reset(options={"reset_mask": np.ones(3, bool)}), ("reset_mask",)),
]


def pair(token: Any = 1, log_prob: Any = -1.0, **more: Any) -> dict[str, Any]:
    return {"token": token, "log_prob": log_prob, **more}


def stepped(action: Any) -> Callable[[Any], Any]:
    return lambda world: world.running().step(action)


def stepped_pair(action: Any) -> Callable[[Any], Any]:
    return lambda world: world.running(action_mode="token_and_log_prob").step(action)


def stepped_rows(action: Any) -> Callable[[Any], Any]:
    return lambda world: world.running_vector().step(action)


ACTIONS: list[Case] = [
    ("before reset", lambda w: w.env().step(1), ("reset",)),
    ("before a vector's reset", lambda w: w.vector().step(np.array([1, 1])), ("reset",)),
    ("none", stepped(None), ("action", "None")),
    ("a word", stepped("a"), ("action", "'a'")),
    ("a fraction", stepped(1.0), ("action", "1.")),
    ("below 0", stepped(-1), ("action", "-1")),
    ("past the vocabulary", stepped(32), ("action", "32")),
    ("far past the vocabulary", stepped(2**70), ("action", str(2**70))),
    ("a list", stepped([1]), ("action", "[1]")),
    ("an empty list", stepped([]), ("action", "[]")),
    ("a mapping", stepped({"token": 1}), ("action", "{'token'")),
    ("a switch", stepped(True), ("action", "True")),
    ("no number", stepped(math.nan), ("action", "nan")),
    ("a complex number", stepped(1j), ("action", "1.j")),
    ("bytes", stepped(b"1"), ("action", "b'1'")),
    ("a token alone", stepped_pair(1), ("action", "log_prob")),
    ("no log_prob", stepped_pair({"token": 1}), ("action", "{'token': ")),
    ("one key more", stepped_pair(pair(value=1)), ("action", "value")),
    ("log_prob -inf", stepped_pair(pair(log_prob=-math.inf)), ("log_prob", "-inf")),
    ("log_prob nan", stepped_pair(pair(log_prob=math.nan)), ("log_prob", "nan")),
    ("log_prob above 0", stepped_pair(pair(log_prob=0.5)), ("log_prob", "0.5")),
    ("log_prob far below", stepped_pair(pair(log_prob=-1e30)), ("log_prob", "-1e+30")),
    ("log_prob below the space", stepped_pair(pair(log_prob=-10001.0)), ("log_prob", "-10001")),
    ("log_prob in text", stepped_pair(pair(log_prob="-1")), ("log_prob", "'-1'")),
    ("log_prob None", stepped_pair(pair(log_prob=None)), ("log_prob", "None")),
    ("log_prob complex", stepped_pair(pair(log_prob=1j)), ("log_prob", "1.j")),
    ("log_prob a switch", stepped_pair(pair(log_prob=False)), ("log_prob", "False")),
    ("two log_probs", stepped_pair(pair(log_prob=[-1.0, -2.0])), ("log_prob", "2)")),
    ("a token in text beside log_prob", stepped_pair(pair(token="1")), ("action", "'1'")),
    ("one action for two rows", stepped_rows(np.array([1])), ("action", "(1,)")),
    ("a scalar for two rows", stepped_rows(1), ("action", "1")),
    ("fractions for rows", stepped_rows(np.array([1.0, 2.0])), ("action", "float")),
    ("an outsider among rows", stepped_rows(np.array([1, 99])), ("action", "99", "row 1")),
    ("ragged rows", stepped_rows([[1], [1, 2]]), ("action", "[[1], [1, 2]]")),
    ("words for rows", stepped_rows(["a", "b"]), ("action", "'a'")),
]


def compared_with(world: Any, episodes: Any) -> Any:
    return lm_gym.evaluate(world.policy, world.vector(), ["a"], reference_episodes=episodes)


def paid(**changes: Any) -> Any:
    good: dict[str, Any] = {name: np.zeros((1, 1)) for name in ("log_probs", "ref_log_probs")}
    good |= {name: np.ones((1, 1), bool) for name in ("response_mask", "last_token")}
    return lm_gym.token_rewards(**good | {"paid": np.ones(1), "kl_coef": 0.1} | changes)


def solved(**changes: Any) -> Any:
    good: dict[str, Any] = {"reference": None, "reward_config": RewardConfig(), "sampling": SamplingConfig()}
    good |= changes
    reference = lm_gym.Reference(tiny_language_model()) if good["reference"] is None else good["reference"]
    return solve(reference, length_score, "a", **{name: one for name, one in good.items() if name != "reference"})


POWERS: list[Case] = [
    ("a policy that is a number", lambda w: w.vector().rollout(3), ("Policy", "int")),
    ("no policy", lambda w: w.vector().rollout(None), ("Policy", "NoneType")),
    ("a policy that is a model", lambda w: w.vector().rollout(make_model()), ("Policy", "GPT2LMHeadModel")),
    ("no episodes", lambda w: w.vector().rollout(w.policy, 0), ("rollout", "0")),
    ("fewer episodes", lambda w: w.vector().rollout(w.policy, -4), ("rollout", "-4")),
    ("an episode and a half", lambda w: w.vector().rollout(w.policy, 1.5), ("rollout", "1.5")),
    ("episodes in text", lambda w: w.vector().rollout(w.policy, "2"), ("rollout", "'2'")),
    ("no samples", lambda w: w.vector().rollout(w.policy, 2, samples_per_prompt=0), ("samples_per_prompt", "0")),
    ("half a group", lambda w: w.vector().rollout(w.policy, 3, samples_per_prompt=2), ("rollout", "3", "2")),
    (
        "samples between",
        lambda w: w.vector().rollout(w.policy, 3, samples_per_prompt=1.5),
        ("samples_per_prompt", "1.5"),
    ),
    ("no prompts", lambda w: w.vector().rollout_on(w.policy, []), ("prompt", "none")),
    ("one text for prompts", lambda w: w.vector().rollout_on(w.policy, "a b"), ("prompts", "'a b'")),
    ("None for prompts", lambda w: w.vector().rollout_on(w.policy, None), ("prompts", "None")),
    ("a number among prompts", lambda w: w.vector().rollout_on(w.policy, ["a", 3]), ("prompt", "3")),
    ("a policy to evaluate", lambda w: lm_gym.evaluate(3, w.vector(), ["a"]), ("Policy", "int")),
    ("an env to evaluate in", lambda w: lm_gym.evaluate(w.policy, 3, ["a"]), ("evaluate", "int")),
    ("no prompts to evaluate on", lambda w: lm_gym.evaluate(w.policy, w.vector(), []), ("prompt", "none")),
    ("a text to evaluate on", lambda w: lm_gym.evaluate(w.policy, w.vector(), "a b"), ("prompts", "'a b'")),
    ("a seed in text", lambda w: lm_gym.evaluate(w.policy, w.vector(), ["a"], seed="1"), ("seed", "'1'")),
    ("a seed below 0", lambda w: lm_gym.evaluate(w.policy, w.vector(), ["a"], seed=-1), ("seed", "-1")),
    ("a coefficient in text", lambda w: setattr(w.env(), "kl_coef", "x"), ("kl_coef", "'x'")),
    ("a coefficient below 0", lambda w: setattr(w.env(), "kl_coef", -1), ("kl_coef", "-1")),
    ("a coefficient of None", lambda w: setattr(w.env(), "kl_coef", None), ("kl_coef", "None")),
    ("a reward model of 3", lambda w: setattr(w.env(), "reward_model", 3), ("reward model", "3")),
    ("a state that is a number", lambda w: w.env().load_state_dict(3), ("environment state", "3")),
    ("an empty state", lambda w: w.env().load_state_dict({}), ("environment state", "{}")),
    ("a vector's empty state", lambda w: w.vector().load_state_dict({}), ("environment state", "{}")),
    ("the state of three rows", lambda w: w.vector().load_state_dict(w.vector(3).state_dict()), ("2", "3")),
    ("a reference of a number", lambda w: lm_gym.Reference(3), ("Reference: language_model", "3")),
    ("a reference of a model", lambda w: lm_gym.Reference(make_model()), ("Reference: language_model", "GPT2LMHead")),
    ("episodes to compare", lambda w: compared_with(w, 3), ("evaluate: reference_episodes", "3")),
    ("no rewards", lambda w: paid(paid=None), ("paid", "None")),
    ("a mask in a list", lambda w: paid(response_mask=[[True]]), ("response_mask", "[[True]]")),
    ("log-probabilities of a number", lambda w: paid(log_probs=3), ("log_probs", "3")),
    ("a coefficient of nan", lambda w: paid(kl_coef=math.nan), ("kl_coef", "nan")),
    ("a solver of a number", lambda w: solved(reference=3), ("solver: reference", "3")),
    ("a solver without rules", lambda w: solved(sampling=None), ("solver: sampling", "None")),
    ("a solver's payment", lambda w: solved(reward_config={}), ("solver: reward_config", "{}")),
    ("half a draw", lambda w: solved(reward_draws=1.5), ("solver: reward_draws", "1.5")),
    ("no responses", lambda w: solved(max_responses=0), ("solver: max_responses", "0")),
    ("a return without a problem", lambda w: expected_return(w.policy, None), ("mdp", "None")),
    ("a share of nothing", lambda w: share_closed(w.policy, 3), ("share_closed: solution", "3")),
    ("a table of None", lambda w: policy_value(None, None), ("policy_value: mdp", "None")),
    ("a contract without texts", lambda w: check_reward_model(length_score, prompts=None), ("prompts", "None")),
    ("a contract within nan", lambda w: check_reward_model(length_score, atol=math.nan), ("atol", "nan")),
    ("a contract's columns", lambda w: check_reward_model(length_score, columns=[1]), ("columns", "[1]")),
    ("a tiny model of another kind", lambda w: tiny_language_model("gpt"), ("architecture", "'gpt'")),
    ("a tiny model's seed", lambda w: tiny_language_model(seed="0"), ("seed", "'0'")),
    ("a vocabulary of one", lambda w: tiny_tokenizer(1), ("vocab_size", "1")),
    ("half a review", lambda w: reviews.demonstrations(1.5, 0), ("reviews: size", "1.5")),
    ("a review's seed of None", lambda w: reviews.demonstrations(1, None), ("reviews: seed", "None")),
    ("no prompts to load", lambda w: lm_gym.load_prompts(None, make_tokenizer()), ("prompts", "None")),
    ("a tokenizer to load with", lambda w: lm_gym.load_prompts(["a"], 3), ("tokenizer", "3")),
]

ALL = [
    pytest.param(call, words, id=f"{group}: {name}")
    for group, cases in (
        ("models", MODELS),
        ("prompts", PROMPT_SOURCES),
        ("settings", SETTINGS),
        ("reset", RESETS),
        ("step", ACTIONS),
        ("rollout", POWERS),
    )
    for name, call, words in cases
]


@pytest.mark.parametrize(("call", "words"), ALL)
def test_a_bad_input_is_named(world: Any, refuses: Any, call: Any, words: tuple[str, ...]) -> None:
    refuses(world, call, words)
