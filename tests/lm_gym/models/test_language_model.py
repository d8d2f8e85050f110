"""Which models are accepted, and that trunk, head and positions are used as the model itself uses them."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers
from tiny_models import CAUSAL, EOS, MAX_LENGTH, V, make_model, make_tokenizer
from tokenizers import processors

from lm_gym import LanguageModel, Reference
from lm_gym.errors import ModelLoadError, UnsupportedModelError
from lm_gym.models.decoder import decoder_for
from lm_gym.models.language_model import load_language_model, resolve_device
from lm_gym.testing import tiny_language_model

IDS = torch.tensor([[1, 2, 3, 4, 5, 6, 7, 8]])
SMALL: dict[str, Any] = {"vocab_size": V, "bos_token_id": EOS, "eos_token_id": EOS}
GROUPED: dict[str, Any] = SMALL | {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
}


def seeded(make: Callable[[], Any]) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make().eval().requires_grad_(False)


@pytest.mark.parametrize("architecture", [*CAUSAL, "mistral"])
def test_head_of_trunk_is_the_models_own_logits(architecture: str, model_of: Callable[[str], LanguageModel]) -> None:
    model = model_of(architecture)
    expected = model.model(input_ids=IDS).logits[0]
    torch.testing.assert_close(model.logits(model.hidden(IDS)[0]), expected, atol=1e-5, rtol=1e-5)
    assert model.logits(model.hidden(IDS)[0]).dtype == torch.float32


@pytest.mark.parametrize("architecture", CAUSAL)
def test_a_left_padded_row_computes_what_an_unpadded_one_does(
    architecture: str, model_of: Callable[[str], LanguageModel]
) -> None:
    model = model_of(architecture)
    rows = [IDS[0].numpy(), IDS[0, :3].numpy()]
    padded = decoder_for(model, 2, 8).prefill([0, 1], rows)
    for row, alone in enumerate(rows):
        torch.testing.assert_close(padded[row], model.hidden(torch.tensor(alone)[None])[0, -1], atol=1e-4, rtol=1e-4)


SCALED = {
    "Gemma 2 soft-caps": lambda: transformers.Gemma2ForCausalLM(
        transformers.Gemma2Config(final_logit_softcapping=0.5, sliding_window=4, **GROUPED)
    ),
    "Granite divides": lambda: transformers.GraniteForCausalLM(
        transformers.GraniteConfig(logits_scaling=3.0, **{k: v for k, v in GROUPED.items() if k != "head_dim"})
    ),
    "Cohere multiplies": lambda: transformers.CohereForCausalLM(
        transformers.CohereConfig(logit_scale=0.25, **{k: v for k, v in GROUPED.items() if k != "head_dim"})
    ),
}


@pytest.mark.parametrize("name", SCALED)
def test_scaled_and_capped_heads_are_followed(name: str) -> None:
    model = LanguageModel(seeded(SCALED[name]), make_tokenizer())
    torch.testing.assert_close(model.logits(model.hidden(IDS)[0]), model.model(input_ids=IDS).logits[0])


def t5(**changes: Any) -> Any:
    config = transformers.T5Config(vocab_size=V, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2, **changes)
    return transformers.T5ForConditionalGeneration(config)


def t5_encoder() -> Any:
    return transformers.T5EncoderModel(t5().config)


def bert() -> Any:
    """An encoder with a head."""
    sizes = {
        "initializer_range": 0.5,
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
    }
    return transformers.BertForMaskedLM(transformers.BertConfig(vocab_size=V, **sizes))


def bart_decoder() -> Any:
    sizes = {"d_model": 16, "decoder_layers": 1, "decoder_attention_heads": 2, "decoder_ffn_dim": 16}
    config = transformers.BartConfig(max_position_embeddings=16, init_std=0.3, **sizes, **(SMALL | {"pad_token_id": 0}))
    return transformers.BartForCausalLM(config)


def m2m() -> Any:
    """Counts positions by ids that are not the pad's, so that a pad token in a response moves those after it."""
    sides = {f"{side}_{key}": 2 for side in ("encoder", "decoder") for key in ("layers", "attention_heads")}
    start = {"pad_token_id": 0, "decoder_start_token_id": 0, "init_std": 0.3, "max_position_embeddings": 16}
    return transformers.M2M100ForConditionalGeneration(transformers.M2M100Config(d_model=16, **sides, **start, **SMALL))


