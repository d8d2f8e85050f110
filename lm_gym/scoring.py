"""What a reward model is, and the one door through which its scores enter the library.

Knows: the :class:`RewardModel` protocol, :class:`Scores`, the adapter for plain functions, and the checks that keep
a NaN, an infinity or a missing row from ever reaching an agent. Does not know: tokens, environments, or any concrete
reward model (names and saved artefacts resolve through the entry-point group ``lm_gym.reward_models``).

Shapes: B = rows scored in one call.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from lm_gym.errors import RewardModelError

__all__ = [
    "FunctionRewardModel",
    "RewardFunction",
    "RewardModel",
    "Scores",
    "as_reward_model",
    "checked_scores",
    "require_rows",
    "scores_where",
]

RewardFunction = Callable[..., Sequence["float | None"]]
"""``f(prompts, completions, **kwargs) -> list[float | None]``; None abstains on that row."""


@dataclass(frozen=True, kw_only=True)
class Scores:
    """The verdict of a reward model on B responses."""

    value: np.ndarray
    """One scalar per response, higher is better; 0 where ``valid`` is False. Shape: (B,), float32."""
    valid: np.ndarray
    """False where the model abstained. Shape: (B,), bool."""
    std: np.ndarray | None = None
    """The model's own uncertainty, in units of ``value``; None if it has none. Shape: (B,), float32."""

    @classmethod
    def of(cls, value: Sequence[float] | np.ndarray, std: Sequence[float] | np.ndarray | None = None) -> Scores:
        """Scores in which every row counts. Args of shape (B,)."""
        array = np.asarray(value, dtype=np.float32)
        spread = None if std is None else np.asarray(std, dtype=np.float32)
        return cls(value=array, valid=np.ones(array.shape, dtype=bool), std=spread)

    def __len__(self) -> int:
        return len(self.value)


@runtime_checkable
class RewardModel(Protocol):
    """Anything that scores text. It sees text only and tokenises for itself."""

    def score(self, prompts: Sequence[str], responses: Sequence[str]) -> Scores:
        """Score B responses, each to the prompt of the same row."""
        ...


class FunctionRewardModel:
    """A plain reward function as a :class:`RewardModel`.

    The function has the signature that reward functions have in other RLHF libraries: ``f(prompts, completions,
    **kwargs)`` and returns one float per row, or None to abstain. Parameters of other names are filled by position.
    """

    def __init__(self, function: RewardFunction) -> None:
        """Args: function: the reward function; it must accept two sequences of B strings."""
        self.function = function
        parameters = list(inspect.signature(function).parameters.values())
        names = {parameter.name for parameter in parameters}
        takes_any = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters)
        both = {"prompts", "completions"}
        needed = {p.name for p in parameters if p.default is p.empty and p.kind is not inspect.Parameter.VAR_KEYWORD}
        self._by_keyword = both <= names or (takes_any and needed <= both)

    @property
    def name(self) -> str:
        """What error messages call this reward model."""
        return getattr(self.function, "__name__", type(self.function).__name__)

    def identity(self) -> str:
        """Module and name of the function; what it computes is not known."""
        kind = type(self.function)
        module = getattr(self.function, "__module__", kind.__module__)
        return f"{module}.{getattr(self.function, '__qualname__', kind.__qualname__)}"

    def score(self, prompts: Sequence[str], responses: Sequence[str]) -> Scores:
        """Call the function once on all B rows. Returns: Scores of shape (B,)."""
        prompts, responses = list(prompts), list(responses)
        if self._by_keyword:
            values = self.function(prompts=prompts, completions=responses)
        else:
            values = self.function(prompts, responses)
        return _scores_from_list(self.name, values, prompts, responses)


def as_reward_model(subject: RewardModel | RewardFunction) -> RewardModel:
    """Return ``subject`` if it has a ``score`` method, else wrap it as a reward function.

    Raises:
        RewardModelError: it is neither.
    """
    if isinstance(subject, RewardModel) and not inspect.isclass(subject):
        return subject
    if callable(subject) and not inspect.isclass(subject):
        return FunctionRewardModel(subject)
    raise RewardModelError(
        f"reward model {subject!r}: must have a method score(prompts, responses) or be a function "
        f"f(prompts, completions) -> list[float | None]; got {type(subject).__name__}. Pass an instance, not a class."
    )


