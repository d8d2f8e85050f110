"""Handles: how strings and callables become reward models and shared language models."""

import json
import sys
import types
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from tiny_models import gpt2_parts, length_score, make_model, make_tokenizer

from lm_gym import FunctionRewardModel, RewardModel, Scores, load_language_model, load_reward_model
from lm_gym.errors import ArtifactError, ConfigError, ModelLoadError, RewardModelError
from lm_gym.scoring.handles import REWARD_MODEL_RECORD, import_attribute, is_import_path

TEXT = "lm_gym/TextGeneration-v0"


class Constant:
    """A reward model with a name and nothing to configure."""

    name = "constant"

    def __init__(self, value: float = 3.0) -> None:
        self.value = value

    def score(self, prompts: list[str], responses: list[str]) -> Scores:
        return Scores.of([self.value] * len(responses))


class Declared(RewardModel):
    """One that says all there is to say about it."""

    def score(self, prompts: list[str], responses: list[str]) -> Scores:  # type: ignore[override]
        return Scores.of([1.0] * len(responses))


class Network(torch.nn.Module):
    """A reward model that is also callable, as every torch module is."""

    def score(self, prompts: list[str], responses: list[str]) -> Scores:
        return Scores.of(np.ones(len(responses)))

    def forward(self, x: Any) -> Any:
        return x


class NeedsArguments(Constant):
    def __init__(self, value: float) -> None:
        super().__init__(value)


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    made = types.ModuleType("handle_targets")
    contents: dict[str, Any] = {
        "function": length_score,
        "instance": Constant(2.0),
        "cls": Constant,
        "factory": lambda: Constant(5.0),
        "defaults": lambda value=7.0: Constant(value),
        "network": Network(),
        "partial": partial(Constant, 8.0),
        "needs": NeedsArguments,
        "number": 3,
    }
    vars(made).update(contents)
    monkeypatch.setitem(sys.modules, "handle_targets", made)
    return made


def value_of(model: RewardModel) -> float:
    return float(model.score(["p"], ["a b c d"]).value[0])


def test_a_function_is_wrapped_and_a_reward_model_is_returned_as_it_is() -> None:
    constant = Declared()
    assert load_reward_model(constant) is constant
    wrapped = load_reward_model(length_score)
    assert isinstance(wrapped, FunctionRewardModel)
    assert value_of(wrapped) == 4.0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("function", 4.0),
        ("instance", 2.0),
        ("cls", 3.0),
        ("factory", 5.0),
        ("defaults", 7.0),
        ("network", 1.0),
        ("partial", 8.0),
    ],
)
def test_module_and_attribute_resolve_whatever_kind_it_is(name: str, value: float, module: types.ModuleType) -> None:
    assert value_of(load_reward_model(f"handle_targets:{name}")) == value


def test_an_instance_behind_a_handle_is_not_copied(module: types.ModuleType) -> None:
    assert load_reward_model("handle_targets:instance").model is module.instance  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("handle", "error", "text"),
    [
        ("handle_targets:missing", ConfigError, "handle 'handle_targets:missing': must name an importable"),
        ("no_such_module_here:thing", ConfigError, "must name an importable module:attribute; No module named"),
        ("handle_targets:number", RewardModelError, r"must have a method score\(prompts, responses\) or be a function"),
        ("handle_targets:needs", ConfigError, "handle_targets:needs.*value"),
        ("nonesuch", ConfigError, r"reward model 'nonesuch': must be a saved .* registered names \[.*'oracle'.*\]"),
        ("preference", ConfigError, r"'preference': must need no arguments to go by its name, .* give the folder"),
    ],
)
def test_a_handle_that_names_no_reward_model_is_refused(
    handle: str, error: type[Exception], text: str, module: types.ModuleType
) -> None:
    with pytest.raises(error, match=text):
        load_reward_model(handle)


def test_a_class_instead_of_an_instance_is_refused() -> None:
    with pytest.raises(RewardModelError, match="Pass an instance, not a class"):
        load_reward_model(Constant)  # type: ignore[arg-type]


@pytest.mark.parametrize("card", [None, "", "{", "[]", "{}", '"text"', '{"kind": ["oracle"]}'], ids=str)
def test_a_broken_reward_model_folder_is_refused(card: str | None, tmp_path: Path) -> None:
    if card is not None:
        (tmp_path / REWARD_MODEL_RECORD).write_text(card)
    with pytest.raises(ArtifactError, match=f"must hold a whole {REWARD_MODEL_RECORD} with a 'kind'.* save it again"):
        load_reward_model(tmp_path)


def test_a_folder_of_an_unknown_kind_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    (tmp_path / REWARD_MODEL_RECORD).write_text(json.dumps({"kind": "builtins:exec"}))
    with pytest.raises(RewardModelError, match=r"its kind 'builtins:exec' must be one of the registered names \["):
        load_reward_model(str(tmp_path))


