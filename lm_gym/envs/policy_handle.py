"""The log-probability of an action, asked of the agent that drew it.

Knows: three kinds of agents (a function; a policy that evaluates actions; an actor-critic that still holds the
distribution it drew from, as every one of Stable-Baselines3 and sb3-contrib does) and how to tell whose action it is.
Does not know: environments.

What an actor-critic drew from is read, not computed again: action masks, normalised or stacked observations and
recurrent states are then in it, and a policy that did not act is found out.

Shapes: B = rows that ask, N = rows that the agent acted for, V = vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from lm_gym.errors import ConfigError

__all__ = ["LogProb", "PolicyHandle"]

LogProb = Callable[[dict[str, np.ndarray], np.ndarray], Any]
MAX_DIFFERENCE_NATS = 1e-3
"""Difference between what is paid and what the agent stored that passes as rounding."""


@runtime_checkable
class _Evaluates(Protocol):
    """A policy that gives the log-probability of any action."""

    def evaluate_actions(self, obs: Any, actions: Any) -> tuple[Any, Any, Any]: ...


@runtime_checkable
class _Draws(_Evaluates, Protocol):
    """A policy that keeps the distribution of its last action, with its logits, in ``action_dist.distribution``."""

    action_dist: Any


@runtime_checkable
class _HoldsPolicy(Protocol):
    """An algorithm: its policy may be replaced."""

    policy: Any


@runtime_checkable
class _Stores(Protocol):
    """An algorithm that keeps the log-probabilities of its rollout, row by row of its environments."""

    rollout_buffer: Any

    def get_env(self) -> Any: ...


class PolicyHandle:
    """Stands for a policy that does not exist yet: the environment is built first, the policy is bound later.

    Its deep copy is itself, so an agent or ``gym.make`` that copies its arguments still holds the bound one.
    """

    def __init__(self) -> None:
        self._source: _Function | _LastDraw | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> PolicyHandle:
        return self

    def bind(self, policy: Any) -> PolicyHandle:
        """Set the policy whose log-probabilities are paid.

        Args:
            policy: an algorithm or an actor-critic policy of Stable-Baselines3 or sb3-contrib, which must itself draw
                every action that the environment gets; another object with
                ``evaluate_actions(obs, actions) -> (values, log_prob, entropy)``, which is shown the environment's own
                observations; or ``f(observation, tokens) -> log_probs`` with a leading batch axis.

        Raises:
            ConfigError: the agent has no log-probability of an action (DQN and other value-only agents), or trains in
                environments that hold another handle.
        """
        self._source = _source(policy, self)
        return self

    def log_probs(
        self, observation: dict[str, np.ndarray], tokens: np.ndarray, *, rows: Sequence[int] | None, asker: object
    ) -> np.ndarray:
        """Log-probabilities of tokens that are about to be played.

        Args:
            observation: arrays of shape (B, ...).
            tokens: Shape: (B,).
            rows: which rows of the agent's batch these are; None for a single environment, which takes its turn:
                environments are stepped in the order of the agent's rows.
            asker: the environment, once per action.

        Returns: Shape: (B,), float64, nats.

        Raises:
            ConfigError: no policy is bound, or the bound one did not draw these actions.
        """
        if self._source is None:
            raise ConfigError("PolicyHandle: no policy is bound yet; call bind(policy) before the first step")
        return _array(self._source.log_probs(observation, tokens, rows, asker)).reshape(len(tokens))

    def forget(self) -> None:
        """Let the actions of the last draw be played again: a step with one of them failed."""
        if self._source is not None:
            self._source.forget()


def _source(agent: Any, handle: PolicyHandle) -> _Function | _LastDraw:
    if isinstance(agent, _HoldsPolicy) and isinstance(agent.policy, _Draws):
        trained = agent if isinstance(agent, _Stores) and _trains_with(agent.get_env(), handle) else None
        return _LastDraw(lambda: agent.policy, type(agent).__name__, trained)
    if isinstance(agent, _Draws):
        return _LastDraw(lambda: agent, type(agent).__name__, None)
    for candidate in (agent, getattr(agent, "policy", None)):
        if isinstance(candidate, _Evaluates):
            return _Function(_evaluated_by(candidate))
    if callable(agent) and not hasattr(agent, "predict"):
        return _Function(agent)
    raise ConfigError(
        f"PolicyHandle.bind: the agent must give the log-probability of an action, and {type(agent).__name__} "
        'has none (no evaluate_actions); a value-only agent belongs in action_mode="token" without this wrapper'
    )


def _trains_with(env: Any, handle: PolicyHandle) -> bool:
    """True if the algorithm's own environments ask this handle; False where they ask none."""
    if env is None:
        return False
    try:
        handles = env.get_attr("log_prob")
    except AttributeError:
        return False
    if any(each is not handle for each in handles):
        raise ConfigError(
            "PolicyHandle.bind: every environment of an agent must hold the one handle that the agent is bound to, in "
            "the agent's own process, and they hold another one or a copy; give all of them the same PolicyHandle, and "
            "use DummyVecEnv (a subprocess has no policy to ask)"
        )
    return True


