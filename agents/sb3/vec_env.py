"""The vector environment as a ``VecEnv`` of Stable-Baselines3: one reference pass per step for all rows.

Knows: SB3's conventions (an episode that ends is followed by the next one in the same step, infos are a list, a seed
waits for the next reset). Does not know: agents; an agent's log-probabilities come through a
:class:`lm_gym.PolicyHandle`.

Shapes: B = rows, L = columns of an observation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from stable_baselines3.common.vec_env import VecEnv

from lm_gym.envs.policy_handle import LogProb, PolicyHandle
from lm_gym.envs.vector_env import TextGenerationVectorEnv
from lm_gym.envs.wrappers import VectorPolicyLogProb
from lm_gym.errors import ConfigError
from lm_gym.tools.settings import shown

from .token_space import TokenSpace

__all__ = ["SB3VecEnv"]

Observation = dict[str, np.ndarray]
ROW_METHODS = ("action_masks", "render")
"""Methods of the environment whose result has one entry per row."""


class SB3VecEnv(VecEnv):
    """B rows of text generation for an agent of Stable-Baselines3.

    In action mode "token_and_log_prob" the environment is paid the log-probabilities of the agent that is bound::

        env = SB3VecEnv(gymnasium.make_vec(id, num_envs=32, action_mode="token_and_log_prob"))
        agent = PPO(LanguageModelActorCriticPolicy, env, gamma=1.0, policy_kwargs={"model": folder})
        env.log_prob.bind(agent)

    All rows are one environment: its attributes are set for all of them, and its reward model is asked once per step.
    Departure from ``DummyVecEnv``: whatever the environment's autoreset mode, the adapter begins the next episode
    itself, in the step that ended the last one.
    """

    def __init__(self, env: VectorEnv[Any, Any, Any], log_prob: PolicyHandle | LogProb | None = None) -> None:
        """Args:
        env: what ``gymnasium.make_vec(id, num_envs=B)`` of an environment of this library gives, or
            :class:`lm_gym.VectorPolicyLogProb` around one.
        log_prob: handle that the agent is bound to, or a function (see :meth:`lm_gym.PolicyHandle.bind`); None makes a
            handle, :attr:`log_prob`, in action mode "token_and_log_prob".

        Raises:
            ConfigError: it is no such environment, another wrapper is around it, or it takes no log-probability.
        """
        self._native = _native(env)
        task = self._native.task
        if task.action_mode == "token" and log_prob is not None:
            raise ConfigError(
                'SB3VecEnv: log_prob must be None in action_mode="token", where no log-probability is paid, got '
                f'{shown(log_prob)}; make the environment with action_mode="token_and_log_prob"'
            )
        if isinstance(env, VectorPolicyLogProb) and log_prob is not None:
            raise ConfigError(
                "SB3VecEnv: log_prob must be given once, and VectorPolicyLogProb around the environment has one; leave "
                "it out"
            )
        if task.action_mode == "token_and_log_prob" and not isinstance(env, VectorPolicyLogProb):
            env = VectorPolicyLogProb(env, PolicyHandle() if log_prob is None else log_prob)
        self.env = env
        self.log_prob: PolicyHandle | None = env.log_prob if isinstance(env, VectorPolicyLogProb) else None
        self._actions = np.zeros(self._native.num_envs, dtype=np.int64)
        super().__init__(
            self._native.num_envs,
            self._native.single_observation_space,
            TokenSpace(task.vocab_size, task.sampling, task.action_mode),
        )

    def reset(self) -> Observation:
        """Begin an episode in every row, with the seeds and options that were set since the last reset.

        Returns: observations (B, L); the prompts are in ``reset_infos``.

        Raises:
            PromptError, ConfigError: see :meth:`lm_gym.TextGenerationVectorEnv.reset`.
        """
        alike = all(options == self._options[0] for options in self._options)
        groups = [list(range(self.num_envs))] if alike else [[row] for row in range(self.num_envs)]
        for rows in groups:
            mask = np.isin(np.arange(self.num_envs), rows)
            options = {**self._options[rows[0]], "reset_mask": mask}
            observation, info = self.env.reset(seed=self._seeds, options=options)
            self._note_resets(info, mask)
        self._reset_seeds()
        self._reset_options()
        return dict(observation)

    def step_async(self, actions: np.ndarray) -> None:
        """Take tokens for the next step. Args: actions of shape (B,), int64."""
        self._actions = actions

    def step_wait(self) -> tuple[Observation, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        """Append a token to every row; a row whose episode ends shows the start of its next one.

        Returns: observations (B, L), rewards (B,) float32, ends (B,) bool, and a list of B infos. At an end,
        ``info["terminal_observation"]`` is what the episode ended with, and ``info["TimeLimit.truncated"]`` is True if
        it was truncated.

        Raises:
            ActionError, RewardModelError, UnsupportedModelError: see :meth:`lm_gym.TextGenerationVectorEnv.step`.
            ConfigError: the bound agent did not draw these tokens.
        """
        observation, rewards, terminated, truncated, info = self.env.step(self._actions)
        ended = terminated | truncated
        infos = _rows_of(info, np.ones_like(ended))
        if self._native.autoreset_mode is AutoresetMode.SAME_STEP:
            self._note_resets(info, ended)
            for row, last in _rows_of(info.get("final_info", {}), ended).items():
                infos[row] = {**last, "terminal_observation": info["final_obs"][row]}
        elif ended.any():
            for at in np.flatnonzero(ended):
                infos[int(at)]["terminal_observation"] = {key: value[at] for key, value in observation.items()}
            observation, begun = self.env.reset(options={"reset_mask": ended})
            self._note_resets(begun, ended)
        for row, found in infos.items():
            found["TimeLimit.truncated"] = bool(truncated[row])
        return dict(observation), rewards.astype(np.float32), ended, list(infos.values())

    def close(self) -> None:
        """Close the environment."""
        self.env.close()

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """An attribute of the environment, once per row that is asked for.

        Raises:
            AttributeError: it has none of that name.
        """
        owner = self.env if attr_name == "log_prob" else self._native
        return [getattr(owner, attr_name)] * len(self._rows(indices))

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Set an attribute of the environment (``kl_coef``, ``reward_model``) for all rows.

        Raises:
            ConfigError: only some of the rows are meant.
        """
        if len(self._rows(indices)) < self.num_envs:
            raise ConfigError(
                f"SB3VecEnv.set_attr: {attr_name!r} must be set for all {self.num_envs} rows, which are one "
                f"environment, got indices {shown(indices)}; leave indices out"
            )
        setattr(self._native, attr_name, value)

    def env_method(self, method_name: str, *method_args: Any, indices: Any = None, **method_kwargs: Any) -> list[Any]:
        """Call a method of the environment once.

        Returns: one entry per row that is asked for: of ``action_masks`` and ``render`` the row's own, of any other
        method what it returned.
        """
        found = getattr(self._native, method_name)(*method_args, **method_kwargs)
        by_row = method_name in ROW_METHODS and found is not None
        return [found[row] if by_row else found for row in self._rows(indices)]

    def env_is_wrapped(self, wrapper_class: type, indices: Any = None) -> list[bool]:
        """True for every row if a wrapper of the class is around the environment."""
        return [isinstance(self.env, wrapper_class)] * len(self._rows(indices))

    def _rows(self, indices: Any) -> Sequence[int]:
        return list(self._get_indices(indices))

    def _note_resets(self, info: Mapping[str, Any], begun: np.ndarray) -> None:
        for row, found in _rows_of(info, begun).items():
            self.reset_infos[row] = found