def require_rows(name: str, prompts: Sequence[str], responses: Sequence[str]) -> None:
    """Raises: RewardModelError: the reward model of this name was not given one prompt per response."""
    if len(prompts) != len(responses):
        raise RewardModelError(
            f"reward model {name}: needs one prompt per response, got {len(prompts)} and {len(responses)}"
        )


def checked_scores(model: RewardModel, prompts: Sequence[str], responses: Sequence[str]) -> Scores:
    """Score B responses and refuse anything that an agent must never see.

    Returns: Scores of shape (B,), finite, with value 0 where a row is not valid.

    Raises:
        RewardModelError: the model raised, returned no Scores, the wrong count, or a NaN or infinity on a valid row.
    """
    name = getattr(model, "name", type(model).__name__)
    try:
        scores = model.score(prompts, responses)
    except RewardModelError:
        raise
    except Exception as error:
        raise RewardModelError(
            f"reward model {name}: raised {type(error).__name__} while scoring {len(responses)} responses: {error}"
        ) from error
    if not isinstance(scores, Scores):
        raise RewardModelError(
            f"reward model {name}: score() must return lm_gym.Scores, got {type(scores).__name__}. "
            "A function that returns a list belongs in FunctionRewardModel, or is passed as it is."
        )
    _check_count(name, len(scores.value), len(responses))
    _check_count(name, len(scores.valid), len(responses))
    value = np.asarray(scores.value, dtype=np.float32)
    valid = np.asarray(scores.valid, dtype=bool)
    for part, array in (("value", value), ("valid", valid), ("std", scores.std)):
        if array is not None and np.shape(array) != (len(responses),):
            raise RewardModelError(
                f"reward model {name}: Scores.{part} must have the shape ({len(responses)},), got {np.shape(array)}"
            )
    bad = np.flatnonzero(valid & ~np.isfinite(value))
    if bad.size:
        _raise_bad_row(name, int(bad[0]), float(value[bad[0]]), prompts, responses)
    return Scores(value=np.where(valid, value, np.float32(0)), valid=valid, std=scores.std)


def scores_where(
    model: RewardModel | None, prompts: Sequence[str], responses: Sequence[str], wanted: np.ndarray
) -> Scores:
    """Score the wanted rows in one call; the others get value 0 and valid False. Without a model every score is 0.

    Args:
        model: see :func:`checked_scores`, with the same errors.
        prompts, responses: texts of B rows.
        wanted: Shape: (B,), bool.
    """
    value, valid = np.zeros(len(wanted), dtype=np.float32), wanted.copy()
    rows = [int(row) for row in np.flatnonzero(wanted)]
    if model is not None and rows:
        found = checked_scores(model, [prompts[row] for row in rows], [responses[row] for row in rows])
        value[rows], valid[rows] = found.value, found.valid
    return Scores(value=value, valid=valid)


def _scores_from_list(name: str, values: Any, prompts: Sequence[str], responses: Sequence[str]) -> Scores:
    if isinstance(values, str) or not hasattr(values, "__len__"):
        raise RewardModelError(
            f"reward model {name}: must return a list with one float or None per row, got {type(values).__name__}"
        )
    _check_count(name, len(values), len(responses))
    valid = np.array([value is not None for value in values], dtype=bool)
    array = np.zeros(len(values), dtype=np.float32)
    for row, value in enumerate(values):
        if value is None:
            continue
        if isinstance(value, str | bytes):
            _raise_bad_row(name, row, value, prompts, responses)
        try:
            array[row] = float(value)
        except (TypeError, ValueError):
            _raise_bad_row(name, row, value, prompts, responses)
    return Scores(value=array, valid=valid)


def _check_count(name: str, got: int, expected: int) -> None:
    if got != expected:
        raise RewardModelError(
            f"reward model {name}: must return one score per response, got {got} for {expected} responses"
        )


def _raise_bad_row(name: str, row: int, value: Any, prompts: Sequence[str], responses: Sequence[str]) -> None:
    raise RewardModelError(
        f"reward model {name}: every score must be a finite number or an abstention (None, or valid=False); "
        f"row {row} got {value!r} for the response {responses[row]!r} to the prompt {prompts[row]!r}"
    )