class _Function:
    """Asks a function of observation and tokens."""

    def __init__(self, log_prob: LogProb) -> None:
        self._log_prob = log_prob

    def log_probs(self, observation: Any, tokens: np.ndarray, rows: Sequence[int] | None, asker: object) -> Any:
        return self._log_prob(observation, tokens)

    def forget(self) -> None:
        """Do nothing: a function remembers no draw."""


def _evaluated_by(policy: Any) -> LogProb:
    def log_prob(observation: dict[str, np.ndarray], tokens: np.ndarray) -> Any:
        import torch

        with torch.no_grad():
            batch = {key: torch.as_tensor(value, device=policy.device) for key, value in observation.items()}
            return policy.evaluate_actions(batch, torch.as_tensor(tokens, device=policy.device))[1]

    return log_prob


class _LastDraw:
    """Reads the distribution that an actor-critic drew its last actions from; each row of it pays once."""

    def __init__(self, policy: Callable[[], Any], name: str, trained: _Stores | None) -> None:
        """Args:
        policy: returns the policy that acts, asked anew each time: an algorithm may replace its own.
        name: of the agent, for messages.
        trained: the algorithm, if it trains on what it is paid here.
        """
        self._policy = policy
        self._name = name
        self._trained = trained
        self._distribution: Any = None
        self._paid = np.zeros(0)
        self._askers: list[object] = []
        self._complete = False
        self._to_check: tuple[int, np.ndarray] = (0, self._paid)

    def log_probs(self, observation: Any, tokens: np.ndarray, rows: Sequence[int] | None, asker: object) -> np.ndarray:
        distribution = vars(self._policy().action_dist).get("distribution")  # set by the first draw
        if distribution is not self._distribution:
            self._begin(distribution)
        if distribution is None or any(each is asker for each in self._askers):
            raise ConfigError(
                f"PolicyHandle: every action must be drawn by the bound agent, and {self._name} has drawn none since "
                "the last step, so its log-probability would be another policy's; after loading or copying an agent "
                "call bind(agent) again, and bind a function of (observation, tokens) to play actions of other origin"
            )
        places = [len(self._askers)] if rows is None else list(rows)
        if max(places) >= len(self._paid):
            raise ConfigError(
                f"PolicyHandle: {self._name} drew actions for {len(self._paid)} row(s), and row {max(places)} is "
                "played; let one agent act for all environments that hold its handle, in their order"
            )
        self._askers.append(asker)
        known = tokens.clip(0, distribution.logits.shape[-1] - 1)  # the environment refuses any other token itself
        self._paid[places] = _array(distribution.logits[places, known.tolist()])
        if rows is not None or len(self._askers) == len(self._paid):
            self._complete = True
            self._note_for_check()
        return self._paid[places]

    def forget(self) -> None:
        """Let every row of the last draw ask again: a step of it failed."""
        self._askers = []
        self._complete = False

    def _begin(self, distribution: Any) -> None:
        """Take up a new draw, once the last one was paid in full and as the agent stored it."""
        asked = len(self._askers)
        if asked and not self._complete:
            raise ConfigError(
                f"PolicyHandle: every row that the agent acts for must ask the same handle, and of {len(self._paid)} "
                f"rows of {self._name} {asked} did; give all its environments one PolicyHandle"
            )
        self._compare_with_stored()
        self._distribution = distribution
        self._askers = []
        self._complete = False
        self._paid = np.zeros(0 if distribution is None else len(distribution.logits))

    def _note_for_check(self) -> None:
        """Keep the first complete row of payments at each place of the rollout buffer: the agent's own step.

        Evaluations by a callback follow it, and precede it only at place 0, which is not checked.
        """
        place = 0 if self._trained is None else int(self._trained.rollout_buffer.pos)
        if place != self._to_check[0]:
            self._to_check = (place, self._paid)

    def _compare_with_stored(self) -> None:
        place, paid = self._to_check
        if self._trained is None or place == 0:
            return
        buffer = self._trained.rollout_buffer
        if buffer.pos != place + 1 or np.shape(buffer.log_probs[place]) != paid.shape:
            return
        stored = np.asarray(buffer.log_probs[place], dtype=np.float64)
        if not np.allclose(paid, stored, rtol=0, atol=MAX_DIFFERENCE_NATS):
            row = int(np.argmax(np.abs(paid - stored)))
            raise ConfigError(
                f"PolicyHandle: the environment must be given the log-probability that the agent stores, and in row "
                f"{row} it was given {paid[row]:.3f} nats where {self._name} stored {stored[row]:.3f}; step the "
                "environments in the order of the agent's rows, as DummyVecEnv does"
            )


def _array(value: Any) -> np.ndarray:
    if hasattr(value, "detach"):
        value = value.detach().cpu().numpy()
    return np.asarray(value, dtype=np.float64)
