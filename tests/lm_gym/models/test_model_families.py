"""Every family of causal language models that transformers has and that fits in a test: stepped, at once, and plainly.

Rows start, end and restart at different times, for longer than the model has positions, so that a wrong place of a
token, a wrong mask or a cache that grows too long shows.
"""

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from tiny_models import EOS, V, make_tokenizer
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from lm_gym import LanguageModel, Reference, SamplingConfig
from lm_gym.envs.task import TextTask
from lm_gym.errors import ConfigError, UnsupportedModelError
from lm_gym.models.decoder import decoder_for
from lm_gym.models.decoding import shared_prompts

LENGTH = 20
"""Positions of each model."""
ROUNDING = 3e-3
"""Nats; models that go through their layers again and again add up 3e-4 on one CPU and 1.1e-3 on another (hrm_text). A
misplaced token differs by tenths."""
FAMILIES = """
afmoe apertus arcee aria_text beam bert-generation biogpt bitnet bloom codegen cohere cohere2 cohere2_moe
ctrl cwm diffllama doge ernie4_5 ernie4_5_moe exaone4 exaone_moe falcon flex_olmo flint gemma gemma2
gemma3_text gemma4_unified_text glm glm4 glm4_moe gpt-sw3 gpt2 gpt_bigcode gpt_neox gpt_neox_japanese gpt_oss
gptj granite granite_swa granitemoe granitemoe_swa granitemoeshared helium hrm_text hunyuan_v1_dense
hunyuan_v1_moe hy_v3 hyperclovax internlm3 iquestcoder jais2 jetmoe kolibri1 laguna lfm2 llama mellum
mimo_v2_flash minimax_m2 minimax_m3_vl_text ministral ministral3 mistral mixtral moshi nanochat nemotron olmo
olmo2 olmo3 olmoe opt persimmon phi phi3 phimoe qwen2 qwen2_moe qwen3 qwen3_moe seed_oss smollm3 solar_open
stablelm starcoder2 vaultgemma xglm gpt_neo mpt
"""
PLACED_BY_SLOT = (
    "bart",
    "bigbird_pegasus",
    "blenderbot",
    "marian",
    "mbart",
    "mvp",
    "pegasus",
    "plbart",
    "trocr",
    "whisper",
)
"""Decoders of encoder-decoders: a token's position is the number of slots in the cache, whatever the mask says."""
SIZES: dict[str, Any] = {
    **dict.fromkeys(("vocab_size",), V),
    **dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), EOS),
    **dict.fromkeys(("hidden_size", "n_embd", "d_model", "word_embed_proj_dim"), 32),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers"), 2),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads", "decoder_attention_heads"), 4),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "n_inner", "decoder_ffn_dim"), 48),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "max_seq_len", "n_ctx"), LENGTH),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts"), 4),
    "num_key_value_heads": 2,
    "head_dim": 8,
    "rotary_dim": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "n_group": 1,
    "topk_group": 1,
    "sliding_window": 8,
    "initializer_range": 0.3,
    "is_decoder": True,
}
CHANGES: dict[str, dict[str, Any]] = {"gpt_neo": {"attention_types": [[["global", "local"], 1]], "window_size": 8}}


def family(name: str) -> Any:
    """A tiny random model of the family, frozen."""
    if name not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        pytest.skip(f"this version of transformers has no {name}")
    kind = getattr(transformers, CONFIG_MAPPING_NAMES[name])
    known = set(inspect.signature(kind.__init__).parameters) | set(getattr(kind, "__annotations__", ()))
    sizes = {key: size for key, size in SIZES.items() if key in known or key in kind.attribute_map}
    sizes = {key: size for key, size in sizes.items() if kind.attribute_map.get(key) not in sizes}
    always = {key: SIZES[key] for key in ("vocab_size", "bos_token_id", "eos_token_id", "pad_token_id")}
    return seeded(
        getattr(transformers, MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[name]), kind(**(always | sizes | CHANGES.get(name, {})))
    )


def seeded(kind: Any, config: Any) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return kind(config).eval().requires_grad_(False)


def log_probs(model: LanguageModel, states: torch.Tensor) -> np.ndarray:
    return torch.log_softmax(model.logits(states), dim=-1).numpy()


@torch.no_grad()
def plain_log_probs(model: LanguageModel, ids: list[int]) -> np.ndarray:
    """Of every next token after every token of a row, by one plain call of the model. Shape: (S, V)."""
    row = torch.tensor([ids])
    logits = model.model(input_ids=row, attention_mask=torch.ones_like(row)).logits[0]
    return torch.log_softmax(logits.float(), dim=-1).numpy()


