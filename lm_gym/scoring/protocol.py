"""The contract of reward models, and the checks that their scores pass on the way into the library.

Knows: the :class:`RewardModel` protocol, :class:`Scores`, and the checks that keep a NaN, an infinity or a missing row
from ever reaching an agent. Does not know: tokens, environments, what else is taken for a reward model
(``lm_gym.scoring.adapters``), or any concrete one (names and saved artefacts resolve in ``lm_gym.scoring.handles``).

Shapes: B = rows scored in one call.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn, Protocol, runtime_checkable

import numpy as np

from lm_gym.config import ScoreNormalizer
from lm_gym.errors import ConfigError, RewardModelError
from lm_gym.tools.settings import shown
from lm_gym.tools.time_limit import calls_within

__all__ = [
    "CountsCutTexts",
    "CountsTokens",
    "HasMemberScores",
    "KeepsTraining",
    "RewardModel",
    "SavableRewardModel",
    "Scorer",
    "Scores",
    "as_float32",
    "checked_scores",
    "columns_for",
    "columns_of",
    "normalized_scores",
    "refuse_row",
    "require_count",
    "require_rows",
    "scores_where",
]

Columns = Mapping[str, Sequence[Any]]
"""Columns of the prompts' rows by name, B values each."""


@dataclass(frozen=True, kw_only=True)
class Scores:
    """The verdict of a reward model on B responses."""

    value: np.ndarray
    """One scalar per response, higher is better; 0 where ``valid`` is False. Shape: (B,), float32."""
    valid: np.ndarray
    """False where the model abstained. Shape: (B,), bool."""
    std: np.ndarray | None = None
    """The model's own uncertainty, in units of ``value``; None if it has none. Shape: (B,), float32."""

    def __post_init__(self) -> None:
        parts = {"value": (self.value, "fiub"), "valid": (self.valid, "b"), "std": (self.std, "fiu")}
        for name, (given, kinds) in parts.items():
            if given is not None or name != "std":
                object.__setattr__(self, name, _part_of_scores(name, given, kinds))

    @classmethod
    def of(cls, value: Sequence[float] | np.ndarray, std: Sequence[float] | np.ndarray | None = None) -> Scores:
        """Scores in which every row counts. Args of shape (B,)."""
        array = as_float32(_part_of_scores("value", value, "fiub"))
        spread = None if std is None else as_float32(_part_of_scores("std", std, "fiu"))
        return cls(value=array, valid=np.ones(array.shape, dtype=bool), std=spread)

    def __len__(self) -> int:
        return len(self.value)


class _ClassName:
    """The name of the class, until a name is assigned."""

    def __get__(self, instance: object, owner: type) -> str:
        return owner.__name__


@runtime_checkable
class RewardModel(Protocol):
    """Anything that scores text. It sees text only and tokenises for itself.

    A class that inherits from this one has the defaults below and needs ``score`` alone. An object that does not
    inherit is taken as well (:func:`lm_gym.scoring.as_reward_model`): what it leaves out has the same defaults.

    A score belongs to its row: to the two texts and the columns, not to what else is in the call. Models that compute
    in batches may differ in the last bits with the batch (padding, other kernels); more than that is a defect, and
    :func:`lm_gym.testing.check_reward_model` finds it.
    """

    name: str = _ClassName()  # type: ignore[assignment]  # a string on class and instance, free to be assigned
    """Name of the model in errors and records; that of the class by default."""
    normalizer: ScoreNormalizer | None = None
    """Affine map of the raw scores that ``score`` leaves to whoever pays or combines them; None is no map."""
    columns: tuple[str, ...] = ()
    """Columns of the prompts' rows that ``score`` needs; an environment whose prompts lack one refuses the model."""
    all_columns: bool = False
    """True if ``score`` is given every other column of the rows too, with None where a row lacks it."""

    def score(self, prompts: Sequence[str], responses: Sequence[str], /, *_: Any, **columns: Any) -> Scores:
        """Score B responses, each to the prompt of the same row.

        Args:
            prompts, responses: B texts each.
            *_: nothing; to a type checker it means that a model may name its columns, or take none.
            **columns: what ``columns`` and ``all_columns`` ask for, B values each; a model that asks for nothing needs
                no such parameter.
        """
        ...

    def identity(self) -> str | None:
        """Say who scores, for scores that are kept: models of one identity give a text one score, in any process.

        None, the default, is "not known": the model's settings are not all in its name.
        """
        return None


@runtime_checkable
class SavableRewardModel(RewardModel, Protocol):
    """A reward model that can be written as a folder, which :func:`lm_gym.load_reward_model` reads."""

    def save(self, directory: str | Path) -> Path:
        """Write the folder, whole or not at all. Returns: the folder."""
        ...


@runtime_checkable
class HasMemberScores(Protocol):
    """A reward model that is made of others and tells the score of each; M members."""

    def member_scores(self, prompts: Sequence[str], responses: Sequence[str], /) -> tuple[np.ndarray, np.ndarray]:
        """Every member's own scores. Returns: values (M, B) float64, and valid (B,), True where all scored."""
        ...


