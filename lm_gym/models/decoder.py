"""The decoder of a model's kind: :func:`decoder_for` is the one place that asks what kind of model there is."""

from __future__ import annotations

from lm_gym.models.decoding.causal import CausalDecoder
from lm_gym.models.decoding.encoder_decoder import EncoderDecoder
from lm_gym.models.decoding.protocol import Decoder, ForcedStates
from lm_gym.models.language_model import LanguageModel

__all__ = ["CausalDecoder", "Decoder", "EncoderDecoder", "ForcedStates", "decoder_for"]


def decoder_for(model: LanguageModel, num_rows: int = 0, max_length: int = 1) -> Decoder:
    """The decoder of a model's kind.

    Args:
        model: whose states are wanted; it must not change while rows are alive.
        num_rows: B; 0 where only :meth:`Decoder.teacher_forced`, :meth:`Decoder.longest_prompt` and
            :meth:`Decoder.fits` are asked.
        max_length: longest prompt and response of one row, in tokens.
    """
    if model.is_encoder_decoder:
        return EncoderDecoder(model, num_rows)
    return CausalDecoder(model, num_rows, max_length)