class Play:
    """Three rows of random tokens through one cache; a row that ends is checked against a plain call and restarts."""

    def __init__(self, model: LanguageModel, length: int) -> None:
        self.model, self.length = model, length
        self.rng = np.random.default_rng(0)
        self.decoder = decoder_for(model, 3, length)
        self.rows: list[list[int]] = [[], [], []]
        self.found: list[list[np.ndarray]] = [[], [], []]
        self.start([0, 1, 2])

    def start(self, rows: list[int]) -> None:
        prompts = [self.rng.integers(1, V, self.rng.integers(1, 6)) for _ in rows]
        states = log_probs(self.model, self.decoder.prefill(rows, prompts))
        for row, prompt, state in zip(rows, prompts, states, strict=True):
            self.rows[row], self.found[row] = prompt.tolist(), [state]

    def steps(self, count: int) -> None:
        for _ in range(count):
            self.step()

    def step(self) -> None:
        alive = np.array([len(row) < self.length for row in self.rows]) & (self.rng.random(3) > 0.05)
        alive[0] = alive[0] or not alive.any()
        if len(self.rows[0]) >= self.length:
            alive[0] = False
        tokens = self.rng.integers(1, V, 3)
        if alive.any():
            states = log_probs(self.model, self.decoder.advance(tokens, alive))
            for row in np.flatnonzero(alive):
                self.rows[row].append(int(tokens[row]))
                self.found[row].append(states[row])
        ended = np.flatnonzero(~alive).tolist()
        for row in ended:
            self.check(row)
        if ended:
            self.start(ended)

    def check(self, row: int) -> None:
        expected = plain_log_probs(self.model, self.rows[row])[-len(self.found[row]) :]
        np.testing.assert_allclose(np.stack(self.found[row]), expected, atol=ROUNDING)


@pytest.mark.parametrize("name", FAMILIES.split())
def test_stepping_and_teacher_forcing_equal_a_plain_call(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = LanguageModel(family(name), make_tokenizer())
    assert model.max_length in (LENGTH, None)
    play = Play(model, LENGTH)
    play.steps(45)
    rows = [play.rng.integers(1, V, size) for size in (LENGTH, 9, 5)]
    forced = model.logits(
        decoder_for(model).teacher_forced([row[:4] for row in rows], [row[4:] for row in rows]).before
    )
    expected = np.concatenate([plain_log_probs(model, row.tolist())[3:-1] for row in rows])
    np.testing.assert_allclose(torch.log_softmax(forced, dim=-1).numpy(), expected, atol=ROUNDING)
    check_shared_prompts(model, play.rng, monkeypatch)


def check_shared_prompts(model: LanguageModel, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that share a prompt, teacher-forced behind copies of its cache, with and without pads on both sides."""
    monkeypatch.setattr(shared_prompts, "SECOND_PASS_ON_CPU", 1)
    monkeypatch.setattr(shared_prompts, "LEAST_SHARE_SAVED", 0.0)
    prompts = [rng.integers(1, V, size) for size in (11, 4)]
    prompts = [prompts[0], prompts[1], prompts[0], prompts[0], prompts[1]]
    responses = [rng.integers(1, V, size) for size in (2, 14, 5, 9, 1)]  # 25 slots, 20 positions
    monkeypatch.setattr(model, "hidden", counting := Counting(model.hidden))
    states = decoder_for(model).teacher_forced(prompts, responses).before
    assert counting.shapes == ([(2, 11), (5, 14)] if model.max_cache_slots is None else [(5, 20)])
    expected = np.concatenate(
        [
            plain_log_probs(model, [*prompt, *response])[len(prompt) - 1 : -1]
            for prompt, response in zip(prompts, responses, strict=True)
        ]
    )
    np.testing.assert_allclose(log_probs(model, states), expected, atol=ROUNDING)


class Counting:
    """A function of token ids that notes their shapes."""

    def __init__(self, function: Callable[..., torch.Tensor]) -> None:
        self.function, self.shapes = function, list[tuple[int, ...]]()

    def __call__(self, input_ids: torch.Tensor, *args: Any) -> torch.Tensor:
        self.shapes.append(tuple(input_ids.shape))
        return self.function(input_ids, *args)


@pytest.mark.parametrize("name", PLACED_BY_SLOT)
def test_models_that_place_a_token_by_its_slot_are_refused(name: str) -> None:
    with pytest.raises(UnsupportedModelError, match="goes by the token's slot in the cache, which shifts when a row"):
        LanguageModel(family(name), make_tokenizer())


def long_rope(original: int) -> LanguageModel:
    """Phi-3 with twice its original context, where other factors hold."""
    config = transformers.Phi3Config(
        **{key: size for key, size in SIZES.items() if key in inspect.signature(transformers.Phi3Config).parameters}
        | {
            "max_position_embeddings": 2 * original,
            "original_max_position_embeddings": original,
            "sliding_window": None,
        },
        rope_parameters={
            "rope_type": "longrope",
            "rope_theta": 1e4,
            "short_factor": [1.0] * 4,
            "long_factor": [1.0, 3.0, 9.0, 20.0],
        },
    )
    return LanguageModel(seeded(transformers.Phi3ForCausalLM, config), make_tokenizer())


def test_a_long_rope_model_is_exact_within_its_original_context() -> None:
    model = long_rope(LENGTH)
    assert model.max_length == LENGTH
    play = Play(model, LENGTH)
    play.steps(60)


def test_a_long_rope_model_is_refused_past_its_original_context_only() -> None:
    reference = Reference(long_rope(10))
    TextTask.of(reference, ["a b"], sampling=SamplingConfig(max_new_tokens=8))
    with pytest.raises(
        ConfigError, match=r"must fit the model's 10 positions, got .* counts the positions of its original context"
    ):
        TextTask.of(reference, ["a b"], sampling=SamplingConfig(max_new_tokens=9))
    past = Play(reference.language_model, LENGTH)
    with pytest.raises(AssertionError, match="Not equal to tolerance"):  # what it would pay otherwise
        past.steps(60)