def mamba() -> Any:
    config = transformers.MambaConfig(hidden_size=16, state_size=4, num_hidden_layers=1, pad_token_id=EOS, **SMALL)
    return transformers.MambaForCausalLM(config)


def gpt1() -> Any:
    """Has no key-value cache at all."""
    config = transformers.OpenAIGPTConfig(vocab_size=V, n_embd=16, n_layer=1, n_head=2, n_positions=32)
    return transformers.OpenAIGPTLMHeadModel(config)


def llama4() -> Any:
    """Has no trunk to be told apart from its head."""
    changes = {"num_local_experts": 2, "intermediate_size_mlp": 16, "attention_chunk_size": 8}
    return transformers.Llama4ForCausalLM(transformers.Llama4TextConfig(**(GROUPED | changes)))


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (t5, "T5ForConditionalGeneration: an encoder-decoder must name the token .* set model.config.decoder_start_"),
        (t5_encoder, "T5EncoderModel: must have a head .* use a causal language model or a whole encoder-decoder"),
        (bert, "BertForMaskedLM: the logits after a token must not depend .* it is an encoder, which cannot write"),
        (bart_decoder, r"BartForCausalLM: .* or the whole encoder-decoder \(AutoModelForSeq2SeqLM\) where this is the"),
        (m2m, "M2M100ForConditionalGeneration: logits of rows that are run token by token must be the model's own"),
        (mamba, "MambaForCausalLM: must keep a key-value cache .* got a recurrent or compressed state, .* use a"),
        (gpt1, "OpenAIGPTLMHeadModel: must keep a key-value cache"),
        (llama4, "Llama4ForCausalLM: "),
    ],
)
def test_models_that_cannot_be_stepped_are_refused_when_they_are_given(make: Callable[[], Any], text: str) -> None:
    with pytest.raises(UnsupportedModelError, match=text):
        LanguageModel(seeded(make), make_tokenizer())


def test_a_head_that_is_not_reproduced_is_refused() -> None:
    class Shifted(transformers.GPT2LMHeadModel):
        def forward(self, *args: Any, **kwargs: Any) -> Any:
            out = super().forward(*args, **kwargs)
            out.logits = out.logits + torch.arange(V)
            return out

    model = seeded(lambda: Shifted(make_model().config))
    with pytest.raises(
        UnsupportedModelError, match=r"logits must be head\(trunk\(x\)\).* differ from the model's own by"
    ):
        LanguageModel(model, make_tokenizer())


@pytest.mark.parametrize("architecture", ["gpt2", "t5"])
def test_a_model_of_nan_is_told_so(architecture: Any) -> None:
    model = tiny_language_model(architecture)
    with torch.no_grad():
        model.model.get_output_embeddings().weight[0, 0] = torch.nan
    with pytest.raises(UnsupportedModelError, match="must give finite logits, got NaN or infinity, as damaged weights"):
        LanguageModel(model.model, model.tokenizer)


def test_a_tokenizer_without_eos_is_refused() -> None:
    with pytest.raises(UnsupportedModelError, match=r"must have an EOS token, .* set tokenizer.eos_token"):
        LanguageModel(make_model(), make_tokenizer(eos_token=None, pad_token=None))


def test_a_tokenizer_that_closes_prompts_is_refused_of_a_causal_model_alone() -> None:
    closing = make_tokenizer(ends_prompts=True)
    with pytest.raises(
        UnsupportedModelError,
        match=r"must put no token behind a text, .* puts '<eos>' there; set .*add_eos_token = Fal",
    ):
        LanguageModel(make_model(), closing)
    LanguageModel(make_model("t5"), closing)
    closing.add_eos_token = False
    LanguageModel(make_model(), closing)
    opening = make_tokenizer()
    opening.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<eos> $A", special_tokens=[("<eos>", EOS)]
    )
    LanguageModel(make_model(), opening)


