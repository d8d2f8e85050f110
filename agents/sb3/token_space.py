"""The action space of :class:`lm_gym.agents.sb3.SB3VecEnv`: tokens, and the environment's rules for drawing them."""

from __future__ import annotations

from gymnasium import spaces

from lm_gym.config import SamplingConfig
from lm_gym.envs.task import ActionMode

__all__ = ["TokenSpace"]


class TokenSpace(spaces.Discrete):
    """``Discrete(V)`` that brings the environment's rules along.

    Stable-Baselines3 makes a policy from two spaces and shows it no environment; so the rules that the environment owns
    reach the policy, and are in what SB3 saves. Equal to any ``Discrete`` of its size.
    """

    def __init__(self, vocab_size: int, sampling: SamplingConfig, action_mode: ActionMode) -> None:
        """Args:
        vocab_size: V.
        sampling: rules that tokens are drawn by.
        action_mode: of the environment.
        """
        super().__init__(vocab_size)
        self.sampling = sampling
        self.action_mode = action_mode