def _native(env: Any) -> TextGenerationVectorEnv:
    """The environment inside.

    Raises:
        ConfigError: it is none of this library, or a wrapper that SB3's conventions do not pass is around it.
    """
    inner = env.env if isinstance(env, VectorPolicyLogProb) else env
    if isinstance(inner, TextGenerationVectorEnv):
        return inner
    wrapped = isinstance(getattr(inner, "unwrapped", None), TextGenerationVectorEnv)
    raise ConfigError(
        f"SB3VecEnv: needs the vector environment itself, or VectorPolicyLogProb around it, got {type(env).__name__}; "
        + (
            "put the wrappers of Stable-Baselines3 (VecMonitor, VecNormalize) around SB3VecEnv instead"
            if wrapped
            else "make it by gymnasium.make_vec(id, num_envs=...), without a vectorization_mode"
        )
    )


def _rows_of(info: Mapping[str, Any], wanted: np.ndarray) -> dict[int, dict[str, Any]]:
    """The info of a vector environment, row by row, as plain Python values; what is said of a last step is left out.

    Args:
        info: ``key`` beside ``_key``, which tells the rows that have one.
        wanted: rows that are shown. Shape: (B,), bool.
    """
    rows: dict[int, dict[str, Any]] = {int(row): {} for row in np.flatnonzero(wanted)}
    for key, values in info.items():
        if key.startswith("_") or key in ("final_obs", "final_info"):
            continue
        for row in np.flatnonzero(wanted & info[f"_{key}"]):
            value = values[row]
            rows[int(row)][key] = value.item() if isinstance(value, np.generic) else value
    return rows
