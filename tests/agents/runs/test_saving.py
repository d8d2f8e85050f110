"""A saved agent goes on learning as if it had not been away, and a damaged one is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from lm_gym import TextGenerationVectorEnv
from lm_gym.agents import PPO, LanguageModelPolicy, PPOConfig, RewardToGo
from lm_gym.errors import ArtifactError, ConfigError
from lm_gym.runs.states import joined_state, split_state

Make = Callable[..., Any]
CONFIG = PPOConfig(episodes_per_iteration=6, minibatches=2, learning_rate=1e-2, target_kl=0.5, seed=3)


def learned(agent: PPO, env: TextGenerationVectorEnv, first: int, last: int) -> list[dict[str, float]]:
    return [agent.learn(env, progress=number / 5) for number in range(first, last)]


def weights(agent: PPO) -> list[torch.Tensor]:
    return [weight.detach().clone() for weight in agent.policy.weights()]


def assert_equal(first: Any, second: Any) -> None:
    """Of the same types, too; tensors to the bit."""
    assert type(first) is type(second)
    if isinstance(first, torch.Tensor):
        assert torch.equal(first, second)
    elif isinstance(first, dict):
        assert list(first) == list(second)
        for one, other in zip(first.values(), second.values(), strict=True):
            assert_equal(one, other)
    elif isinstance(first, list | tuple):
        for one, other in zip(first, second, strict=True):
            assert_equal(one, other)
    else:
        assert first == second


@pytest.mark.parametrize("separate_critic", [False, True])
@pytest.mark.parametrize("frozen", [False, True])
def test_a_loaded_agent_learns_on_to_the_same_weights(
    separate_critic: bool, frozen: bool, tmp_path: Path, make_env: Make, make_policy: Make
) -> None:
    def start() -> tuple[PPO, TextGenerationVectorEnv]:
        env = make_env()
        policy = make_policy(env, separate_critic=separate_critic)
        next(iter(policy.weights())).requires_grad_(not frozen)
        return PPO(policy, CONFIG), env

    whole, env = start()
    learned(whole, env, 0, 4)
    agent, env = start()
    learned(agent, env, 0, 2)
    assert agent.save(tmp_path / "agent") == tmp_path / "agent"
    again = PPO.load(tmp_path / "agent", device="cpu")
    assert again.config == CONFIG
    assert_equal(again.state_dict(), agent.state_dict())
    learned(again, env, 2, 4)
    assert all(torch.equal(one, two) for one, two in zip(weights(again), weights(whole), strict=True))
    assert_equal(again.state_dict(), whole.state_dict())
    assert not all(torch.equal(one, two) for one, two in zip(weights(again), weights(agent), strict=True))


def test_nothing_is_pickled_and_the_policy_is_a_plain_model(tmp_path: Path, make_env: Make, make_policy: Make) -> None:
    env = make_env()
    agent = PPO(make_policy(env), CONFIG)
    agent.save(tmp_path / "agent")
    suffixes = {path.suffix for path in (tmp_path / "agent").rglob("*") if path.is_file()}
    assert suffixes <= {".safetensors", ".json", ".txt", ".jinja", ".model"}
    AutoModelForCausalLM.from_pretrained(tmp_path / "agent" / "policy")
    LanguageModelPolicy.from_pretrained(tmp_path / "agent" / "policy")


def test_a_folder_that_is_saved_again_is_loaded_anew(tmp_path: Path, make_env: Make, make_policy: Make) -> None:
    env = make_env()
    agent = PPO(make_policy(env), CONFIG)
    for number in range(2):
        learned(agent, env, number, number + 1)
        agent.save(tmp_path / "agent")
        again = PPO.load(tmp_path / "agent", device="cpu")
        assert all(torch.equal(one, two) for one, two in zip(weights(again), weights(agent), strict=True))


@pytest.mark.parametrize("dtype", ["auto", "float32", "bfloat16"])
def test_numbers_have_the_type_that_they_had(dtype: Any, tmp_path: Path, make_env: Make, make_policy: Make) -> None:
    """Exact float32 too, which "auto" is not where the hardware has bf16."""
    make_policy(make_env()).save_pretrained(tmp_path / "policy")
    policy = LanguageModelPolicy.from_pretrained(tmp_path / "policy", device="cpu", dtype=dtype)
    loaded = PPO.load(PPO(policy).save(tmp_path / "agent"), device="cpu").policy
    assert loaded.language_model.dtype == dtype
    assert loaded.model.dtype == policy.model.dtype


def test_an_estimator_of_ones_own_is_given_again(tmp_path: Path, make_env: Make, make_policy: Make) -> None:
    agent = PPO(make_policy(make_env()), CONFIG, estimator=RewardToGo())
    agent.save(tmp_path / "agent")
    with pytest.raises(
        ConfigError, match=r"estimator must be the one that .* was saved with, .*RewardToGo.*; pass est"
    ):
        PPO.load(tmp_path / "agent")
    assert isinstance(PPO.load(tmp_path / "agent", estimator=RewardToGo()).estimator, RewardToGo)


def test_a_damaged_or_another_folder_is_refused(tmp_path: Path, make_env: Make, make_policy: Make) -> None:
    agent = PPO(make_policy(make_env()), CONFIG)
    agent.save(tmp_path / "agent")
    agent.policy.save_pretrained(tmp_path / "policy")
    with pytest.raises(ArtifactError, match=r"must be a folder that PPO\.save wrote, got one of another kind; Lang"):
        PPO.load(tmp_path / "policy")
    with pytest.raises(ArtifactError, match="must hold a whole lm_gym_manifest"):
        PPO.load(tmp_path / "nowhere")
    file = tmp_path / "agent" / "optimizer.safetensors"
    file.write_bytes(file.read_bytes() + b"\0")
    with pytest.raises(ArtifactError, match="has changed since"):
        PPO.load(tmp_path / "agent")


@pytest.mark.parametrize("part", ["settings", "state", "frozen"])
def test_an_agent_whose_note_is_cut_is_refused(part: str, tmp_path: Path, make_env: Make, make_policy: Make) -> None:
    PPO(make_policy(make_env()), CONFIG).save(tmp_path / "agent")
    path = tmp_path / "agent" / "lm_gym_manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["note"][part]
    path.write_text(json.dumps(manifest))
    with pytest.raises(ArtifactError, match=rf"agent: must hold the whole note of an agent, .* the key '{part}'"):
        PPO.load(tmp_path / "agent")


def test_a_state_comes_back_as_it_was() -> None:
    state = {0: {"step": torch.tensor(3.0), "m": torch.ones(2, 3).T}, "betas": (0.9, [None, True, "a"]), "big": 2**120}
    plain, tensors = split_state(state)
    assert_equal(joined_state(plain, tensors), state)
    clash = {"a.b": torch.ones(1), "a": {"b": torch.zeros(1)}, ("a", 1): torch.ones(2), 1: torch.ones(3), "1": {}}
    assert_equal(joined_state(*split_state(clash)), clash)
    with pytest.raises(ConfigError, match=r"state\.x\.0: must be a tensor, .* got object"):
        split_state({"x": [object()]})
    with pytest.raises(ArtifactError, match="must be as it was saved"):
        joined_state(plain, {})
