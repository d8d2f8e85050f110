"""Tiny random models, a word tokenizer, score functions and scripted policies; nothing is downloaded.

The tokenizer has one token per word: 0 is EOS *and* pad, 1 is "a", 2 is "b", ..., 26 is "z", 27 is "a1". Texts are
words joined by spaces, so a text's length and content are easy to work out by hand.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BloomConfig,
    BloomForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

from lm_gym import (
    LanguageModel,
    Reference,
    SamplingConfig,
    TextGenerationEnv,
    TextGenerationVectorEnv,
    TextTask,
)
from lm_gym.models.generate import LanguageModelSampler
from lm_gym.policy import Generation

V = 32
"""Tokens of the vocabulary, EOS included."""
EOS = 0
MAX_LENGTH = 32
"""Positions of the models that have a limit."""
CAUSAL = ("gpt2", "llama", "qwen2", "bloom")
"""Learned positions; rotary with grouped queries, twice; ALiBi without position ids."""
ENCODER_DECODERS = ("t5", "bart")
"""Relative positions; learned positions, and a bias on the logits. Their tokenizer ends every prompt by EOS."""
ARCHITECTURES = (*CAUSAL, *ENCODER_DECODERS)
PROMPTS = ("a b c", "d", "e f g h i j", "b b")

_SHARED: dict[str, Any] = {"vocab_size": V, "bos_token_id": EOS, "eos_token_id": EOS, "initializer_range": 0.3}
_SIDES = {f"{side}_{key}": 2 for side in ("encoder", "decoder") for key in ("layers", "attention_heads")}
_TWO_SIDED: dict[str, Any] = _SHARED | {"d_model": 32, "pad_token_id": EOS, "decoder_start_token_id": EOS}
_GROUPED: dict[str, Any] = _SHARED | {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": MAX_LENGTH,
}


def make_tokenizer(size: int = V, *, ends_prompts: bool = False, **specials: str | None) -> PreTrainedTokenizerFast:
    """The word tokenizer; ``specials`` overrides the special tokens (None leaves one out)."""
    words = [chr(ord("a") + number % 26) + (str(number // 26) if number >= 26 else "") for number in range(size - 1)]
    vocabulary = {word: number for number, word in enumerate(["<eos>", *words])}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="<eos>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if ends_prompts:
        core.post_processor = processors.TemplateProcessing(single="$A <eos>", special_tokens=[("<eos>", EOS)])
    special = {"eos_token": "<eos>", "pad_token": "<eos>"} | specials
    return PreTrainedTokenizerFast(tokenizer_object=core, **{k: v for k, v in special.items() if v is not None})


def make_model(architecture: str = "gpt2", seed: int = 0, **changes: Any) -> PreTrainedModel:
    """Two layers of width 32, frozen, in eval mode; wide random weights, so that a wrong mask or position shows."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: PreTrainedModel
        if architecture == "gpt2":
            sizes = {"n_positions": MAX_LENGTH, "n_embd": 32, "n_layer": 2, "n_head": 2}
            model = GPT2LMHeadModel(GPT2Config(**(_SHARED | sizes | changes)))
        elif architecture == "bloom":
            sizes = {"hidden_size": 32, "n_layer": 2, "n_head": 4, "pad_token_id": EOS}
            model = BloomForCausalLM(BloomConfig(**(_SHARED | sizes | changes)))
        elif architecture == "mistral":
            model = MistralForCausalLM(MistralConfig(**(_GROUPED | {"sliding_window": 4} | changes)))
        elif architecture == "t5":
            sizes = {"d_kv": 16, "d_ff": 48, "num_layers": 2, "num_heads": 2, "relative_attention_num_buckets": 8}
            model = T5ForConditionalGeneration(T5Config(**(_TWO_SIDED | {"initializer_factor": 1.5} | sizes | changes)))
        elif architecture == "bart":
            sizes = _SIDES | {"encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "max_position_embeddings": MAX_LENGTH}
            model = BartForConditionalGeneration(BartConfig(**(_TWO_SIDED | {"init_std": 0.3} | sizes | changes)))
            model.final_logits_bias.normal_()
        elif architecture == "qwen2":
            model = Qwen2ForCausalLM(Qwen2Config(**(_GROUPED | changes)))
        else:
            assert architecture == "llama"
            model = LlamaForCausalLM(LlamaConfig(**(_GROUPED | changes)))
    return model.eval().requires_grad_(False)


def architecture_model(architecture: str) -> LanguageModel:
    return LanguageModel(make_model(architecture), make_tokenizer(ends_prompts=architecture in ENCODER_DECODERS))


def gpt2_parts() -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """A factory as ``gym.make`` takes it."""
    return make_model(), make_tokenizer()


def length_score(prompts: Sequence[str], completions: Sequence[str], **kwargs: Any) -> list[float]:
    """The number of words of the response."""
    return [float(len(text.split())) for text in completions]


def text_score(prompts: Sequence[str], completions: Sequence[str], **kwargs: Any) -> list[float]:
    """A score that tells any two texts apart in practice."""
    pairs = zip(prompts, completions, strict=True)
    return [sum((n + 1) * ord(c) for n, c in enumerate(f"{p}|{r}")) % 97 / 10.0 for p, r in pairs]


def words(text: str) -> list[int]:
    """Ids of single-letter words; "$" is EOS."""
    return [EOS if word == "$" else ord(word) - ord("a") + 1 for word in text.split()]


def grid(rows: Sequence[Sequence[float]], dtype: Any = np.float64) -> tuple[np.ndarray, np.ndarray]:
    """Ragged rows as a zero-padded array and its mask."""
    width = max(len(row) for row in rows)
    values, mask = np.zeros((len(rows), width), dtype=dtype), np.zeros((len(rows), width), dtype=bool)
    for index, row in enumerate(rows):
        values[index, : len(row)] = row
        mask[index, : len(row)] = True
    return values, mask


def single_env(
    reference: Reference | None, prompts: Any, reward_model: Any = None, *, render_mode: str | None = None, **task: Any
) -> TextGenerationEnv:
    """An environment and its task in one call."""
    return TextGenerationEnv(TextTask.of(reference, prompts, **task), reward_model, render_mode=render_mode)


def vector_env(
    num_envs: int, reference: Reference | None, prompts: Any, reward_model: Any = None, **settings: Any
) -> TextGenerationVectorEnv:
    """A vector environment and its task in one call."""
    options = {name: settings.pop(name) for name in ("autoreset_mode", "render_mode") if name in settings}
    return TextGenerationVectorEnv(
        TextTask.of(reference, prompts, **settings), reward_model, num_envs=num_envs, **options
    )


class ScriptedPolicy:
    """A sampler that answers row i with tokens and log-probabilities that the test wrote down."""

    stores_keep_sets = True

    def __init__(self, tokens: Sequence[Sequence[int]], log_prob: float = -1.0, vocab_size: int = V) -> None:
        self.vocab_size = vocab_size
        self._ids, self._mask = grid(tokens, np.int64)
        self._log_prob = log_prob

    def generate(self, prompts: Sequence[np.ndarray], sampling: SamplingConfig) -> Generation:
        assert len(prompts) == len(self._ids)
        log_probs = np.where(self._mask, np.float32(self._log_prob), np.float32(0)).astype(np.float32)
        return Generation(ids=self._ids, mask=self._mask, log_probs=log_probs)

    def refresh(self, policy: Any) -> None:
        """Nothing changes."""


SamplingPolicy = LanguageModelSampler
"""Samples from a language model with the library's own decoder."""


@torch.no_grad()
def full_log_probs(model: LanguageModel, ids: Sequence[int] | np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """log pi of every next token after one prefix, by one plain forward pass. Shape: (V,), float64.

    The first EOS of an encoder-decoder's prefix ends its prompt; EOS starts its response too.
    """
    prefix = torch.tensor(np.asarray(ids), dtype=torch.long)[None]
    given: dict[str, Any] = {"input_ids": prefix}
    if model.model.config.is_encoder_decoder:
        start = int(np.flatnonzero(prefix[0] == EOS)[0])
        given = {"input_ids": prefix[:, : start + 1], "decoder_input_ids": prefix[:, start:]}
    logits = model.model(attention_mask=torch.ones_like(given["input_ids"]), **given).logits[0, -1]
    return torch.log_softmax(logits.double() / temperature, dim=-1).numpy()