@runtime_checkable
class CountsCutTexts(Protocol):
    """A reward model that tells how many texts are too long for it to be read whole."""

    def count_cut(self, prompts: Sequence[str], responses: Sequence[str], /) -> int:
        """Count the texts, each a prompt and its response, of which a part is not read."""
        ...


@runtime_checkable
class KeepsTraining(Protocol):
    """A reward model with a record of how it was trained."""

    training: dict[str, Any]
    """Counts, settings and, under "groups", the groups of prompts that it was trained on; empty where none is known."""


@runtime_checkable
class CountsTokens(Protocol):
    """A reward model with a tokenizer, which counts the tokens of texts."""

    def count_tokens(self, texts: Sequence[str], /) -> list[int]:
        """Tokens of each text, without special ones, however long it is."""
        ...


class Scorer(Protocol):
    """An object that has ``score`` of the contract, and perhaps nothing else."""

    @property
    def score(self) -> Callable[..., Scores]:
        """See :meth:`RewardModel.score`."""
        ...


def columns_for(model: RewardModel | None, rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """The columns that a reward model asks for, out of the rows of B prompts.

    Returns: name -> B values.

    Raises:
        ConfigError: a row lacks a column that the model needs.
    """
    if model is None:
        return {}
    for number, row in enumerate(rows, start=1):
        missing = [name for name in model.columns if name not in row]
        if missing:
            raise ConfigError(
                f"reward model {model.name}: needs the column {missing[0]!r} in every prompt's row, and row {number} "
                f"has the columns {sorted(row)}; add it to the rows, or do without it (a function is passed prompts, "
                "completions and these columns, each by name)"
            )
    names = dict.fromkeys(model.columns)
    if model.all_columns:
        names |= dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names}


def columns_of(models: Sequence[RewardModel]) -> tuple[tuple[str, ...], bool]:
    """``columns`` and ``all_columns`` of a reward model that is made of others: whatever one of them asks for."""
    return tuple(dict.fromkeys(name for one in models for name in one.columns)), any(one.all_columns for one in models)


def require_rows(name: str, prompts: Sequence[str], responses: Sequence[str]) -> None:
    """Raises: RewardModelError: the reward model of this name was not given B prompts and B responses, all text."""
    for kind, texts in (("prompts", prompts), ("responses", responses)):
        if isinstance(texts, str | bytes | Mapping) or not isinstance(texts, Sequence):
            raise RewardModelError(f"reward model {name}: {kind} must be a list of texts, got {shown(texts)}")
        for row, text in enumerate(texts):
            try:
                text.encode()
            except (AttributeError, UnicodeEncodeError):
                raise RewardModelError(
                    f"reward model {name}: {kind} must be a list of texts that UTF-8 can hold, got {shown(text)} in "
                    f"row {row}"
                ) from None
    if len(prompts) != len(responses):
        raise RewardModelError(
            f"reward model {name}: needs one prompt per response, got {len(prompts)} and {len(responses)}"
        )


def checked_scores(
    model: RewardModel,
    prompts: Sequence[str],
    responses: Sequence[str],
    columns: Columns | None = None,
    *,
    timeout_s: float | None = None,
) -> Scores:
    """Score B responses and refuse anything that an agent must never see.

    A finite score passes however large it is: ``RewardConfig.score_clip`` bounds what is paid for it, and an update
    whose loss is no longer finite stops with a ``DivergedError``.

    Args:
        model: a reward model.
        prompts, responses: B texts each.
        columns: columns of the prompts' rows; the model is given those it asks for.
        timeout_s: most seconds that the call may take; None waits, in the caller's own thread.

    Returns: Scores of shape (B,), finite, with value (and std) 0 where a row is not valid.

    Raises:
        RewardModelError: the model raised, lacks a column, gave no answer in time (it may still be at work), returned
            no Scores or the wrong count, or on a valid row a score that is no finite float32, or a std that is not
            finite or below 0.
    """
    name = model.name
    require_rows(name, prompts, responses)
    asked = _asked_columns(model, columns or {}, len(responses))
    try:
        scores = _scores_in_time(model, prompts, responses, asked, timeout_s)
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
    require_count(name, len(scores.value), len(responses))
    require_count(name, len(scores.valid), len(responses))
    for part, array in (("value", scores.value), ("valid", scores.valid), ("std", scores.std)):
        if array is not None and np.shape(array) != (len(responses),):
            raise RewardModelError(
                f"reward model {name}: Scores.{part} must have the shape ({len(responses)},), got {np.shape(array)}"
            )
    value, valid = as_float32(scores.value), np.asarray(scores.valid, dtype=bool)
    bad = np.flatnonzero(valid & ~np.isfinite(value))
    if bad.size:
        refuse_row(name, int(bad[0]), float(scores.value[bad[0]]), prompts, responses)
    std = None if scores.std is None else as_float32(scores.std)
    if std is not None:
        bad = np.flatnonzero(valid & ~(np.isfinite(std) & (std >= 0)))
        if bad.size:
            raise RewardModelError(
                f"reward model {name}: Scores.std must be finite and >= 0 on every valid row; row {int(bad[0])} got "
                f"{std[bad[0]]} for the response {responses[int(bad[0])]!r}"
            )
        std = np.where(valid, std, np.float32(0))
    return Scores(value=np.where(valid, value, np.float32(0)), valid=valid, std=std)