@pytest.mark.parametrize(
    ("handle", "is_path"),
    [
        ("a.b:c", True),
        ("a:b", True),
        ("mine.py:score", True),
        ("some-folder/mine.py:score", True),
        ("/a/b/mine.py:score", True),
        ("mine.py", False),
        ("mine.py:", False),
        ("some-folder/mine:score", False),
        ("gpt2", False),
        ("org/model", False),
        ("a:b.c", False),
        (":x", False),
        ("a:", False),
    ],
)
def test_what_looks_like_an_import_path(handle: str, is_path: bool) -> None:
    assert is_import_path(handle) is is_path


def test_a_file_of_that_name_wins_over_an_import_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a:b").mkdir()
    assert not is_import_path("a:b")


def test_import_attribute_returns_the_object() -> None:
    assert import_attribute("json:dumps") is json.dumps


def test_the_same_handle_is_loaded_once_and_shared() -> None:
    calls: list[int] = []

    def factory() -> Any:
        calls.append(1)
        return gpt2_parts()

    first, second = load_language_model(factory), load_language_model(factory)
    assert first is second
    assert len(calls) == 1
    assert load_language_model(first) is first
    assert not any(parameter.requires_grad for parameter in first.model.parameters())
    assert not first.model.training


def test_a_saved_folder_is_shared_as_string_and_path(saved: Path) -> None:
    first = load_language_model(saved)
    assert load_language_model(str(saved)) is first
    assert load_language_model(saved, dtype="float32") is not first


def test_a_shared_model_is_let_go_when_nobody_holds_it() -> None:
    calls: list[int] = []

    def factory() -> Any:
        calls.append(1)
        return gpt2_parts()

    load_language_model(factory)
    load_language_model(factory)
    assert len(calls) == 2


def test_a_live_model_is_never_shared_by_name() -> None:
    model, tokenizer = gpt2_parts()
    first = load_language_model(model, tokenizer=tokenizer)
    assert first.model is model
    assert load_language_model(model, tokenizer=tokenizer) is not first


def test_a_factory_may_return_a_model_alone_if_the_tokenizer_is_given() -> None:
    tokenizer = make_tokenizer()
    assert load_language_model(lambda: make_model(), tokenizer=tokenizer).tokenizer is tokenizer
    with pytest.raises(ModelLoadError, match=r"came without a tokenizer; pass tokenizer=\.\.\., or return"):
        load_language_model(lambda: make_model())


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    model, tokenizer = gpt2_parts()
    model.save_pretrained(tmp_path / "lm")
    tokenizer.save_pretrained(tmp_path / "lm")
    return tmp_path / "lm"


def reference_model(env: Any) -> Any:
    return env.unwrapped.reference.model


def test_envs_of_one_handle_share_one_model_however_they_are_made() -> None:
    kwargs: dict[str, Any] = {"model": gpt2_parts, "prompts": ["a"], "max_new_tokens": 3}
    first = gym.make(TEXT, **kwargs)
    others = [gym.make(TEXT, **kwargs), gym.make(first.spec), gym.make_vec(TEXT, num_envs=2, **kwargs)]
    sync = gym.make_vec(TEXT, num_envs=2, vectorization_mode="sync", **kwargs)
    for env in [*others, *sync.envs]:  # type: ignore[attr-defined]
        assert reference_model(env) is reference_model(first)


def test_a_partial_is_a_handle_that_survives_the_deep_copy_of_a_spec() -> None:
    first = gym.make(TEXT, model=partial(gpt2_parts), prompts=["a"], max_new_tokens=3)
    shared = reference_model(gym.make(first.spec)) is reference_model(first)  # type: ignore[arg-type]
    assert shared, "the weights were loaded a second time"


def test_a_hub_id_without_network_is_refused_with_a_remedy() -> None:
    with pytest.raises(
        ModelLoadError,
        match=r"AutoModelForCausalLM 'nobody/nothing': must be a folder, .*; give a local folder if there",
    ):
        load_language_model("nobody/nothing")


@pytest.mark.parametrize("keep", [0.0, 0.1, 0.9])
def test_a_folder_with_cut_weights_is_refused(keep: float, saved: Path) -> None:
    weights = saved / "model.safetensors"
    raw = weights.read_bytes()
    weights.write_bytes(raw[: int(len(raw) * keep)])
    with pytest.raises(
        ModelLoadError, match="must be a folder, a GGUF file or a hub id that AutoModelForCausalLM loads"
    ):
        load_language_model(saved)


def test_a_folder_without_tokenizer_is_refused(saved: Path) -> None:
    for file in saved.glob("*token*"):
        file.unlink()
    # transformers makes a tokenizer of one token here (5.23), with which no prompt has any tokens.
    with pytest.raises(ModelLoadError, match=r"[Tt]okenizer"):
        load_language_model(saved)
    assert load_language_model(saved, tokenizer=make_tokenizer())


@pytest.mark.parametrize("kind", [str, Path])
def test_a_tokenizers_handle_is_enough_without_a_model(kind: Any, saved: Path) -> None:
    env = gym.make(TEXT, model=None, tokenizer=kind(saved), prompts=["a b"], kl_coef=0.0, max_new_tokens=3)
    assert env.reset(seed=0)[1]["prompt"] == "a b"
