"""Bad inputs of policies, agents, training functions and the run folders that they leave."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import PROMPTS, gpt2_parts, length_score, make_model, make_tokenizer, vector_env

from lm_gym import AdaptiveKL, LanguageModel
from lm_gym.agents import (
    GAE,
    PPO,
    JsonlTracker,
    LanguageModelPolicy,
    PPOConfig,
    PretrainConfig,
    ProgressDisplay,
    RewardToGo,
    SupervisedConfig,
    SurrogateAgent,
    TensorBoardTracker,
    pretrain,
    supervised_finetune,
    train,
)
from lm_gym.models.language_model import load_tokenizer, load_weights
from lm_gym.runs import RunIdentity, open_run
from lm_gym.runs.manifests import check_manifest

Case = tuple[str, Callable[[Any], Any], tuple[str, ...]]
ROWS = [{"prompt": "a", "completion": "b"}]


def trained(**settings: Any) -> Callable[[Any], Any]:
    """``train`` for one iteration, with one thing wrong."""

    def call(world: Any) -> Any:
        found = {"agent": world.agent, "env": world.vector(), "iterations": 1, "progress": False, **settings}
        return train(found.pop("agent"), found.pop("env"), **found)

    return call


def tuned(**settings: Any) -> Callable[[Any], Any]:
    def call(world: Any) -> Any:
        model, tokenizer = gpt2_parts()
        good = {"model": model.requires_grad_(True), "rows": ROWS, "out": world.tmp / "out", "tokenizer": tokenizer}
        good |= {"progress": False, "config": SupervisedConfig(epochs=1, device="cpu")} | settings
        return supervised_finetune(good.pop("model"), good.pop("rows"), good.pop("out"), good.pop("config"), **good)

    return call


def pretrained(**settings: Any) -> Callable[[Any], Any]:
    def call(world: Any) -> Any:
        tiny = PretrainConfig(n_layer=1, n_embd=8, n_head=1, context=8, vocab_size=257, max_steps=1, device="cpu")
        good = {"texts": ["a b c d e f g"] * 9, "out": world.tmp / "out", "config": tiny, "progress": False} | settings
        return pretrain(good.pop("texts"), good.pop("out"), good.pop("config"), **good)

    return call


POLICIES: list[Case] = [
    ("a number", lambda w: LanguageModelPolicy(3), ("LanguageModelPolicy", "int")),
    ("a model of transformers", lambda w: LanguageModelPolicy(make_model()), ("LanguageModelPolicy", "GPT2LMHead")),
    ("a critic in words", lambda w: fresh(separate_critic="no"), ("separate_critic", "'no'")),
    ("a critic in numbers", lambda w: fresh(separate_critic=1), ("separate_critic", "1")),
    ("a language model of numbers", lambda w: LanguageModel(3, 4), ("language model", "3")),
    ("a tokenizer that is a number", lambda w: LanguageModel(make_model(), 4), ("tokenizer", "4")),
    ("a type of whole numbers", lambda w: LanguageModel(*gpt2_parts(), dtype="int8"), ("dtype", "'int8'")),
    ("load a number", lambda w: LanguageModelPolicy.from_pretrained(3), ("model", "3")),
    ("load a model that is there", lambda w: load_there(*gpt2_parts()), ("name_or_path", "GPT2LMHead")),
    ("load weights of a number", lambda w: load_weights(3), ("language model", "3")),
    ("load weights of nothing", lambda w: load_weights(None), ("language model", "None")),
    ("load the tokenizer of a number", lambda w: load_tokenizer(3), ("tokenizer", "3")),
    ("load the tokenizer of no name", lambda w: load_tokenizer(""), ("tokenizer", "''")),
    ("load nothing", lambda w: LanguageModelPolicy.from_pretrained(None), ("model", "None")),
    ("load no folder", lambda w: LanguageModelPolicy.from_pretrained("./nope"), ("./nope",)),
    ("load an empty folder", lambda w: LanguageModelPolicy.from_pretrained(w.tmp), ("must be a folder",)),
    ("load to no device", lambda w: LanguageModelPolicy.from_pretrained(w.saved_policy(), device="gpu"), ("'gpu'",)),
    ("load as int8", lambda w: LanguageModelPolicy.from_pretrained(w.saved_policy(), dtype="int8"), ("'int8'",)),
    ("load a critic in words", lambda w: loaded(w, separate_critic="no"), ("separate_critic", "'no'")),
    ("trust in words", lambda w: loaded(w, trust_remote_code="no"), ("trust_remote_code", "'no'")),
    ("a card that is cut", lambda w: loaded(w, card="{"), ("lm_gym_policy.json",)),
    ("a card that is a list", lambda w: loaded(w, card="[]"), ("lm_gym_policy.json", "[]")),
    ("a card that is a number", lambda w: loaded(w, card="3"), ("lm_gym_policy.json", "3")),
    ("a card of nothing", lambda w: loaded(w, card="{}"), ("lm_gym_policy.json", "separate_critic")),
    ("a card in words", lambda w: loaded(w, card='{"separate_critic": "no"}'), ("lm_gym_policy.json", "'no'")),
    ("a deep card", lambda w: loaded(w, card="[" * 200_000), ("lm_gym_policy.json",)),
    ("a card in Latin-1", lambda w: loaded(w, card=b"\xe9"), ("lm_gym_policy.json",)),
    ("a damaged value head", lambda w: loaded(w, critic=b"xx"), ("critic.safetensors",)),
    ("weights of a number", lambda w: w.policy.load_weights(3), ("policy", "3")),
    ("weights of an empty folder", lambda w: w.policy.load_weights(w.tmp), ("lm_gym_manifest.json",)),
    ("save to a number", lambda w: w.policy.save_pretrained(3), ("3",)),
    ("save below a file", lambda w: w.policy.save_pretrained(w.file("f", "") / "x"), ("f/x",)),
    ("a sampler of a number", lambda w: PPO(w.policy, sampler=3), ("Sampler", "int")),
    ("episodes of None", lambda w: w.agent.update(None), ("PPO.update: episodes", "None")),
    ("episodes of a number", lambda w: w.policy.log_probs_and_values(3), ("episodes", "3")),
    ("no tokens at a time", lambda w: w.policy.log_probs_and_values_in_batches(None, 0), ("episodes", "None")),
    ("an observation of None", lambda w: w.policy.act(None, w.env().sampling), ("act: observation", "None")),
    ("an observation of nothing", lambda w: w.policy.act({}, w.env().sampling), ("act: observation", "{}")),
    ("rules of None", lambda w: w.policy.act(w.env().reset(seed=0)[0], None), ("act: sampling", "None")),
    ("a tracker's path of None", lambda w: JsonlTracker(None), ("JsonlTracker: path", "None")),
    ("a tracker's long path", lambda w: JsonlTracker("x" * 300), ("JsonlTracker: path", "255 bytes")),
    ("a tracker's folder of a number", lambda w: TensorBoardTracker(3), ("TensorBoardTracker: folder", "3")),
    ("a title of None", lambda w: ProgressDisplay(None), ("ProgressDisplay: title", "None")),
    ("a console of a number", lambda w: ProgressDisplay(console=3), ("ProgressDisplay: console", "3")),
    ("processes in a number", lambda w: PPO(w.policy, processes=2), ("PPO: processes", "2")),
    ("a state of a number", lambda w: w.agent.load_state_dict(3), ("PPO state", "3")),
    ("an empty state", lambda w: w.agent.load_state_dict({}), ("PPO state", "{}")),
    ("a state without an optimiser", lambda w: with_state(w, optimizer=None), ("PPO state: optimizer", "None")),
    ("an optimiser of nothing", lambda w: with_state(w, optimizer={}), ("PPO state: optimizer", "{}")),
    ("a generator of nothing", lambda w: with_state(w, rng={}), ("PPO state: rng", "{}")),
    ("an agent of a number", lambda w: PPO(3), ("PPO.policy", "int")),
    ("load an agent of a number", lambda w: PPO.load(3), ("PPO.load: folder", "3")),
    ("load an agent of no name", lambda w: PPO.load(""), ("PPO.load: folder", "''")),
    ("save an agent to a number", lambda w: PPO(w.policy).save(3), ("PPO.save: folder", "3")),
    ("save an agent to no name", lambda w: PPO(w.policy).save(""), ("PPO.save: folder", "''")),
    ("an agent without settings", lambda w: SurrogateAgent(w.policy, 3, estimator=GAE()), ("config", "3")),
    ("progress in words", lambda w: PPO(w.policy).learn(w.vector(), progress="x"), ("learn: progress", "'x'")),
    ("progress past the end", lambda w: PPO(w.policy).learn(w.vector(), progress=1.0), ("learn: progress", "1.0")),
    ("an agent of a model", lambda w: PPO(make_model()), ("PPO.policy", "GPT2LMHeadModel")),
    ("settings in a mapping", lambda w: PPO(w.policy, {"epochs": 1}), ("PPO: config", "{'epochs': 1}")),
    ("an empty mapping", lambda w: PPO(w.policy, {}), ("PPO: config", "{}")),
    ("settings of another class", lambda w: PPO(w.policy, SupervisedConfig()), ("PPO: config", "SupervisedConfig")),
    ("an estimator that is a number", lambda w: PPO(w.policy, estimator=3), ("estimator", "3")),
    ("an estimator's class", lambda w: PPO(w.policy, estimator=GAE), ("estimator", "GAE")),
    ("gamma in text", lambda w: GAE(gamma="1"), ("GAE.gamma", "'1'")),
    ("lambda past 1", lambda w: GAE(lam=2), ("GAE.lam", "2")),
    ("gamma nan", lambda w: RewardToGo(gamma=math.nan), ("RewardToGo.gamma", "nan")),
]


def with_state(world: Any, **parts: Any) -> None:
    world.agent.load_state_dict(world.agent.state_dict() | parts)


def fresh(**settings: Any) -> LanguageModelPolicy:
    return LanguageModelPolicy(LanguageModel(make_model().requires_grad_(True), make_tokenizer()), **settings)


def load_there(model: Any, tokenizer: Any) -> LanguageModelPolicy:
    return LanguageModelPolicy.from_pretrained(model, tokenizer=tokenizer)


def loaded(world: Any, *, card: str | bytes | None = None, critic: bytes | None = None, **settings: Any) -> Any:
    folder = world.saved_policy()
    if card is not None:
        world.file(f"{folder.name}/lm_gym_policy.json", card)
    if critic is not None:
        (folder / "lm_gym_manifest.json").unlink()
        world.file(f"{folder.name}/critic.safetensors", critic)
    return LanguageModelPolicy.from_pretrained(folder, device="cpu", **settings)


TRAINING: list[Case] = [
    ("an agent that is a number", trained(agent=3), ("train", "agent", "3")),
    ("an agent that is a policy", lambda w: trained(agent=w.policy)(w), ("agent", "LanguageModelPolicy")),
    ("an env that is a number", trained(env=3), ("train", "int")),
    ("no env", trained(env=None), ("train", "NoneType")),
    ("no iterations", trained(iterations=0), ("iterations", "0")),
    ("fewer iterations", trained(iterations=-1), ("iterations", "-1")),
    ("an iteration and a half", trained(iterations=1.5), ("iterations", "1.5")),
    ("a whole fraction", trained(iterations=2.0), ("iterations", "2.0")),
    ("iterations in text", trained(iterations="1"), ("iterations", "'1'")),
    ("iterations as a switch", trained(iterations=True), ("iterations", "True")),
    ("iterations of None", trained(iterations=None), ("iterations", "None")),
    ("eval_every of 0", trained(eval_every=0), ("eval_every", "0")),
    ("eval_every between", trained(eval_every=1.5), ("eval_every", "1.5")),
    ("checkpoint_every of 0", trained(checkpoint_every=0), ("checkpoint_every", "0")),
    ("checkpoint_every in text", trained(checkpoint_every="5"), ("checkpoint_every", "'5'")),
    ("one text to evaluate on", trained(eval_prompts="a b"), ("prompts", "'a b'")),
    ("numbers to evaluate on", trained(eval_prompts=[3]), ("prompt", "3")),
    ("None to evaluate on", trained(eval_prompts=None), ("prompts", "None")),
    ("a number for a controller", trained(adaptive_kl=6.0), ("adaptive_kl", "6.0")),
    ("a controller without a KL", lambda w: without_kl(w), ("adaptive_kl", "kl_coef = 0")),
    ("a number for callbacks", trained(callbacks=3), ("callbacks", "3")),
    ("numbers for callbacks", trained(callbacks=[3]), ("callback", "3")),
    ("metrics of None", lambda w: mine(w, None), ("Mine.learn", "None")),
    ("metrics in a list", lambda w: mine(w, [0.5]), ("Mine.learn", "[0.5]")),
    ("a metric in text", lambda w: mine(w, {"score": "high"}), ("Mine.learn", "'score'", "'high'")),
    ("a metric in a tensor", lambda w: mine(w, {"loss": torch.ones(1)}), ("Mine.learn", "'loss'", "float(x)")),
    ("a metric under a number", lambda w: mine(w, {3: 0.5}), ("Mine.learn", "3")),
    (
        "no kl to control",
        lambda w: mine(w, {"score": 1.0}, kl=True),
        ("Mine.learn", "'kl'", "['score']", "adaptive_kl"),
    ),
    ("no episodes to control", lambda w: mine(w, {"kl": 1.0}, None, kl=True), ("Mine.learn", "last_episodes", "kl")),
    ("episodes of a number", lambda w: mine(w, {"kl": 1.0}, 3), ("Mine.last_episodes", "3")),
    ("further metrics of None", trained(episode_metrics=lambda episodes: None), ("episode_metrics", "None")),
    ("a further metric in text", trained(episode_metrics=lambda episodes: {"a": "b"}), ("episode_metrics", "'b'")),
    ("a number for metrics", trained(episode_metrics=3), ("episode_metrics", "3")),
    ("a tracker in words", trained(tensorboard="no"), ("tensorboard", "'no'")),
    ("progress in words", trained(progress="no"), ("progress", "'no'")),
    ("a seed in text", trained(seed="x"), ("seed", "'x'")),
    ("a seed below 0", trained(seed=-1), ("seed", "-1")),
    ("a seed between", trained(seed=1.5), ("seed", "1.5")),
    ("resume in words", trained(resume="no"), ("resume", "'no'")),
    ("overwrite in words", trained(overwrite="no"), ("overwrite", "'no'")),
    ("resume of nowhere", trained(resume=True), ("resume", "run_dir")),
    ("a folder that is a number", trained(run_dir=3), ("run_dir", "3")),
    ("a folder that is a switch", trained(run_dir=True), ("run_dir", "True")),
    ("a folder that is a file", lambda w: trained(run_dir=w.file("f", "x"))(w), ("output folder", "f")),
    ("a folder below a file", lambda w: trained(run_dir=w.file("f", "x") / "r")(w), ("output folder", "f/r")),
    ("somebody's folder", lambda w: trained(run_dir=w.file("own/x", "x").parent)(w), ("output folder", "holds x")),
    ("both flags", lambda w: trained(run_dir=w.tmp / "r", resume=True, overwrite=True)(w), ("resume", "overwrite")),
    ("a marker that is cut", lambda w: resumed(w, "lm_gym_run.json", "{"), ("lm_gym_run.json",)),
    ("a marker that is a list", lambda w: resumed(w, "lm_gym_run.json", "[]"), ("lm_gym_run.json",)),
    ("a marker of nothing", lambda w: resumed(w, "lm_gym_run.json", "{}"), ("lm_gym_run.json", "format")),
    ("a deep marker", lambda w: resumed(w, "lm_gym_run.json", "[" * 200_000), ("lm_gym_run.json",)),
    ("a marker in Latin-1", lambda w: resumed(w, "lm_gym_run.json", b"\xe9"), ("lm_gym_run.json",)),
    ("a damaged metrics line", lambda w: resumed_run(w, '{"iteration": 0, "kl": }\n'), ("metrics.jsonl",)),
    ("a metrics line of nothing", lambda w: resumed_run(w, "{}\n"), ("metrics.jsonl", "iteration")),
    ("a metrics line in words", lambda w: resumed_run(w, '{"iteration": "x"}\n'), ("metrics.jsonl",)),
    ("metrics in Latin-1", lambda w: resumed_run(w, b"\xe9}\n"), ("metrics.jsonl",)),
]


def mine(world: Any, metrics: Any, episodes: Any = ..., *, kl: bool = False) -> Any:
    """``train`` for an agent of a user's own that returns these metrics and keeps these episodes."""

    class Mine:
        policy, last_episodes = world.policy, None

        def learn(self, env: Any, *, progress: float) -> Any:
            self.last_episodes = env.rollout(self.policy, 2) if episodes is ... else episodes
            return metrics

        def settings(self) -> dict[str, Any]:
            return {}

    controller = AdaptiveKL(target=1) if kl else None
    return train(Mine(), world.vector(kl_coef=0.1), iterations=1, adaptive_kl=controller, progress=False)


