"""Adapters that make reward models of a plain function, and of an object with nothing but ``score``.

Knows: the protocol, and how arguments are bound. Does not know: any concrete reward model.

Shapes: B = rows scored in one call.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence, Set
from typing import Any, NoReturn

import numpy as np

from lm_gym.config import ScoreNormalizer
from lm_gym.errors import RewardModelError
from lm_gym.scoring.binding import (
    FunctionArguments,
    callable_name,
    lasting_name,
    refuse_async,
    required_names,
    signature_of,
)
from lm_gym.scoring.protocol import RewardModel, Scorer, Scores, refuse_row, require_count
from lm_gym.tools.settings import shown

__all__ = [
    "FunctionRewardModel",
    "ObjectRewardModel",
    "RewardFunction",
    "RewardModelLike",
    "as_reward_model",
    "scores_from_list",
]

LARGEST = float(np.finfo(np.float32).max)
RewardFunction = Callable[..., Sequence["float | None"]]
"""``f(prompts, completions, **columns) -> list[float | None]``; None abstains on that row."""
RewardModelLike = RewardModel | Scorer | RewardFunction
"""Everything that :func:`as_reward_model` takes."""


class ObjectRewardModel(RewardModel):
    """An object with ``score`` as a :class:`RewardModel`: what it declares counts, the rest has its default."""

    def __init__(self, model: Any) -> None:
        """Args: model: the object; what it declares is read whenever it is needed, so it may change."""
        self.model = model

    @property
    def name(self) -> str:  # type: ignore[override]
        """The object's own name, or that of its class."""
        return str(getattr(self.model, "name", type(self.model).__name__))

    @property
    def normalizer(self) -> ScoreNormalizer | None:  # type: ignore[override]
        """The object's own normaliser, or None."""
        return getattr(self.model, "normalizer", None)

    @property
    def columns(self) -> tuple[str, ...]:  # type: ignore[override]
        """The object's own columns, or none."""
        return getattr(self.model, "columns", ())

    @property
    def all_columns(self) -> bool:  # type: ignore[override]
        """The object's own setting, or False."""
        return getattr(self.model, "all_columns", False)

    def score(self, prompts: Sequence[str], responses: Sequence[str], /, *_: Any, **columns: Any) -> Scores:
        """Returns: what the object returns."""
        scores: Scores = self.model.score(prompts, responses, **columns)
        return scores

    def identity(self) -> str | None:
        """The object's own identity, or None."""
        return self.model.identity() if hasattr(self.model, "identity") else None


class FunctionRewardModel(RewardModel):
    """A plain reward function as a :class:`RewardModel`.

    The function has the signature that reward functions have in other RLHF libraries, ``f(prompts, completions,
    **columns)``, and returns one float per row, or None to abstain. Its arguments are bound by name: ``prompts``,
    ``completions``, and columns of the prompts' rows under their own names. A parameter without a default is a column
    that every row must have; with ``**columns`` it gets all there are.
    """

    def __init__(self, function: RewardFunction) -> None:
        """Args: function: the reward function.

        Raises:
            RewardModelError: its arguments cannot be bound by name, or it is asynchronous.
        """
        self.function = function
        self.name = callable_name(function)
        self._arguments = FunctionArguments(function)
        self.columns = self._arguments.columns
        self.all_columns = self._arguments.all_columns

    def score(self, prompts: Sequence[str], responses: Sequence[str], /, *_: Any, **columns: Any) -> Scores:
        """Call the function once on all B rows. Returns: Scores of shape (B,)."""
        prompts, responses = list(prompts), list(responses)
        values = self.function(**self._arguments.chosen(prompts, responses, columns))
        return scores_from_list(self.name, values, prompts, responses)

    def identity(self) -> str | None:
        """``module:name`` of a function at the top of a module; None for lambdas, closures, partials and objects."""
        return lasting_name(self.function)


