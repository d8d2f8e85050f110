"""``PolicyLogProb``: the true KL for an agent whose action is only a token.

Outside, the action space is ``Discrete``; inside, the environment gets the token together with its log-probability
under the agent's own policy, which the wrapper asks for. Use it with ``ent_coef=0`` and ``gamma=1``: the entropy is
already in the reward, as part of the KL.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.utils import RecordConstructorArgs
from gymnasium.vector import AutoresetMode, VectorEnv, VectorWrapper
from gymnasium.vector.utils import batch_space

from lm_gym.envs.policy_handle import LogProb, PolicyHandle
from lm_gym.errors import ConfigError, EpisodeOverError

__all__ = ["PolicyLogProb", "VectorPolicyLogProb"]

if TYPE_CHECKING:
    _VectorWrapper = VectorWrapper[Any, Any, Any, Any]
else:
    _VectorWrapper = VectorWrapper  # takes no type arguments before Gymnasium 1.4


def _token_space(space: gymnasium.Space[Any], name: str) -> spaces.Discrete:
    token = space.spaces.get("token") if isinstance(space, spaces.Dict) else None
    if not isinstance(token, spaces.Discrete):
        raise ConfigError(
            f'{name}: wraps an environment with action_mode="token_and_log_prob", got the action space {space}; '
            "make the environment in that mode"
        )
    return token


def _check_begun(observation: dict[str, np.ndarray]) -> None:
    if not observation:
        raise EpisodeOverError("step: needs a running episode, and none was begun; call reset()")


def _handle(log_prob: Any) -> PolicyHandle:
    return log_prob if isinstance(log_prob, PolicyHandle) else PolicyHandle().bind(log_prob)


class PolicyLogProb(gymnasium.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """For a single environment."""

    def __init__(self, env: gymnasium.Env[Any, Any], log_prob: PolicyHandle | LogProb) -> None:
        """Args:
        env: in action mode "token_and_log_prob".
        log_prob: a :class:`PolicyHandle`, or what its ``bind`` takes.
        """
        self.log_prob = _handle(log_prob)
        RecordConstructorArgs.__init__(self, log_prob=self.log_prob)
        gymnasium.Wrapper.__init__(self, env)
        self.action_space = _token_space(env.action_space, "PolicyLogProb")
        self._observation: dict[str, np.ndarray] = {}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Reset the environment."""
        self._observation, info = self.env.reset(seed=seed, options=options)
        return self._observation, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Step with the token and its log-probability under the bound policy."""
        _check_begun(self._observation)
        batch = {key: value[None] for key, value in self._observation.items()}
        tokens = np.asarray(action).reshape(1)
        log_prob = float(self.log_prob.log_probs(batch, tokens, rows=None, asker=self)[0])
        try:
            result = self.env.step({"token": action, "log_prob": log_prob})
        except BaseException:
            self.log_prob.forget()
            raise
        self._observation = result[0]
        return result


class VectorPolicyLogProb(_VectorWrapper, RecordConstructorArgs):
    """For a vector environment."""

    def __init__(self, env: VectorEnv[Any, Any, Any], log_prob: PolicyHandle | LogProb) -> None:
        """Args:
        env: in action mode "token_and_log_prob".
        log_prob: a :class:`PolicyHandle`, or what its ``bind`` takes.
        """
        self.log_prob = _handle(log_prob)
        RecordConstructorArgs.__init__(self, log_prob=self.log_prob)
        VectorWrapper.__init__(self, env)
        self.single_action_space = _token_space(env.single_action_space, "VectorPolicyLogProb")
        self.action_space = batch_space(self.single_action_space, env.num_envs)
        self._observation: dict[str, np.ndarray] = {}
        self._ignored = np.zeros(env.num_envs, dtype=bool)

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Reset the environment."""
        mask = None if options is None else options.get("reset_mask")
        self._ignored[slice(None) if mask is None else mask] = False
        self._observation, info = self.env.reset(seed=seed, options=options)  # type: ignore[arg-type]
        return self._observation, info

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Step with the tokens and their log-probabilities; the ignored action of a next-step autoreset gets 0."""
        _check_begun(self._observation)
        tokens = np.asarray(actions)
        log_probs = np.zeros(self.num_envs)
        rows = np.flatnonzero(~self._ignored)
        if rows.size:
            seen = {key: value[rows] for key, value in self._observation.items()}
            log_probs[rows] = self.log_prob.log_probs(seen, tokens[rows], rows=rows.tolist(), asker=self)
        try:
            result = self.env.step({"token": tokens, "log_prob": log_probs.astype(np.float32)})
        except BaseException:
            self.log_prob.forget()
            raise
        self._observation, _, terminated, truncated, _ = result
        if self.env.metadata.get("autoreset_mode") is AutoresetMode.NEXT_STEP:
            self._ignored = np.logical_or(terminated, truncated)
        return result
