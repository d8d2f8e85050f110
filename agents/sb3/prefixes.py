"""States of a language model after prefixes of text: cached while acting, with gradients while learning.

Stable-Baselines3 shuffles single steps into minibatches, each with its whole prefix. Prefixes of one response are
prefixes of each other, so a pass over the longest gives the states of all: a minibatch costs one pass over the
responses that it has steps of, which is teacher forcing, and not one pass per step.

Shapes: B = prefixes, L = columns of an observation, R = prefixes that no other prefix holds, H = hidden width.
"""

from __future__ import annotations

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor

from lm_gym.errors import UnsupportedModelError
from lm_gym.models.language_model import LanguageModel
from lm_gym.models.teacher_forcing import token_batches

from ..acting import TokenActor
from ..policy import LanguageModelPolicy

__all__ = ["PrefixStates", "longest_prefixes", "prefix_states"]

MAX_BATCH_TOKENS = 1 << 14
"""Padded tokens of one forward pass; a minibatch may take several, which its backward pass holds at once."""


def longest_prefixes(ids: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rows that are no prefix of another row, and the one of them that each row is a prefix of.

    Args:
        ids: right-padded. Shape: (B, L), int64.
        lengths: tokens per row, >= 1. Shape: (B,), int64.

    Returns: row numbers (R,), and an index into them for each row (B,), both int64. Of rows that are equal one stays.
    """
    counted = np.where(np.arange(ids.shape[1]) < lengths[:, None], ids, -1)
    order = np.lexsort(
        counted.T[::-1]
    )  # in the order of a dictionary, where a prefix stands right before what holds it
    ordered = counted[order]
    held = ((ordered[:-1] == ordered[1:]) | (ordered[:-1] == -1)).all(axis=1)
    last = np.flatnonzero(np.append(~held, True))
    holder = np.empty(len(ids), dtype=np.int64)
    holder[order] = np.searchsorted(last, np.arange(len(ids)))
    return order[last], holder


def prefix_states(model: LanguageModel, ids: np.ndarray, lengths: np.ndarray) -> Tensor:
    """State after the last token of each prefix; autograd follows if it is on.

    Args:
        model: decoder-only, so that a token's state is the same whatever follows it.
        ids: right-padded. Shape: (B, L), int64.
        lengths: tokens per row, >= 1. Shape: (B,), int64.

    Returns: Shape: (B, H).
    """
    rows, holder = longest_prefixes(ids, lengths)
    found, order = [], []
    for part in token_batches(lengths[rows], MAX_BATCH_TOKENS, model.device):
        place = np.full(len(rows), -1)
        place[part] = np.arange(len(part))
        members = np.flatnonzero(place[holder] >= 0)
        width = int(lengths[rows[part]].max())
        hidden = model.hidden(torch.from_numpy(ids[rows[part], :width]).to(model.device))
        at = torch.from_numpy(place[holder[members]] * width + lengths[members] - 1)
        found.append(hidden.flatten(0, 1).index_select(0, at.to(hidden.device)))
        order.append(members)
    back = torch.from_numpy(np.argsort(np.concatenate(order)))
    return torch.cat(found)[back.to(found[0].device)]


class PrefixStates(BaseFeaturesExtractor):
    """SB3's features of an observation: what the LM head reads after its last token."""

    def __init__(self, observation_space: spaces.Dict, policy: LanguageModelPolicy) -> None:
        """Args:
        observation_space: of an environment of this library.
        policy: its language model is trained in place.

        Raises:
            UnsupportedModelError: it is an encoder-decoder.
        """
        if policy.language_model.is_encoder_decoder:
            raise UnsupportedModelError(
                f"policy {type(policy.model).__name__}: must be a causal language model for an agent of "
                "Stable-Baselines3, which learns from shuffled observations that do not tell where a prompt ends, and "
                "is an encoder-decoder; train it by an agent of lm_gym.agents"
            )
        super().__init__(observation_space, features_dim=policy.language_model.hidden_size)
        self.model = policy.model  # a module, so that SB3 moves, saves and trains its weights
        self.policy = policy
        self._actor = TokenActor(policy.language_model)

    def forward(self, observations: dict[str, Tensor]) -> Tensor:
        """Args: observations: ``input_ids`` and ``attention_mask`` of shape (B, L), numbers of any type.

        Returns: Shape: (B, H), float32.
        """
        ids = observations["input_ids"].long().cpu().numpy()
        lengths = observations["attention_mask"].long().sum(dim=1).cpu().numpy()
        if not (self.training or torch.is_grad_enabled()):
            return self._actor.states(ids, lengths)[0].float()
        self.refresh()  # a step of an optimiser is about to follow
        return prefix_states(self.policy.language_model, ids, lengths).float()

    def train(self, mode: bool = True) -> PrefixStates:
        """Learn or act; dropout is off in both, since a ratio of probabilities compares weights."""
        super().train(mode)
        self.model.eval()
        return self

    def refresh(self) -> None:
        """Forget what was computed with older weights."""
        self._actor.refresh()
        self.policy.refresh()