def test_stop_ids_are_the_tokenizers_and_the_generation_configs() -> None:
    model = make_model()
    assert LanguageModel(model, make_tokenizer()).eos_ids == (EOS,)
    for given, ids in ((5, (EOS, 5)), ([5, EOS, 7], (EOS, 5, 7)), (None, (EOS,))):
        model.generation_config.eos_token_id = given
        assert LanguageModel(model, make_tokenizer()).eos_ids == ids


def test_sizes_are_read_from_the_model() -> None:
    model = LanguageModel(make_model(), make_tokenizer())
    assert (model.vocab_size, model.hidden_size, model.max_length) == (V, 32, MAX_LENGTH)
    assert LanguageModel(make_model("bloom"), make_tokenizer()).max_length is None


def test_pad_id_is_one_that_the_model_can_embed() -> None:
    assert LanguageModel(make_model(), make_tokenizer(pad_token="b")).pad_id == 2
    assert LanguageModel(make_model(), make_tokenizer(eos_token="c", pad_token=None)).pad_id == 3
    added = make_tokenizer()
    added.add_special_tokens({"pad_token": "<pad>"})
    assert added.pad_token_id == V
    assert LanguageModel(make_model(), added).pad_id < V


def test_checking_leaves_the_model_in_the_mode_it_was_in() -> None:
    model = make_model()
    model.train()
    LanguageModel(model, make_tokenizer())
    assert model.training


def test_checking_leaves_each_part_in_the_mode_it_was_in() -> None:
    model = make_model()
    model.train()
    model.transformer.h[0].eval()
    LanguageModel(model, make_tokenizer())
    assert model.training
    assert not model.transformer.h[0].attn.training
    assert model.transformer.h[1].attn.training


def in_training() -> Any:
    """A model with dropout on, whose weights take gradients and hold some."""
    model = make_model(attn_pdrop=0.5, resid_pdrop=0.5, embd_pdrop=0.5).train().requires_grad_(True)
    model(input_ids=IDS, labels=IDS).loss.backward()
    return model


@pytest.mark.parametrize("how", ["reference", "load", "load a language model"])
def test_a_model_that_somebody_trains_is_copied_and_left_alone(how: str) -> None:
    model = in_training()
    if how == "load":
        taken = load_language_model(model, tokenizer=make_tokenizer(), device="cpu")
    elif how == "reference":
        taken = Reference(LanguageModel(model, make_tokenizer())).language_model
    else:
        taken = load_language_model(LanguageModel(model, make_tokenizer()))
    assert all(part.training for part in model.modules())
    assert all(weight.requires_grad and weight.grad is not None for weight in model.parameters())
    assert not any(part.training for part in taken.model.modules())
    assert not any(weight.requires_grad for weight in taken.model.parameters())
    before = taken.hidden(IDS)
    torch.testing.assert_close(taken.hidden(IDS), before, rtol=0, atol=0)
    with torch.no_grad():
        for weight in model.parameters():
            weight += 1.0
    torch.testing.assert_close(taken.hidden(IDS), before, rtol=0, atol=0)


def test_a_frozen_model_is_shared() -> None:
    model = LanguageModel(make_model(), make_tokenizer())
    assert Reference(model).language_model is model
    assert load_language_model(model) is model
    model.model.transformer.h[1].train()
    assert Reference(model).language_model is not model


def test_auto_is_the_cpu_where_there_is_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert resolve_device("auto") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert resolve_device("auto") == torch.device("cuda")
    assert resolve_device("cpu") == torch.device("cpu")


def test_a_factory_that_ends_the_process_is_refused_and_ends_nothing() -> None:
    def factory() -> None:
        raise SystemExit(0)

    with pytest.raises(ModelLoadError, match=r"and raised SystemExit: 0"):
        load_language_model(factory)  # type: ignore[arg-type]
