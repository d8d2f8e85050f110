"""Acting, looking back, saving; on four architectures whose caches and positions differ."""

import pickle
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

from lm_gym import Policy, TextGenerationVectorEnv
from lm_gym.agents import PPO, LanguageModelPolicy, PPOConfig
from lm_gym.agents.policy import own_copy
from lm_gym.errors import ArtifactError, ModelLoadError, UnsupportedModelError
from lm_gym.models.lora import LoraSettings
from lm_gym.runs.manifests import MANIFEST
from lm_gym.testing import tiny_language_model

ARCHITECTURES = ["gpt2", "llama", "qwen2", "bloom", "t5", "bart"]
MakeEnv = Callable[..., TextGenerationVectorEnv]
MakePolicy = Callable[..., LanguageModelPolicy]


def plain(policy: LanguageModelPolicy, ids: np.ndarray) -> Any:
    """One unpadded call of the model on prompt and response, straight through ``transformers``.

    The prompt of an encoder-decoder ends with the first EOS, which its tokenizer puts there; EOS starts its response.

    Returns: outputs that end with those after the last token.
    """
    whole = torch.from_numpy(ids)[None]
    if not policy.model.config.is_encoder_decoder:
        return policy.model(whole, output_hidden_states=True)
    start = int(np.flatnonzero(ids == 0)[0])
    return policy.model(whole[:, : start + 1], decoder_input_ids=whole[:, start:], output_hidden_states=True)


def last_states(outputs: Any) -> torch.Tensor:
    """What the head reads, of one row."""
    states = outputs.hidden_states if "hidden_states" in outputs else outputs.decoder_hidden_states
    return states[-1][0]


def full_forward_log_probs(policy: LanguageModelPolicy, observation: Any, tokens: np.ndarray, temp: float) -> Any:
    found = []
    for ids, mask, token in zip(observation["input_ids"], observation["attention_mask"], tokens, strict=True):
        with torch.no_grad():
            logits = plain(policy, ids[: mask.sum()]).logits[0, -1] / temp
        found.append(torch.log_softmax(logits, -1)[token].item())
    return np.array(found)


def test_is_a_policy(make_env: MakeEnv, make_policy: MakePolicy) -> None:
    assert isinstance(make_policy(make_env()), Policy)


def test_value_head_starts_at_zero(make_env: MakeEnv) -> None:
    env = make_env()
    for separate in (False, True):
        policy = LanguageModelPolicy(env.reference.language_model, separate_critic=separate)  # type: ignore[union-attr]
        assert not policy.value_head.weight.any()
        assert not policy.value_head.bias.any()
        evaluation = policy.log_probs_and_values(env.rollout(policy, 3))
        assert not evaluation.values.any()
        assert not evaluation.final_values.any()


@pytest.mark.parametrize("mode", list(AutoresetMode))
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_act_equals_the_full_forward_across_resets(
    architecture: str, mode: AutoresetMode, make_env: MakeEnv, make_policy: MakePolicy
) -> None:
    """30 steps, so that every row restarts several times while the others go on, and one change of weights."""
    env = make_env(architecture, num_envs=3, autoreset_mode=mode, temperature=0.7)
    policy = make_policy(env)
    observation, _ = env.reset(seed=1)
    worst, ended = 0.0, 0
    for step in range(30):
        if step == 15:
            with torch.no_grad():
                for parameter in policy.model.parameters():
                    parameter.mul_(0.9)
            policy.refresh()
        tokens, log_probs = policy.act(observation, env.sampling)
        worst = max(worst, np.abs(log_probs - full_forward_log_probs(policy, observation, tokens, 0.7)).max())
        observation, _, terminated, _, _ = env.step({"token": tokens, "log_prob": log_probs})
        ended += int(terminated.sum())
        if mode is AutoresetMode.DISABLED and terminated.any():
            observation, _ = env.reset(options={"reset_mask": terminated})
    assert ended >= 6
    assert worst < 2e-4  # the tolerance of a cached against an uncached pass in float32