def as_reward_model(subject: RewardModelLike) -> RewardModel:
    """Take a reward model as it is, and wrap an object that has only ``score`` or a plain reward function.

    Raises:
        RewardModelError: it is none of them, cannot be called as one, or is a live model of ``transformers``.
    """
    if inspect.isclass(subject) or isinstance(subject, str):
        _refuse(subject, "Pass an instance, not a class; lm_gym.load_reward_model resolves names, folders and hub ids.")
    own_score = inspect.isroutine(getattr(type(subject), "score", None)) or inspect.isroutine(
        getattr(subject, "score", None)
    )
    if not own_score and _is_a(subject, "transformers.modeling_utils", "PreTrainedModel"):
        # Its own `score` is the head, a linear layer, and calling it takes token ids.
        raise RewardModelError(
            f"reward model {type(subject).__name__}: a model alone cannot read text, since its tokenizer is missing; "
            "pass load_reward_model(path), or lm_gym.reward_models.PreferenceRewardModel(model, tokenizer)"
        )
    if own_score:
        model = subject if isinstance(subject, RewardModel) else ObjectRewardModel(subject)
        _check_declarations(model, subject.score)  # type: ignore[union-attr]
        return model
    if not callable(subject) or _is_a(subject, "torch.nn.modules.module", "Module"):  # a module's call takes anything
        _refuse(subject, "Pass an instance, not a class.")
    return FunctionRewardModel(subject)


def _refuse(subject: object, remedy: str) -> NoReturn:
    raise RewardModelError(
        f"reward model {shown(subject)}: must have a method score(prompts, responses) or be a function "
        f"f(prompts, completions) -> list[float | None]; got {type(subject).__name__}. {remedy}"
    )


def _is_a(subject: object, module: str, name: str) -> bool:
    """True if an object is of a class of a library that need not be installed."""
    return any(base.__module__ == module and base.__name__ == name for base in type(subject).__mro__)


def _check_declarations(model: RewardModel, score: Callable[..., Any]) -> None:
    refuse_async(model.name, score)
    if not (model.normalizer is None or isinstance(model.normalizer, ScoreNormalizer)):
        raise RewardModelError(
            f"reward model {model.name}: normalizer must be a ScoreNormalizer or None, got {model.normalizer!r}"
        )
    columns = model.columns
    if not isinstance(columns, tuple) or not all(isinstance(name, str) for name in columns):
        raise RewardModelError(
            f"reward model {model.name}: columns must be a tuple of names, such as ('answer',), got {columns!r}"
        )
    unfilled = [name for name in required_names(signature_of(model.name, score))[2:] if name not in columns]
    if unfilled:
        raise RewardModelError(
            f"reward model {model.name}: score() is given prompts, responses and the columns it declares, and "
            f"{unfilled[0]!r} is none of them; set columns = ({unfilled[0]!r},) if it is a column of the prompts' rows"
        )
    signature = signature_of(model.name, score)
    try:
        signature.bind((), (), **dict.fromkeys(columns))
    except TypeError as error:
        raise RewardModelError(
            f"reward model {model.name}: score() must take prompts and responses by place, and its columns by name, "
            f"got score{signature} ({error}); write def score(self, prompts, responses, *_, **columns)"
        ) from error


def scores_from_list(name: str, values: Any, prompts: Sequence[str], responses: Sequence[str]) -> Scores:
    """What a reward function returned, as scores.

    Args:
        name: of the reward model, for errors.
        values: one float per row, or None to abstain on it.
        prompts, responses: of the rows, for errors.

    Raises:
        RewardModelError: it is no list of that kind and length.
    """
    unordered = isinstance(values, str | bytes | bytearray | memoryview | Mapping | Set)
    if unordered or not hasattr(values, "__len__") or getattr(values, "ndim", 1) == 0:
        raise RewardModelError(
            f"reward model {name}: must return a list with one float or None per row, got {shown(values)} of type "
            f"{type(values).__name__}"
        )
    require_count(name, len(values), len(responses))
    valid = np.array([value is not None for value in values], dtype=bool)
    array = np.zeros(len(values), dtype=np.float32)
    for row, value in enumerate(values):
        if value is None:
            continue
        if isinstance(value, str | bytes | complex | np.complexfloating) or getattr(value, "ndim", 0) > 0:
            refuse_row(name, row, value, prompts, responses)
        try:
            number = float(value)
        except (TypeError, ValueError, OverflowError, RuntimeError):
            refuse_row(name, row, value, prompts, responses)
        if not abs(number) <= LARGEST:
            refuse_row(name, row, value, prompts, responses)
        array[row] = number
    return Scores(value=array, valid=valid)
