"""Episodes whose KL is known."""

from dataclasses import replace
from typing import Any

import numpy as np

from lm_gym import Episodes


def with_kl(episodes: Episodes, last: Any) -> Episodes:
    """The same responses and scores, paid for another KL of their last token, and for none before it.

    Args: last: k1 in nats, one number or of shape (B,).
    """
    rows = np.arange(len(episodes)), episodes.response_lengths - 1
    kl, rewards = np.zeros_like(episodes.rewards), np.zeros_like(episodes.rewards)
    kl[rows] = last
    rewards[rows] = episodes.scores - episodes.kl_coef * kl[rows]
    return replace(episodes, kl=kl, rewards=rewards)