def test_act_sees_weights_that_an_optimiser_changed(make_env: MakeEnv, make_policy: MakePolicy) -> None:
    env = make_env(num_envs=2, max_new_tokens=12, min_new_tokens=12)
    policy = make_policy(env)
    observation, _ = env.reset(seed=0)
    for _ in range(2):
        tokens, log_probs = policy.act(observation, env.sampling)
        observation = env.step({"token": tokens, "log_prob": log_probs})[0]
    PPO(policy, PPOConfig(episodes_per_iteration=8, learning_rate=1e-2)).learn(env)
    tokens, log_probs = policy.act(observation, env.sampling)
    expected = full_forward_log_probs(policy, observation, tokens, 1.0)
    # min_new_tokens renormalises without EOS: compare the ratio that takes it out
    with torch.no_grad():
        rows = [
            torch.log_softmax(policy.model(torch.from_numpy(ids[: mask.sum()])[None]).logits[0, -1], -1)[1:]
            for ids, mask in zip(observation["input_ids"], observation["attention_mask"], strict=True)
        ]
    without_eos = expected - np.array([torch.logsumexp(row, 0).item() for row in rows])
    assert log_probs == pytest.approx(without_eos, abs=2e-4)


def test_an_environments_temperature_is_the_policys(make_env: MakeEnv, make_policy: MakePolicy) -> None:
    """A policy equal to the reference has no KL in the environment's own rules, stepped or rolled out."""
    env = make_env(num_envs=3, temperature=0.5)
    policy = make_policy(env)
    observation, _ = env.reset(seed=0)
    tokens, log_probs = policy.act(observation, env.sampling)
    info = env.step({"token": tokens, "log_prob": log_probs})[4]
    assert info["kl"] == pytest.approx(np.zeros(3), abs=1e-5)
    assert env.rollout(policy, 4).kl == pytest.approx(0.0, abs=1e-4)


def test_a_policy_of_other_end_tokens_changes_nothing(make_env: MakeEnv, make_policy: MakePolicy) -> None:
    """The environment names the tokens that end a response; a policy's own are not asked."""
    env = make_env(max_new_tokens=12)
    policy, other = make_policy(env), make_policy(env)
    other.language_model.eos_ids = (3, 5, 7)
    first = env.rollout(policy, 16)
    env.reset(seed=0)
    env_again = env.rollout(other, 16)
    env.reset(seed=0)
    np.testing.assert_array_equal(env.rollout(policy, 16).response_ids, env_again.response_ids)
    assert first.stop_reasons.count("eos") > 3


def test_two_environments_may_be_acted_in_by_turns(make_env: MakeEnv, make_policy: MakePolicy) -> None:
    """``min_new_tokens`` counts each one's own tokens: both meet the end of text, and neither too early."""
    envs = [make_env(num_envs=2, min_new_tokens=2, max_new_tokens=20, seed=seed) for seed in (0, 1)]
    policy = make_policy(envs[0])
    with torch.no_grad():
        policy.model.get_output_embeddings().weight[0] *= 3.0  # makes the end of text likely
    observations = [env.reset(seed=seed)[0] for seed, env in enumerate(envs)]
    ended: list[list[float]] = [[], []]
    for _ in range(40):
        for number, env in enumerate(envs):
            tokens, log_probs = policy.act(observations[number], env.sampling)
            observations[number], _, terminated, _, info = env.step({"token": tokens, "log_prob": log_probs})
            ended[number] += info["episode_length"][terminated].tolist() if terminated.any() else []
    for lengths in ended:
        assert min(lengths) >= 3
        assert min(lengths) < 20


def test_an_adapters_frozen_base_stays_frozen(make_env: MakeEnv) -> None:
    env = make_env()
    model = own_copy(env.reference.language_model)  # type: ignore[union-attr]
    kept = [weight for name, weight in model.model.named_parameters() if "ln_f" in name]
    for weight in kept:
        weight.requires_grad_(True)
    policy = LanguageModelPolicy(model)
    head = sum(weight.numel() for weight in policy.value_head.parameters())
    assert sum(weight.numel() for weight in policy.parameters()) == sum(weight.numel() for weight in kept) + head


def test_a_model_that_lacks_a_weight_is_not_filled_up_at_random(
    make_env: MakeEnv, make_policy: MakePolicy, tmp_path: Path
) -> None:
    folder = make_policy(make_env()).save_pretrained(tmp_path / "policy")
    weights = load_file(folder / "model.safetensors")
    weights.pop(next(name for name in weights if "ln_f" in name))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / MANIFEST).unlink()
    with pytest.raises(ModelLoadError, match="must hold every weight of GPT2LMHeadModel, and lacks 1"):
        LanguageModelPolicy.from_pretrained(folder)


def test_building_a_policy_leaves_the_global_generator_alone(make_env: MakeEnv) -> None:
    env = make_env()
    torch.manual_seed(0)
    before = torch.get_rng_state()
    for separate_critic in (False, True):
        LanguageModelPolicy(own_copy(env.reference.language_model), separate_critic=separate_critic)  # type: ignore[union-attr]
    assert torch.equal(torch.get_rng_state(), before)


