"""Numbers that the configuration of a model holds: its positions, the tokens that begin and end a response, its head.

Shapes: V = vocabulary.
"""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = [
    "decoder_positions",
    "encoder_positions",
    "head_scale",
    "is_encoder_decoder",
    "longest_sequence",
    "positions_in_words",
    "start_token_id",
    "stop_token_ids",
]


def is_encoder_decoder(model: PreTrainedModel) -> bool:
    """True for a model with a prompt's encoder and a response's decoder apart."""
    return bool(getattr(model.config, "is_encoder_decoder", False))


def longest_sequence(model: PreTrainedModel) -> int | None:
    """Most tokens of one sequence; see :attr:`lm_gym.models.language_model.LanguageModel.max_length`."""
    if is_encoder_decoder(model):
        lengths = [encoder_positions(model.config), decoder_positions(model.config)]
    else:
        config = model.config.get_text_config()
        lengths = [_positions(config), *_long_rope_contexts(config)]
    return min((length for length in lengths if length), default=None)


def positions_in_words(model: PreTrainedModel) -> str:
    """The positions that prompt and response share, or have each, for messages."""
    if not is_encoder_decoder(model):
        return f"{longest_sequence(model)} positions"
    prompt, response = encoder_positions(model.config), decoder_positions(model.config)
    return f"{prompt} positions of the prompt and {None if response is None else response - 1} of the response"


def encoder_positions(config: Any) -> int | None:
    """Longest prompt of an encoder-decoder, in tokens; None if unbounded (T5's relative positions)."""
    return _first(config, "max_encoder_position_embeddings") or _positions(config.get_text_config(encoder=True))


def decoder_positions(config: Any) -> int | None:
    """Longest start token and response of an encoder-decoder, in tokens; None if unbounded."""
    return _first(config, "max_decoder_position_embeddings") or _positions(config.get_text_config(decoder=True))


def _positions(config: Any) -> int | None:
    return _first(config, "max_position_embeddings", "max_seq_len")


def _first(config: Any, *names: str) -> int | None:
    found = (getattr(config, name, None) for name in names)
    return next((int(number) for number in found if number), None)


def _long_rope_contexts(config: Any) -> list[int]:
    """Tokens of each original context that long-rope parameters name: one for all layers, or one for each kind."""
    parameters = getattr(config, "rope_parameters", None) or {}
    kinds = [kind for kind in (parameters, *parameters.values()) if isinstance(kind, dict)]
    return [int(kind["original_max_position_embeddings"]) for kind in kinds if kind.get("rope_type") == "longrope"]


def stop_token_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """Tokens that end a response: the tokenizer's, then those of the generation config."""
    ids = [int(tokenizer.eos_token_id)]
    generation = getattr(model, "generation_config", None)
    extra = getattr(generation, "eos_token_id", None)
    for token in extra if isinstance(extra, list) else [extra]:
        if token is not None and int(token) not in ids:
            ids.append(int(token))
    return tuple(ids)


def start_token_id(model: PreTrainedModel) -> int | None:
    """The token that an encoder-decoder's response is written after; None where the model names none."""
    for config in (getattr(model, "generation_config", None), model.config, model.config.get_text_config(decoder=True)):
        found = getattr(config, "decoder_start_token_id", None)
        if found is not None:
            return int(found[0] if isinstance(found, list) else found)
    return None


def head_scale(model: PreTrainedModel) -> float:
    """Factor of the states before the head: d_model ** -0.5 in T5 and its kin whose head is the embedding, else 1."""
    config = model.config
    tied = getattr(config, "tie_word_embeddings", False) and config.model_type in ("umt5", "switch_transformers")
    return float(config.d_model**-0.5) if getattr(config, "scale_decoder_outputs", tied) else 1.0
