"""Adapters on causal language models: exactly the updates learn; they are saved, loaded, merged with their base."""

from __future__ import annotations

import copy
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import torch

from lm_gym.errors import ArtifactError, ConfigError, UnsupportedModelError
from lm_gym.models.language_model import LanguageModel
from lm_gym.models.lora import LoraSettings, add_adapter, base_fingerprint, has_updates, load_adapter
from lm_gym.testing import tiny_language_model

pytest.importorskip("peft")
IDS = torch.tensor([[3, 5, 7, 2, 11, 4]])


def language_model(kind: str, seed: int = 0) -> Any:
    """A random model of a few thousand weights; the embeddings of GPT-2 are tied to its head."""
    from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if kind == "gpt2":
            shape = {"n_positions": 16, "n_embd": 16, "n_layer": 2, "n_head": 2}
            return GPT2LMHeadModel(GPT2Config(vocab_size=24, bos_token_id=0, eos_token_id=0, **shape)).eval()
        sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
        return LlamaForCausalLM(LlamaConfig(vocab_size=24, bos_token_id=0, eos_token_id=0, **sizes)).eval()


def logits(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        return model(IDS).logits.clone()


def moved(adapter: Any) -> None:
    """Give the updates some other weights."""
    with torch.no_grad():
        for name, weight in adapter.peft.named_parameters():
            if "lora_B" in name:
                weight.copy_(torch.linspace(-0.3, 0.3, weight.numel()).reshape(weight.shape))


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_exactly_the_updates_are_trainable(kind: str) -> None:
    model = language_model(kind)
    before = logits(model)
    adapter = add_adapter(model, LoraSettings(rank=2), task="CAUSAL_LM", base=None)
    trainable = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    assert trainable
    assert all("lora_" in name for name in trainable)
    layers = [part for part in model.modules() if hasattr(part, "lora_A")]
    # Every linear layer of both blocks, and not the head: 4 in GPT-2 (queries, keys and values are one), 7 in Llama.
    assert len(layers) == 2 * (4 if kind == "gpt2" else 7)
    assert sum(weight.numel() for weight in trainable.values()) == sum(
        2 * (layer.in_features + layer.out_features) for layer in layers
    )
    assert torch.equal(logits(model), before)  # an update starts at 0
    model(IDS).logits.sum().backward()
    assert {name for name, weight in model.named_parameters() if weight.grad is not None} == set(trainable)
    assert adapter.settings() == {"r": 2, "alpha": 32.0, "dropout": 0.0, "targets": adapter.settings()["targets"]}


def test_a_model_has_one_adapter_and_none_on_a_weight_that_two_modules_share() -> None:
    model = language_model("gpt2")
    model.transformer.wpe.requires_grad_(False)
    model.train()
    for name in ("lm_head", "wte"):
        with pytest.raises(
            ConfigError, match=rf"must name layers .* with weights of their own, and .*{name} shares one"
        ):
            add_adapter(model, LoraSettings(target_modules=("c_attn", name)), task="CAUSAL_LM", base=None)
    with pytest.raises(ConfigError, match="must name layers of the model, got 'nothing'"):
        add_adapter(model, LoraSettings(target_modules="nothing"), task="CAUSAL_LM", base=None)
    assert not has_updates(model)  # a refusal leaves the model as it was
    assert {name for name, weight in model.named_parameters() if not weight.requires_grad} == {"transformer.wpe.weight"}
    assert model.training
    model.eval()
    adapter = add_adapter(model, LoraSettings(rank=2, target_modules="c_attn"), task="CAUSAL_LM", base=None)
    moved(adapter)
    learned = logits(model)
    with pytest.raises(
        ConfigError, match="must have no low-rank updates yet, and has some, which a second adapter wou"
    ):
        add_adapter(model, LoraSettings(rank=4), task="CAUSAL_LM", base=None)
    assert torch.equal(logits(model), learned)
    untied = language_model("llama")
    adapter = add_adapter(untied, LoraSettings(target_modules=("lm_head",)), task="CAUSAL_LM", base=None)
    moved(adapter)
    learned = logits(untied)
    torch.testing.assert_close(logits(adapter.merged()), learned, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("other", [{"alpha": 4.0}, {"target_modules": ("c_attn",)}, {"rank": 3}])
def test_updates_of_another_adapter_are_refused(other: dict[str, Any], tmp_path: Path) -> None:
    adapter = add_adapter(language_model("gpt2"), LoraSettings(rank=2), task="CAUSAL_LM", base="some/base")
    moved(adapter)
    adapter.save(tmp_path)
    model = language_model("gpt2")
    taking = add_adapter(model, LoraSettings(**{"rank": 2} | other), task="CAUSAL_LM", base="some/base")
    before = logits(model)
    told = r"its lora_alpha is 32.0, not 4.0" if "alpha" in other else r"and holds .*c_proj|its r is 2, not 3"
    with pytest.raises(ArtifactError, match=told):
        taking.load(tmp_path, adapter.record())
    assert torch.equal(logits(model), before)
    if "alpha" not in other:  # a state tells tensors alone
        with pytest.raises(ConfigError, match=r"its state must be that of the same updates, and holds "):
            taking.load_state(adapter.state())
    with pytest.raises(ConfigError, match="and is list, no mapping of tensors by name"):
        taking.load_state([])  # type: ignore[arg-type]


def test_a_block_without_updates_ends_as_it_began_and_passes_take_turns() -> None:
    model = language_model("gpt2")
    plain = logits(model)
    adapter = add_adapter(model, LoraSettings(rank=2), task="CAUSAL_LM", base=None)
    moved(adapter)
    learned, found = logits(model), []
    tokenizer = tiny_language_model("gpt2").tokenizer
    language_models = {"policy": LanguageModel(model, tokenizer, adapter=adapter)}
    language_models["base"] = language_models["policy"].base()

    def states(name: str) -> torch.Tensor:
        with torch.no_grad():
            return language_models[name].logits(language_models[name].hidden(IDS)[0])

    thread = Thread(target=lambda: found.append(states("policy")))
    with adapter.off():
        with adapter.off():
            assert torch.equal(logits(model), plain)
        assert torch.equal(states("base"), plain[0])
        assert torch.equal(logits(model), plain)  # the inner blocks did not end this one
        thread.start()
        thread.join(0.05)
        assert not found  # waits, or it would be the base's
    thread.join()
    assert torch.equal(found[0], learned[0])
    copied = copy.deepcopy(adapter)
    with adapter.off():
        thread = Thread(target=lambda: found.append(copied.turns.__enter__()))
        thread.start()
        thread.join(10)
        assert len(found) == 2  # a copy is another model, which waits for nobody


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_a_saved_adapter_comes_back_on_its_base_and_merges_into_it(kind: str, tmp_path: Path) -> None:
    model = language_model(kind)
    plain = logits(model)
    adapter = add_adapter(model, LoraSettings(rank=2), task="CAUSAL_LM", base="some/base")
    moved(adapter)
    learned = logits(model)
    assert not torch.allclose(learned, plain, atol=1e-3)
    adapter.save(tmp_path)
    again = language_model(kind)
    loaded = load_adapter(again, tmp_path, adapter.record())
    assert torch.equal(logits(again), learned)
    assert {n for n, w in again.named_parameters() if w.requires_grad} == {
        n for n, w in model.named_parameters() if w.requires_grad
    }
    merged = loaded.merged()
    assert not any("lora_" in name for name, _ in merged.named_parameters())
    torch.testing.assert_close(logits(merged), learned, atol=1e-5, rtol=1e-5)
    with pytest.raises(ArtifactError, match="must be loaded on the base it was trained on, and the weights of 'some/b"):
        load_adapter(language_model(kind, seed=1), tmp_path, adapter.record())


def test_a_fingerprint_sees_weights_and_not_their_type() -> None:
    found = base_fingerprint(language_model("llama"))
    assert base_fingerprint(language_model("llama").to(torch.bfloat16)) == found
    assert base_fingerprint(language_model("llama", seed=1)) != found
    assert base_fingerprint(language_model("llama"), ["lm_head"]) != found


def test_what_cannot_work_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="must name layers of the model, got 'nothing'"):
        add_adapter(language_model("llama"), LoraSettings(target_modules="nothing"), task="CAUSAL_LM", base=None)
    adapter = add_adapter(language_model("llama"), LoraSettings(), task="CAUSAL_LM", base=None)
    with pytest.raises(ConfigError, match="this base came as an object or as code"):
        adapter.save(tmp_path)
    with pytest.raises(ArtifactError, match="must be whole"):
        load_adapter(language_model("llama"), tmp_path, adapter.record())


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")  # peft asks by the old name
def test_a_wrapper_of_peft_is_no_language_model_and_the_model_in_it_is() -> None:
    from peft import LoraConfig, get_peft_model

    tokenizer = tiny_language_model("gpt2").tokenizer
    wrapper = get_peft_model(language_model("llama"), LoraConfig(r=2, task_type="CAUSAL_LM"))
    words = r"PeftModelForCausalLM: must be a model of transformers itself.*lm_gym\.models\.lora\.add_adapter"
    with pytest.raises(UnsupportedModelError, match=words):
        LanguageModel(wrapper, tokenizer)
    assert LanguageModel(wrapper.get_base_model(), tokenizer).vocab_size == 24