def test_act_on_a_single_environment(make_env: MakeEnv, make_policy: MakePolicy) -> None:
    env = make_env(num_envs=1)
    policy = make_policy(env)
    observation, _ = env.reset(seed=0)
    token, log_prob = policy.act({key: value[0] for key, value in observation.items()}, env.sampling)
    assert token.shape == log_prob.shape == ()
    assert log_prob == pytest.approx(full_forward_log_probs(policy, observation, token[None], 1.0)[0], abs=2e-4)


def test_act_is_fixed_by_its_seed(make_env: MakeEnv, make_policy: MakePolicy) -> None:
    env = make_env(num_envs=4)
    observation, _ = env.reset(seed=0)
    rules = [replace(env.sampling, seed=seed) for seed in (5, 5, 6, 7, 8)]
    drawn = [make_policy(env).act(observation, sampling)[0] for sampling in rules]
    assert (drawn[0] == drawn[1]).all()
    assert any((drawn[0] != other).any() for other in drawn[2:])


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_evaluate_equals_the_full_forward(architecture: str, make_env: MakeEnv, make_policy: MakePolicy) -> None:
    env = make_env(architecture, temperature=0.7)
    policy = make_policy(env)
    episodes = env.rollout(policy, 5)
    evaluation = policy.log_probs_and_values(episodes)
    for row in range(5):
        start, length = episodes.prompt_lengths[row], episodes.response_lengths[row]
        ids = np.concatenate([episodes.prompt_ids[row, :start], episodes.response_ids[row, :length]])
        out = plain(policy, ids)
        table = torch.log_softmax(out.logits[0, -1 - length : -1] / 0.7, -1)
        taken = table[torch.arange(int(length)), torch.from_numpy(ids[start:])]
        values = policy.value_head(last_states(out)[-1 - length :]).squeeze(-1)
        torch.testing.assert_close(evaluation.log_probs[row, :length], taken, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(
            evaluation.entropy[row, :length], -(table.exp() * table).sum(-1), rtol=1e-4, atol=1e-4
        )
        torch.testing.assert_close(evaluation.values[row, :length], values[:-1], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(evaluation.final_values[row], values[-1], rtol=1e-4, atol=1e-4)
        assert not evaluation.log_probs[row, length:].any()
        assert not evaluation.values[row, length:].any()


@pytest.mark.parametrize("max_batch_tokens", [1, 20, 10_000])
def test_evaluation_in_batches_is_the_evaluation(
    max_batch_tokens: int, make_env: MakeEnv, make_policy: MakePolicy
) -> None:
    env = make_env()
    policy = make_policy(env, separate_critic=True)
    episodes = env.rollout(policy, 9)
    whole = policy.log_probs_and_values(episodes)
    for part, expected in zip(policy.log_probs_and_values_in_batches(episodes, max_batch_tokens), whole, strict=True):
        torch.testing.assert_close(part, expected.detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("separate_critic", [False, True])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_save_and_load(
    architecture: str, separate_critic: bool, tmp_path: Path, make_env: MakeEnv, make_policy: MakePolicy
) -> None:
    env = make_env(architecture)
    policy = make_policy(env, separate_critic=separate_critic)
    PPO(policy, PPOConfig(episodes_per_iteration=8, learning_rate=1e-3)).learn(env)  # the critic leaves its copy
    episodes = env.rollout(policy, 4)
    policy.save_pretrained(tmp_path / "policy")
    kind = AutoModelForSeq2SeqLM if architecture in ("t5", "bart") else AutoModelForCausalLM
    saved = kind.from_pretrained(tmp_path / "policy", dtype=torch.float32).eval()
    assert len(list(saved.parameters())) == len(list(policy.model.parameters()))
    assert all(torch.equal(one, two) for one, two in zip(saved.parameters(), policy.model.parameters(), strict=True))
    loaded = LanguageModelPolicy.from_pretrained(tmp_path / "policy", device="cpu")
    assert loaded.separate_critic is separate_critic
    for found, expected in zip(
        loaded.log_probs_and_values(episodes), policy.log_probs_and_values(episodes), strict=True
    ):
        assert torch.equal(found, expected)


FRESH_PROCESS = """
import pickle, sys, torch
torch.set_num_threads(1)
from lm_gym.agents import LanguageModelPolicy
episodes = pickle.load(open(sys.argv[1], "rb"))
found = []
for folder in sys.argv[3:]:
    policy = LanguageModelPolicy.from_pretrained(folder, device="cpu")
    found.append([tensor.detach() for tensor in policy.log_probs_and_values(episodes)])
torch.save(found, sys.argv[2])
"""


def test_a_fresh_process_gives_identical_values(tmp_path: Path, make_env: MakeEnv, make_policy: MakePolicy) -> None:
    pytest.importorskip("peft")
    env = make_env()
    policy = make_policy(env, separate_critic=True)
    policy.save_pretrained(tmp_path / "base")
    settings = {"lora": LoraSettings(rank=2), "separate_critic": False, "device": "cpu"}
    policies = {"whole": policy, "adapter": LanguageModelPolicy.from_pretrained(tmp_path / "base", **settings)}
    for name, each in policies.items():
        PPO(each, PPOConfig(episodes_per_iteration=8, learning_rate=1e-3)).learn(env)
        each.save_pretrained(tmp_path / name)
    episodes = env.rollout(policy, 4)
    (tmp_path / "episodes.pkl").write_bytes(pickle.dumps(episodes))
    paths = [str(tmp_path / name) for name in ("episodes.pkl", "found.pt", *policies)]
    subprocess.run([sys.executable, "-c", FRESH_PROCESS, *paths], check=True, timeout=120)
    for found, each in zip(torch.load(paths[1]), policies.values(), strict=True):
        for tensor, expected in zip(found, each.log_probs_and_values(episodes), strict=True):
            assert tensor.abs().sum() > 0
            assert torch.equal(tensor, expected.detach())


@pytest.mark.parametrize("name", ["critic.safetensors", "model.safetensors"])
@pytest.mark.parametrize("damage", ["cut", "flipped"])
def test_a_damaged_policy_is_refused(
    name: str, damage: str, tmp_path: Path, make_env: MakeEnv, make_policy: MakePolicy
) -> None:
    policy = make_policy(make_env())
    folder = policy.save_pretrained(tmp_path / "policy")
    raw = bytearray((folder / name).read_bytes())
    raw[-3] ^= 1
    (folder / name).write_bytes(raw[:20] if damage == "cut" else raw)
    for load in (
        lambda: LanguageModelPolicy.from_pretrained(folder, device="cpu"),
        lambda: policy.load_weights(folder),
    ):
        with pytest.raises(ArtifactError, match=rf"{name}: must have the \d+ bytes that it was saved with"):
            load()


def test_a_policy_takes_saved_weights_in_place(tmp_path: Path, make_env: MakeEnv, make_policy: MakePolicy) -> None:
    env = make_env()
    for separate_critic in (False, True):
        policy = make_policy(env, separate_critic=separate_critic)
        saved = [parameter.detach().clone() for parameter in policy.parameters()]
        folder = policy.save_pretrained(tmp_path / str(separate_critic))
        parameters = list(policy.parameters())
        with torch.no_grad():
            for parameter in parameters:
                parameter += 1.0
        policy.load_weights(folder)
        for parameter, again, value in zip(parameters, policy.parameters(), saved, strict=True):
            assert parameter is again
            assert torch.equal(parameter, value)


def test_from_pretrained_never_trains_the_weights_of_a_reference(tmp_path: Path, make_env: MakeEnv) -> None:
    """The same handle is loaded once per process and shared; a policy takes a copy."""
    from lm_gym import load_language_model

    env = make_env()
    folder = LanguageModelPolicy(env.reference.language_model).save_pretrained(tmp_path / "p")  # type: ignore[union-attr]
    shared = load_language_model(str(folder), device="cpu")
    policy = LanguageModelPolicy.from_pretrained(str(folder), device="cpu")
    before = [parameter.clone() for parameter in shared.model.parameters()]
    PPO(policy, PPOConfig(episodes_per_iteration=8, learning_rate=1e-2)).learn(env)
    assert all(torch.equal(a, b) for a, b in zip(before, shared.model.parameters(), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(policy.model.parameters(), shared.model.parameters(), strict=True))


def test_weights_that_learn_in_half_precision_are_refused() -> None:
    model = tiny_language_model()
    model.model.to(torch.float16)
    with pytest.raises(
        UnsupportedModelError, match=r"weights that learn must be float32 or bfloat16, got torch.float16, .* dtype="
    ):
        LanguageModelPolicy(model)
    adapter = model.model.transformer.h[0].mlp.c_fc.to(torch.float32)
    adapter.weight.requires_grad_(True)
    LanguageModelPolicy(model)
