"""A policy from a GGUF file: trained a step against the file as reference, saved, loaded; one base wherever it lies."""

from pathlib import Path
from typing import Any

import gymnasium
import pytest
import torch

pytest.importorskip("gguf")

from lm_gym.agents import PPO, LanguageModelPolicy, PPOConfig, SupervisedConfig, supervised_finetune, train
from lm_gym.errors import ConfigError

from ..helpers.gguf_files import write_gguf


def vowels(prompts: list[str], completions: list[str]) -> list[float]:
    return [float(sum(letter in "aeiou" for letter in text)) for text in completions]


def trained(handle: Path, run_dir: Path, **options: Any) -> LanguageModelPolicy:
    env = gymnasium.make_vec(
        "lm_gym/TextGeneration-v0",
        num_envs=2,
        model=str(handle),
        prompts=["the cat", "a dog"],
        reward_model=vowels,
        action_mode="token_and_log_prob",
        max_new_tokens=4,
        device="cpu",
    )
    policy = LanguageModelPolicy.from_pretrained(handle, device="cpu")
    agent = PPO(policy, PPOConfig(episodes_per_iteration=4, epochs=1, learning_rate=1e-2))
    train(agent, env, iterations=1, run_dir=run_dir, progress=False, **options)
    return policy


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LM_GYM_CACHE", str(tmp_path / "cache"))
    (tmp_path / "m").mkdir()
    write_gguf(tmp_path / "m" / "tiny.gguf")
    return tmp_path / "m" / "tiny.gguf"


def test_it_learns_is_saved_and_loads_again(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = LanguageModelPolicy.from_pretrained(file, device="cpu").state_dict()["model"]
    policy = trained(file, tmp_path / "run")
    after = policy.state_dict()["model"]
    assert max((after[name] - before[name]).abs().max() for name in before) > 1e-3
    again = LanguageModelPolicy.from_pretrained(policy.save_pretrained(tmp_path / "saved"), device="cpu")
    for name, weight in again.state_dict()["model"].items():
        assert torch.equal(weight, after[name])
    assert again.respond(["the cat"], max_new_tokens=4, seed=1) == policy.respond(["the cat"], max_new_tokens=4, seed=1)
    # The base is what the file holds: the folder around it and another cache make no other run, other weights do.
    monkeypatch.setenv("LM_GYM_CACHE", str(tmp_path / "elsewhere"))
    trained(file.parent, tmp_path / "run", resume=True)
    write_gguf(file, seed=1)
    with pytest.raises(ConfigError, match="input policy"):
        trained(file, tmp_path / "run", resume=True)


def test_fine_tuning_from_it_is_one_run_wherever_it_lies(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, config = [{"prompt": "the cat", "completion": " sat"}], SupervisedConfig(epochs=1, device="cpu")
    supervised_finetune(file, rows, tmp_path / "sft", config=config, progress=False)
    monkeypatch.setenv("LM_GYM_CACHE", str(tmp_path / "elsewhere"))
    moved = file.rename(tmp_path / "moved.gguf")
    supervised_finetune(moved, rows, tmp_path / "sft", config=config, progress=False, resume=True)
    assert LanguageModelPolicy.from_pretrained(tmp_path / "sft").tokenizer.chat_template is not None