def without_kl(world: Any) -> Any:
    env = vector_env(2, world.reference, PROMPTS, length_score, max_new_tokens=3, kl_coef=0)
    return train(world.agent, env, iterations=1, adaptive_kl=AdaptiveKL(target=1), progress=False)


def resumed(world: Any, name: str, text: str | bytes) -> Any:
    world.file(f"run/{name}", text)
    return trained(run_dir=world.tmp / "run", resume=True)(world)


def resumed_run(world: Any, metrics: str | bytes) -> Any:
    """Take up a run that was stopped after its first iteration, with other lines of metrics."""

    class Stop(Exception):
        pass

    def stop(episodes: Any) -> Any:
        if world.agent.last_episodes is not None and stop.calls:  # type: ignore[attr-defined]
            raise Stop
        stop.calls = 1  # type: ignore[attr-defined]
        return {}

    stop.calls = 0  # type: ignore[attr-defined]
    settings = {"iterations": 2, "run_dir": world.tmp / "run", "tensorboard": False}
    with pytest.raises(Stop):
        trained(**settings, episode_metrics=stop)(world)
    world.file("run/metrics.jsonl", metrics)
    del world.__dict__["agent"], world.__dict__["policy"]
    return trained(**settings, resume=True)(world)


SUPERVISED: list[Case] = [
    ("a model that is a number", tuned(model=3), ("model", "3")),
    ("no model", tuned(model=None), ("model", "None")),
    ("no folder", tuned(model="./nope"), ("./nope",)),
    ("a model without a tokenizer", tuned(tokenizer=None), ("tokenizer",)),
    ("a tokenizer that is a number", tuned(tokenizer=3), ("tokenizer", "3")),
    ("rows that are a number", tuned(rows=3), ("training rows", "int")),
    ("no rows", tuned(rows=[]), ("training rows", "0")),
    ("rows of numbers", tuned(rows=[3]), ("row 1", "int")),
    ("a row of another form", tuned(rows=[{"text": 3}]), ("row 1",)),
    ("a completion that is a number", tuned(rows=[{"prompt": "a", "completion": 3}]), ("row 1", "3")),
    ("an empty completion", tuned(rows=[{"prompt": "a", "completion": ""}]), ("row 1", "''")),
    ("half a surrogate pair", tuned(rows=[{"prompt": "a", "completion": "\ud800"}]), ("row 1", "ud800")),
    ("a file that is not there", tuned(rows="nope.jsonl"), ("nope.jsonl",)),
    ("settings in a mapping", tuned(config={"epochs": 1}), ("config", "{'epochs': 1}")),
    ("settings of another class", tuned(config=PPOConfig()), ("config", "PPOConfig")),
    ("a folder that is a number", tuned(out=3), ("folder", "3")),
    ("no folder to write to", tuned(out=None), ("folder", "None")),
    ("overwrite in words", tuned(overwrite="no"), ("overwrite", "'no'")),
    ("resume in words", tuned(resume="no"), ("resume", "'no'")),
    ("progress in words", tuned(progress="no"), ("progress", "'no'")),
    ("eval rows of a number", tuned(eval_rows=3), ("eval_rows", "int")),
    ("texts that are a number", pretrained(texts=3), ("3",)),
    ("no texts", pretrained(texts=[]), ("none",)),
    ("texts of numbers", pretrained(texts=[3]), ("text 1", "int")),
    ("bytes for texts", pretrained(texts=b"abc"), ("texts", "b'abc'")),
    ("a text file that is not there", pretrained(texts=Path("nope.txt")), ("nope.txt",)),
    ("one letter", pretrained(texts=["a"]), ("text",)),
    ("settings of pretraining in a mapping", pretrained(config={}), ("config", "{}")),
    ("a folder of pretraining that is a number", pretrained(out=3), ("folder", "3")),
    ("pretraining to resume in words", pretrained(resume="no"), ("resume", "'no'")),
]

