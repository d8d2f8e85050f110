"""Checks of a policy's weights: that they can learn, and that no reference learns with them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from torch import nn

from lm_gym.errors import ConfigError, UnsupportedModelError
from lm_gym.models.language_model import LanguageModel
from lm_gym.models.lora import has_updates
from lm_gym.models.reference import Reference

__all__ = ["check_apart", "check_can_be_saved", "check_can_learn", "check_learns_in_float32"]


def check_can_learn(language_model: LanguageModel, *, separate_critic: bool) -> None:
    """Refuse a model that would not learn, or not what it is told to.

    Raises:
        ConfigError: it is the base of an adapter, or a critic of its own is asked for under one.
        UnsupportedModelError: weights that learn are neither float32 nor bfloat16, or updates are on the model that its
            ``adapter`` does not name.
    """
    model = language_model.model
    name = f"policy {type(model).__name__}"
    if language_model.is_base:
        raise ConfigError(
            f"{name}: must be a model that learns, and got the base() of one, which stays as it is whatever its "
            "adapter learns; give that language model itself, or a copy of the base (own_copy)"
        )
    if language_model.adapter is None and has_updates(model):
        raise UnsupportedModelError(
            f"{name}: has low-rank updates on it, whose adapter must come with it, or they could not be saved; pass "
            "LanguageModel(model, tokenizer, adapter=add_adapter(model, ...)), or use from_pretrained(name, lora=...)"
        )
    if language_model.adapter is not None and separate_critic:
        raise ConfigError(
            f"{name}: separate_critic must be False under an adapter, whose point is one copy of the model, and a "
            "trunk for the critic would be a second one; leave it out, or train every weight"
        )
    if low := _types_of_learning(model) - {torch.float32, torch.bfloat16}:
        raise UnsupportedModelError(
            f"{name}: weights that learn must be float32 or bfloat16, got {', '.join(sorted(map(str, low)))}, whose "
            'gradients run over or vanish; load it with dtype="auto" (float32 weights, and bf16 autocast where the '
            "hardware has it)"
        )


def check_learns_in_float32(subject: str, model: nn.Module) -> None:
    """Refuse weights that an optimiser without float32 copies would not move. Args: subject: of an error.

    Raises:
        UnsupportedModelError: a weight that learns is of another type.
    """
    if low := _types_of_learning(model) - {torch.float32}:
        raise UnsupportedModelError(
            f"{subject}: weights that learn must be float32, got {', '.join(sorted(map(str, low)))}, which rounds most "
            'steps of an optimiser away; load them with dtype="auto", or use an agent of this library'
        )


def _types_of_learning(model: nn.Module) -> set[torch.dtype]:
    weights = list(model.parameters())
    return {weight.dtype for weight in [one for one in weights if one.requires_grad] or weights}


def check_can_be_saved(language_model: LanguageModel, folder: str | Path) -> None:
    """Refuse an adapter whose base nobody could find again, or would be lost in the folder that is to be written.

    Raises:
        ConfigError: see :meth:`lm_gym.models.lora.Adapter.check_can_be_saved`.
    """
    if language_model.adapter is not None:
        language_model.adapter.check_can_be_saved(f"policy {type(language_model.model).__name__}", folder)


def check_apart(subject: str, learned: Iterable[nn.Parameter], reference: Reference | None) -> None:
    """Refuse a reference that would drift with the policy.

    Args:
        subject: of an error, the agent's name.
        learned: weights that the policy learns.
        reference: of the environment; the base under the policy's own adapter holds none of them.

    Raises:
        ConfigError: it holds one of them.
    """
    numbers = {id(weight) for weight in learned}
    if reference is not None and any(id(weight) in numbers for weight in reference.language_model.weights().values()):
        raise ConfigError(
            f"{subject}: policy and reference must not share weights that learn, or the KL stays 0 while both drift; "
            "got one model for both; train a copy (copy.deepcopy(model)), or load one with "
            "LanguageModelPolicy.from_pretrained; with lora=LoraSettings() there, policy.reference() shares the rest"
        )
