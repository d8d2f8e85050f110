from __future__ import annotations

import pytest
import torch

from lm_gym.errors import ConfigError, ModelLoadError, UnsupportedModelError
from lm_gym.models.lora import LoraSettings, add_adapter, write_base
from lm_gym.reward_models import PreferenceRewardModel
from lm_gym.reward_models.scalar.heads import ScalarScorer, check_padding_invariance, classifier_from, genuine_pad_id
from lm_gym.reward_models.scalar.text_encoding import right_padded

EOS = 0


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_a_text_that_ends_in_its_pad_token_is_read_at_its_end(kind: str, reward_of) -> None:
    reward_model = reward_of(kind)
    texts = [[7, 8, 9, EOS], [7, 8, 9], [EOS], [7, EOS, EOS]]
    ids, mask = right_padded(texts, EOS)
    with torch.inference_mode():
        together = ScalarScorer(reward_model.model)(ids, mask)
        hidden = [reward_model.model.base_model(torch.tensor([row])).last_hidden_state[0, -1] for row in texts]
        alone = torch.stack([reward_model.model.score(state)[0] for state in hidden])
    torch.testing.assert_close(together, alone)
    assert abs(together[0] - together[1]) > 1e-3


@pytest.mark.parametrize("kind", ["gpt2", "llama", "bert"])
def test_the_trunk_is_a_copy_and_the_head_follows_the_seed(kind: str, tiny_model) -> None:
    base = tiny_model(kind)
    before = {name: weight.clone() for name, weight in base.state_dict().items()}
    state = torch.get_rng_state()
    first, again, other = (classifier_from(base, dtype="float32", seed=seed)[0] for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    for name, weight in base.base_model.state_dict().items():
        torch.testing.assert_close(first.base_model.state_dict()[name], weight)
    heads = [(model.classifier if kind == "bert" else model.score).weight for model in (first, again, other)]
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])
    with torch.no_grad():
        for weight in first.parameters():
            weight.zero_()
    assert all(torch.equal(weight, before[name]) for name, weight in base.state_dict().items())


def test_a_checkpoint_and_a_loaded_model_make_the_same_classifier(tmp_path, tiny_model, save_base) -> None:
    from_disk, fresh = classifier_from(save_base("gpt2", tmp_path / "lm"), dtype="float32", seed=0)
    from_memory, also_fresh = classifier_from(tiny_model("gpt2"), dtype="float32", seed=0)
    assert fresh == also_fresh == ("score",)
    for name, weight in from_memory.base_model.state_dict().items():
        assert torch.equal(weight, from_disk.base_model.state_dict()[name])


def test_an_adapters_folder_is_the_merged_model(tmp_path, tiny_model, save_base) -> None:
    pytest.importorskip("peft")
    base = tiny_model("gpt2")
    save_base("gpt2", tmp_path / "lm")
    adapter = add_adapter(base, LoraSettings(rank=2), task="CAUSAL_LM", base=str(tmp_path / "lm"))
    with torch.no_grad():
        for weight in adapter.state().values():
            weight.normal_(generator=torch.Generator().manual_seed(1))
    adapter.save(tmp_path / "adapter")
    write_base(tmp_path / "adapter", adapter.record())
    found, fresh = classifier_from(tmp_path / "adapter", dtype="float32", seed=0)
    merged, also_fresh = classifier_from(adapter.merged(), dtype="float32", seed=0)
    assert fresh == also_fresh == ("score",)
    for name, tensor in merged.state_dict().items():
        assert torch.equal(found.state_dict()[name], tensor), name


def test_a_checkpoint_without_its_trunk_is_refused(tmp_path, tiny_model, save_base) -> None:
    from safetensors.torch import load_file, save_file

    folder = save_base("llama", tmp_path / "lm")
    weights = load_file(folder / "model.safetensors")
    lost = next(name for name in weights if "down_proj" in name)
    del weights[lost]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UnsupportedModelError, match=f"lacks 1, {lost}"):
        classifier_from(folder, dtype="float32", seed=0)


def test_models_that_cannot_carry_the_head_are_refused(tmp_path, tokenizer_for) -> None:
    from transformers import T5Config, T5ForConditionalGeneration

    t5 = T5ForConditionalGeneration(T5Config(vocab_size=40, d_model=16, d_ff=16, num_layers=1, num_heads=2, d_kv=8))
    with pytest.raises(UnsupportedModelError, match="got an encoder-decoder"):
        PreferenceRewardModel.from_base(t5, tokenizer_for("gpt2"))
    with pytest.raises(ModelLoadError, match="must be a folder with a saved model"):
        classifier_from(tmp_path / "nothing", dtype="float32", seed=0)


def test_a_score_that_depends_on_padding_is_noticed(reward_of) -> None:
    reward_model = reward_of("bert")
    real = reward_model.model.forward

    def blind(input_ids, attention_mask):
        return real(input_ids=input_ids, attention_mask=torch.ones_like(attention_mask))

    check_padding_invariance(reward_model.model, reward_model.fill_id)
    reward_model.model.forward = blind
    with pytest.raises(UnsupportedModelError, match="must not depend on padding"):
        check_padding_invariance(reward_model.model, reward_model.fill_id)


def test_only_a_pad_token_of_its_own_is_genuine(tokenizer_for) -> None:
    assert genuine_pad_id(tokenizer_for("gpt2")) is None
    assert genuine_pad_id(tokenizer_for("bert")) == 2
    tokenizer = tokenizer_for("gpt2")
    tokenizer.pad_token = "<pad>"
    assert genuine_pad_id(tokenizer) == 2


def test_an_encoder_needs_a_pad_token_and_a_decoder_does_not(tiny_model, tokenizer_for) -> None:
    bare = tokenizer_for("gpt2")
    bare.pad_token = None
    model = PreferenceRewardModel.from_base(tiny_model("gpt2"), bare, device="cpu")
    assert len(model.score(["one", "one two"], ["good", "bad film"])) == 2
    with pytest.raises(ConfigError, match="an encoder needs a tokenizer with a pad token"):
        PreferenceRewardModel.from_base(tiny_model("bert"), bare, device="cpu")
