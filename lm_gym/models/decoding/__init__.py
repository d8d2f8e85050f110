"""Decoders of language models, one file for each kind, and the checks that a model can be decoded so.

Which kind a model is, :func:`lm_gym.models.decoder.decoder_for` asks. Heads, sampling and text live elsewhere.
"""
