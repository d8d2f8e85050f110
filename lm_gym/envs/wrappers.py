"""Wrappers: ``PolicyLogProb``, the true KL for an agent whose action is only a token; and the way past a wrapper.

Outside, the action space is ``Discrete``; inside, the environment gets the token together with its log-probability
under the agent's own policy, which the wrapper asks for. Use it with ``ent_coef=0`` and ``gamma=1``: the entropy is
already in the reward, as part of the KL.

Whole responses are rolled out past every wrapper: :func:`vector_env_of` takes those off that change nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.utils import RecordConstructorArgs
from gymnasium.vector import AutoresetMode, VectorEnv, VectorRewardWrapper, VectorWrapper
from gymnasium.vector.utils import batch_space
from gymnasium.wrappers import NormalizeReward, OrderEnforcing, PassiveEnvChecker, RecordEpisodeStatistics, TimeLimit
from gymnasium.wrappers import vector as vector_wrappers

from lm_gym.envs.env import TextGenerationEnv
from lm_gym.envs.policy_handle import LogProb, PolicyHandle
from lm_gym.envs.vector_env import TextGenerationVectorEnv
from lm_gym.errors import ConfigError, EpisodeOverError

__all__ = ["AnyEnv", "PolicyLogProb", "VectorPolicyLogProb", "sharing_beta", "vector_env_of"]

AnyEnv = gymnasium.Env[Any, Any] | VectorEnv[Any, Any, Any]
"""An environment of this library: single or vector, bare or wrapped."""

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


_WATCH_ONLY = (
    OrderEnforcing,
    PassiveEnvChecker,
    PolicyLogProb,
    RecordEpisodeStatistics,
    VectorPolicyLogProb,
    vector_wrappers.RecordEpisodeStatistics,
)
_REWARD_WRAPPERS = (
    gymnasium.RewardWrapper,
    NormalizeReward,
    vector_wrappers.NormalizeReward,
    VectorRewardWrapper,
)


def vector_env_of(env: AnyEnv, subject: str) -> TextGenerationVectorEnv:
    """Return the vector environment that whole responses are rolled out in.

    A wrapper that changes neither reward nor observation is taken off. A single environment becomes a vector
    environment of one row with its task, reward model, beta and random streams, which go on from call to call; a
    rollout asks for as many episodes as it likes.

    Args:
        env: single or vector, bare or wrapped.
        subject: whoever asks, for messages.

    Raises:
        ConfigError: it is no environment of this library, or a wrapper may change what is paid or seen.
    """
    inner: Any = env
    around = []
    while isinstance(inner, gymnasium.Wrapper | VectorWrapper):
        around.append(inner)
        inner = inner.env
    if not isinstance(inner, TextGenerationEnv | TextGenerationVectorEnv):
        raise ConfigError(
            f"{subject}: needs an environment of lm_gym, got {type(inner).__name__}; make it by gymnasium.make_vec(id, "
            "num_envs=...), without a vectorization_mode, or by gymnasium.make(id)"
        )
    for wrapper in around:
        if type(wrapper) not in _WATCH_ONLY:
            raise ConfigError(
                f"{subject}: whole responses are rolled out past every wrapper, and {type(wrapper).__name__} may "
                f"change what an agent is paid or shown; {_instead_of(wrapper)}, or pass env.unwrapped to do without it"
            )
    if isinstance(inner, TextGenerationVectorEnv):
        return inner
    made = TextGenerationVectorEnv(inner.task, inner.reward_model, num_envs=1)
    made.kl_coef = inner.kl_coef
    made.np_random, made._draws = inner.np_random, inner._draws
    return made


@contextmanager
def sharing_beta(given: AnyEnv, used: TextGenerationVectorEnv) -> Iterator[None]:
    """A block in which ``used`` stands for ``given`` (see :func:`vector_env_of`), which has its beta at the end."""
    try:
        yield
    finally:
        if isinstance(given.unwrapped, TextGenerationEnv):
            given.unwrapped.kl_coef = used.kl_coef


def _instead_of(wrapper: Any) -> str:
    """The setting that does what a wrapper does."""
    if isinstance(wrapper, _REWARD_WRAPPERS):
        return "set score_weight, score_clip or normalizer of the environment, or change its reward model"
    if isinstance(wrapper, TimeLimit):
        return "set max_new_tokens of the environment (and leave max_episode_steps out)"
    return "put what it does into the settings of the environment or into its reward model"
