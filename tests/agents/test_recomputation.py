"""Gradient checkpointing: the same gradients, layers run twice, and dropout off."""

import warnings
from collections.abc import Callable
from threading import Thread
from typing import Any

import pytest
import torch
from transformers import FalconConfig, FalconForCausalLM, OPTConfig, OPTForCausalLM, PreTrainedModel

from lm_gym import LoraSettings, TextGenerationVectorEnv
from lm_gym.agents import PPO, LanguageModelPolicy, PPOConfig
from lm_gym.errors import ConfigError, UnsupportedModelError
from lm_gym.models.language_model import LanguageModel, own_copy
from lm_gym.models.lora import add_adapter
from lm_gym.testing import tiny_language_model

MakeEnv = Callable[..., TextGenerationVectorEnv]
SIZES: dict[str, Any] = {"vocab_size": 16, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0, "hidden_size": 16}


def with_dropout(kind: str) -> LanguageModel:
    """Layers that drop out by a function of their own: OPT by an attribute, Falcon by its configuration."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: PreTrainedModel
        if kind == "opt":
            sizes = {"ffn_dim": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "word_embed_proj_dim": 16}
            model = OPTForCausalLM(OPTConfig(**SIZES, **sizes, max_position_embeddings=32, dropout=0.5))
        else:
            sizes = {"num_hidden_layers": 2, "num_attention_heads": 2, "alibi": False}
            model = FalconForCausalLM(FalconConfig(**SIZES, **sizes, hidden_dropout=0.5, attention_dropout=0.5))
    return LanguageModel(model.eval().requires_grad_(False), tiny_language_model().tokenizer)


def gradients(policy: LanguageModelPolicy, episodes: Any) -> list[torch.Tensor]:
    found = policy.log_probs_and_values(episodes)
    (found.log_probs.sum() + found.entropy.sum() + (found.values + 1.0).square().sum()).backward()
    return [weight.grad for weight in policy.parameters() if weight.grad is not None]


@pytest.mark.parametrize("kind", ["gpt2", "llama", "bloom", "opt", "falcon", "t5", "bart"])
def test_gradients_are_those_without_it_and_every_layer_is_run_twice(kind: Any, make_env: MakeEnv) -> None:
    model = with_dropout(kind) if kind in ("opt", "falcon") else tiny_language_model(kind)
    episodes = make_env().rollout(LanguageModelPolicy(own_copy(model)), 4)
    plain, again = (
        LanguageModelPolicy(own_copy(model), separate_critic=kind == "llama", gradient_checkpointing=checkpointing)
        for checkpointing in (False, True)
    )
    for policy in (plain, again):
        torch.nn.init.ones_(policy.value_head.weight)  # type: ignore[arg-type]
    runs = []
    attention = next(
        part for name, part in again.model.named_modules() if name.endswith(("attn", "attention", "SelfAttention"))
    )
    attention.register_forward_pre_hook(lambda *args: runs.append(1))
    with torch.no_grad():
        again.log_probs_and_values(episodes)
    assert len(runs) == 1
    expected, found = gradients(plain, episodes), gradients(again, episodes)
    assert len(runs) == 3  # forwards, and once more backwards
    assert len(found) == len(expected) > 10
    for one, other in zip(expected, found, strict=True):
        assert torch.equal(one, other)
    assert not any(module.training for module in again.model.modules())


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_gradients_behind_shared_prompts_are_those_without_it(kind: Any, make_env: MakeEnv) -> None:
    model = tiny_language_model(kind)
    env = make_env(prompts=("a b c d e f g h i j k l m n",))
    episodes = env.rollout(LanguageModelPolicy(own_copy(model)), 8, samples_per_prompt=8)
    found, passes = [], []
    for checkpointing in (False, True):
        policy = LanguageModelPolicy(own_copy(model), gradient_checkpointing=checkpointing)
        torch.nn.init.ones_(policy.value_head.weight)  # type: ignore[arg-type]
        shapes: list[int] = []
        policy.language_model.trunk.register_forward_pre_hook(
            lambda part, args, kwargs, shapes=shapes: shapes.append(len(kwargs["input_ids"])), with_kwargs=True
        )
        found.append(gradients(policy, episodes))
        passes.append(shapes)
    assert passes == [[1, 8], [1, 8]]
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)


def test_an_agent_learns_the_same_with_an_adapter_too(make_env: MakeEnv) -> None:
    pytest.importorskip("peft")
    weights = []
    for checkpointing in (False, True):
        model = own_copy(tiny_language_model())
        adapter = add_adapter(model.model, LoraSettings(rank=2), task="CAUSAL_LM", base=None)
        model = LanguageModel(model.model, model.tokenizer, adapter=adapter)
        policy = LanguageModelPolicy(model, gradient_checkpointing=checkpointing)
        agent = PPO(policy, PPOConfig(episodes_per_iteration=8, learning_rate=1e-2))
        env = make_env()
        assert agent.learn(env)["first_pass_ratio_error"] < 1e-5
        agent.learn(env)
        weights.append(policy.state_dict())
    for name, tensor in weights[0]["model"].items():
        assert torch.equal(tensor, weights[1]["model"][name]), name


def test_a_layers_own_forward_is_called_and_stays(make_env: MakeEnv) -> None:
    policy = LanguageModelPolicy(own_copy(tiny_language_model()), gradient_checkpointing=True)
    episodes = make_env().rollout(policy, 4)
    first, second = policy.model.transformer.h
    plain, calls = first.forward, []

    def counted(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        return plain(*args, **kwargs)

    first.forward = counted
    gradients(policy, episodes)
    assert len(calls) == 2  # forwards, and once more backwards
    assert vars(first)["forward"] is counted
    assert "forward" not in vars(second)


def test_a_layer_is_not_run_again_while_another_thread_has_the_updates_off(make_env: MakeEnv) -> None:
    pytest.importorskip("peft")
    model = own_copy(tiny_language_model())
    adapter = add_adapter(model.model, LoraSettings(rank=2), task="CAUSAL_LM", base=None)
    with torch.no_grad():
        for weight in adapter.state().values():
            weight.normal_(std=0.3, generator=torch.Generator().manual_seed(weight.numel()))
    policies = [
        LanguageModelPolicy(
            LanguageModel(model.model, model.tokenizer, adapter=adapter), gradient_checkpointing=checkpointing
        )
        for checkpointing in (False, True)
    ]
    episodes = make_env().rollout(policies[0], 4)
    losses = [policy.log_probs_and_values(episodes).log_probs.sum() for policy in policies]
    learned = [weight for weight in model.model.parameters() if weight.requires_grad]
    expected = torch.autograd.grad(losses[0], learned)
    seen: list[Any] = []
    thread = Thread(target=lambda: seen.append(torch.autograd.grad(losses[1], learned)))
    with adapter.off():
        thread.start()
        thread.join(0.05)
        assert not seen
    thread.join()
    assert all(torch.equal(one, other) for one, other in zip(expected, seen[0], strict=True))


def test_the_models_own_switch_is_obeyed(make_env: MakeEnv) -> None:
    model = own_copy(tiny_language_model())
    assert not LanguageModelPolicy(model).gradient_checkpointing
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # newer versions of transformers call it by another name
        model.model.gradient_checkpointing_enable()
    assert LanguageModelPolicy(model).gradient_checkpointing


def test_what_cannot_be_checkpointed_is_refused() -> None:
    model = own_copy(tiny_language_model())
    with pytest.raises(ConfigError, match="gradient_checkpointing: must be True or False"):
        LanguageModelPolicy(model, gradient_checkpointing=1)  # type: ignore[arg-type]
    model.model.transformer.h = torch.nn.ModuleList()
    with pytest.raises(UnsupportedModelError, match="must have layers that transformers can checkpoint"):
        LanguageModelPolicy(model, gradient_checkpointing=True)