FOLDERS: list[Case] = [
    ("an identity of a number", lambda w: open_run(w.tmp / "r", 3), ("identity", "3")),
    ("an identity with a tensor", lambda w: identity(x=torch.ones(1)), ("RunIdentity", "x")),
    ("an identity with a surrogate", lambda w: identity(x="\ud800"), ("RunIdentity", "ud800")),
    ("an identity of kind 3", lambda w: RunIdentity(kind=3), ("RunIdentity", "3")),
    ("an identity with settings in a list", lambda w: RunIdentity(kind="x", settings=[1]), ("RunIdentity", "[1]")),
    ("a folder of a number", lambda w: open_run(3, identity()), ("run", "3")),
    ("a folder of None", lambda w: open_run(None, identity()), ("run", "None")),
    ("a folder without a name", lambda w: open_run("", identity()), ("run",)),
    ("the root", lambda w: open_run("/", identity()), ("run /",)),
    ("a surrogate's folder", lambda w: open_run(w.tmp / "\ud800", identity()), ("ud800",)),
    ("a very long name", lambda w: open_run(w.tmp / ("x" * 300), identity()), ("run folder", "x" * 100, "255 bytes")),
    ("resume in words", lambda w: open_run(w.tmp / "r", identity(), resume="no"), ("resume", "'no'")),
    ("a manifest that is cut", lambda w: manifest(w, "{"), ("lm_gym_manifest.json",)),
    ("a manifest that is a list", lambda w: manifest(w, "[]"), ("lm_gym_manifest.json",)),
    ("a deep manifest", lambda w: manifest(w, "[" * 200_000), ("lm_gym_manifest.json",)),
    ("a manifest of another version", lambda w: manifest(w, '{"format": 99}'), ("lm_gym_manifest.json", "99")),
    ("a manifest of no files", lambda w: manifest(w, '{"format": 1, "files": 3, "note": {}}'), ("manifest.json",)),
    ("a file of no size", lambda w: manifest(w, json.dumps(SIZELESS), own="x"), ("lm_gym_manifest.json", "size")),
    ("a file that is gone", lambda w: manifest(w, json.dumps(GONE)), ("own", "missing")),
]
GONE = {"format": 1, "files": {"own": {"size": 1, "sha256": "x"}}, "note": {}}
SIZELESS = {"format": 1, "files": {"own": {}}, "note": {}}


def identity(**settings: Any) -> RunIdentity:
    return RunIdentity(kind="test", settings=settings)


def manifest(world: Any, text: str, own: str | None = None) -> Any:
    if own is not None:
        world.file("folder/own", own)
    return check_manifest(world.file("folder/lm_gym_manifest.json", text).parent)


ALL = [
    pytest.param(call, words, id=f"{group}: {name}")
    for group, cases in (
        ("policies", POLICIES),
        ("train", TRAINING),
        ("supervised", SUPERVISED),
        ("run folders", FOLDERS),
    )
    for name, call, words in cases
]


@pytest.mark.parametrize(("call", "words"), ALL)
def test_a_bad_input_of_training_is_named(world: Any, refuses: Any, call: Any, words: tuple[str, ...]) -> None:
    refuses(world, call, words)