def normalized_scores(
    model: RewardModel, prompts: Sequence[str], responses: Sequence[str], columns: Columns | None = None
) -> Scores:
    """:func:`checked_scores` under the model's own normaliser, for whoever combines several models."""
    scores = checked_scores(model, prompts, responses, columns)
    if model.normalizer is None:
        return scores
    value = np.where(scores.valid, model.normalizer(scores.value), 0.0)
    std = None if scores.std is None else as_float32(model.normalizer.gain * scores.std.astype(np.float64))
    return replace(scores, value=as_float32(value), std=std)


def scores_where(
    model: RewardModel | None,
    prompts: Sequence[str],
    responses: Sequence[str],
    wanted: np.ndarray,
    rows: Sequence[Mapping[str, Any]] | None = None,
    *,
    timeout_s: float | None = None,
) -> Scores:
    """Score the wanted rows in one call; the others get value 0 and valid False. Without a model every score is 0.

    Args:
        model: see :func:`checked_scores`, with the same errors.
        prompts, responses: texts of B rows.
        wanted: Shape: (B,), bool.
        rows: columns of each prompt, B mappings; None is no columns.
        timeout_s: see :func:`checked_scores`.

    Raises:
        ConfigError: a wanted row lacks a column that the model needs.
    """
    value, valid = np.zeros(len(wanted), dtype=np.float32), wanted.copy()
    std = None
    chosen = [int(row) for row in np.flatnonzero(wanted)]
    if model is not None and chosen:
        columns = columns_for(model, [{} if rows is None else rows[row] for row in chosen])
        texts = [prompts[row] for row in chosen], [responses[row] for row in chosen]
        found = checked_scores(model, *texts, columns, timeout_s=timeout_s)
        value[chosen], valid[chosen] = found.value, found.valid
        if found.std is not None:
            std = np.zeros(len(wanted), dtype=np.float32)
            std[chosen] = found.std
    return Scores(value=value, valid=valid, std=std)


def _scores_in_time(
    model: RewardModel, prompts: Sequence[str], responses: Sequence[str], asked: Columns, timeout_s: float | None
) -> Scores:
    if timeout_s is None:
        return model.score(prompts, responses, **asked)
    found = calls_within(timeout_s, [lambda: model.score(prompts, responses, **asked)])
    if not found:
        raise RewardModelError(
            f"reward model {model.name}: must score a batch within {timeout_s:g} seconds, and gave no answer for "
            f"{len(responses)} responses, {responses[0][:80]!r} the first; raise score_timeout_s if it is only slow "
            "(the call may still be running)"
        )
    return found[0]


def _asked_columns(model: RewardModel, columns: Columns, count: int) -> dict[str, Sequence[Any]]:
    names = dict.fromkeys(columns if model.all_columns else model.columns)
    missing = [name for name in model.columns if name not in columns]
    if missing:
        raise RewardModelError(
            f"reward model {model.name}: needs the column {missing[0]!r} of the prompts' rows, and got the columns "
            f"{sorted(columns)}; score inside an environment whose prompts have it, or pass it to checked_scores"
        )
    for name in names:
        if len(columns[name]) != count:
            raise RewardModelError(
                f"reward model {model.name}: the column {name!r} must have one value per response, got "
                f"{len(columns[name])} for {count}"
            )
    return {name: list(columns[name]) for name in names}


def _part_of_scores(name: str, given: Any, kinds: str) -> np.ndarray:
    """A part of Scores as an array. Raises: RewardModelError: it holds something else than one number per response."""
    try:
        array = np.asarray(given)
    except Exception:  # NumPy and torch each refuse in their own way
        array = np.asarray(None)
    fits = array.ndim > 0 and (array.dtype.kind in kinds or array.size == 0)
    if not fits or isinstance(given, bytes | bytearray | memoryview):
        rule = "True or False" if kinds == "b" else "a real number"
        raise RewardModelError(f"Scores.{name}: must be an array of {rule} per response, got {shown(given)}")
    return array


def as_float32(values: Any) -> np.ndarray:
    """Convert to float32; a number too large for it becomes infinite, which no check lets pass."""
    with np.errstate(over="ignore"):
        return np.asarray(values).astype(np.float32)


def require_count(name: str, got: int, expected: int) -> None:
    """Raises: RewardModelError: the reward model of this name gave another number of scores."""
    if got != expected:
        raise RewardModelError(
            f"reward model {name}: must return one score per response, got {got} for {expected} responses"
        )


def refuse_row(name: str, row: int, value: Any, prompts: Sequence[str], responses: Sequence[str]) -> NoReturn:
    """Raises: RewardModelError: the reward model of this name gave a row something that is no score."""
    raise RewardModelError(
        f"reward model {name}: every score must be a finite number or an abstention (None, or valid=False); "
        f"row {row} got {value!r} for the response {responses[row]!r} to the prompt {prompts[row]!r}"
    )
