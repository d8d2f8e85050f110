"""The contract of reward models as one check: ``check_reward_model(model)``.

Knows: the protocol in ``lm_gym.scoring.protocol``. Does not know: any concrete reward model.
"""

from __future__ import annotations

import copy
import math
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lm_gym.errors import RewardModelError
from lm_gym.scoring.adapters import RewardModelLike, as_reward_model
from lm_gym.scoring.handles import load_reward_model
from lm_gym.scoring.protocol import RewardModel, Scores, checked_scores, columns_for
from lm_gym.tools.settings import NotNegative, checked_arguments

__all__ = ["check_reward_model"]

PROMPTS = (
    "Review of a desk lamp:",
    "What is two plus two?",
    "\n\nHuman: Say hello.\n\nAssistant:",
    "Write one line.",
    "Review of a desk lamp:",
    "",
)
RESPONSES = (
    "It is bright, and the switch is easy to find.",
    "Four.",
    "Hello!",
    "Zażółć gęślą jaźń 🙂\n\tend",
    "It is dull.",
    "An answer to nothing.",
)
HUGE_WORDS = 20_000

ARGUMENTS = {
    "columns": Mapping | None,
    "prompts": tuple[str, ...],
    "responses": tuple[str, ...],
    "atol": NotNegative,
    "rtol": NotNegative,
    "deterministic": bool,
    "saved": bool,
}
"""What each argument of :func:`check_reward_model` must be, apart from the model, which tells by itself."""


def check_reward_model(
    model: RewardModelLike,
    *,
    columns: Mapping[str, Sequence[Any]] | None = None,
    prompts: Sequence[str] = PROMPTS,
    responses: Sequence[str] = RESPONSES,
    atol: float = 1e-3,
    rtol: float = 1e-4,
    deterministic: bool = True,
    saved: bool = True,
) -> None:
    """Check a reward model against the contract; returns nothing if it holds.

    Checked: what it declares (a name; a normaliser or None; columns that can be given); one finite score (or an
    explicit abstention) per row; a batch equals its rows one by one, ``std`` too; another order gives the same scores
    in that order; no rows give no scores; empty and huge texts are scored or abstained on; asking again gives the same;
    ``std``, where there is one, is finite and >= 0; texts and columns are left as they were; what ``save`` writes,
    ``load_reward_model`` reads back to the same scores, name, normaliser and columns.

    Args:
        model: any reward model, or a plain reward function.
        columns: columns of the prompts' rows, one value per prompt; needed by a model that asks for some. The first
            row's values go with the empty and huge texts.
        prompts, responses: texts to check with, at least two rows; give your own where the model reads a special form.
        atol, rtol: how far the scores of one text may differ between batches.
        deterministic: False for a model that answers differently each time (a person): only counts are checked.
        saved: False leaves ``save`` out, for a model that has the method and holds parts that cannot be saved.

    Raises:
        RewardModelError: the first rule that does not hold, with the model's name.
    """
    arguments = checked_arguments("check_reward_model", ARGUMENTS, locals())
    prompts, responses, atol, rtol = (arguments[name] for name in ("prompts", "responses", "atol", "rtol"))
    subject = as_reward_model(model)
    name = subject.name
    if not isinstance(name, str) or not name:
        raise RewardModelError(f"reward model {name!r}: name must be a text that says something, got {name!r}")
    if len(prompts) != len(responses) or len(prompts) < 2:
        raise RewardModelError(
            f"check_reward_model: needs at least 2 prompts and as many responses, got {len(prompts)}"
        )
    rows = [dict(zip(columns or {}, values, strict=True)) for values in zip(*(columns or {}).values(), strict=True)]
    rows = rows or [{}] * len(prompts)
    whole = _scored(subject, prompts, responses, rows)
    nothing = checked_scores(subject, [], [], dict.fromkeys(columns or {}, ()))
    if len(nothing):
        raise RewardModelError(f"reward model {name}: no rows must give no scores, got {len(nothing)}")
    _check_extremes(subject, rows[0])
    if not deterministic:
        return

    def same(other: Scores, rows: Sequence[int], rule: str) -> None:
        _require_same(name, whole, other, list(rows), rule, atol, rtol)

    everything = range(len(prompts))
    same(_scored(subject, prompts, responses, rows), everything, "asked again it must give the same scores")
    for row in everything:
        alone = _scored(subject, [prompts[row]], [responses[row]], [rows[row]])
        same(alone, [row], "a row alone must score as in a batch (is padding masked?)")
    order = list(reversed(everything))
    turned = _scored(
        subject, [prompts[row] for row in order], [responses[row] for row in order], [rows[row] for row in order]
    )
    same(turned, order, "rows in another order must give the scores in that order")
    if saved and hasattr(model, "save"):
        with tempfile.TemporaryDirectory() as folder:
            model.save(Path(folder) / "model")
            loaded = load_reward_model(Path(folder) / "model")
            same(_scored(loaded, prompts, responses, rows), everything, "saved and loaded it must give the same scores")
            _require_same_declarations(subject, loaded)


def _scored(
    model: RewardModel, prompts: Sequence[str], responses: Sequence[str], rows: Sequence[Mapping[str, Any]]
) -> Scores:
    columns = columns_for(model, rows)
    before = list(prompts), list(responses), copy.deepcopy(columns)
    scores = checked_scores(model, prompts, responses, columns)
    if (list(prompts), list(responses), columns) != before:
        raise RewardModelError(
            f"reward model {model.name}: must leave the texts and columns it is given as they are; copy them first"
        )
    return scores


def _require_same_declarations(model: RewardModel, loaded: RewardModel) -> None:
    parts = [
        ("name", model.name, loaded.name),
        ("normalizer", model.normalizer, loaded.normalizer),
        ("columns", (model.columns, model.all_columns), (loaded.columns, loaded.all_columns)),
        ("identity", model.identity(), loaded.identity()),
    ]
    for part, first, second in parts:
        if first != second:
            raise RewardModelError(
                f"reward model {model.name}: saved and loaded it must declare the same {part}, got {first!r} and then "
                f"{second!r}; its folder must store it"
            )


def _check_extremes(model: RewardModel, row: Mapping[str, Any]) -> None:
    for prompt, response in (("", ""), ("Why?", ""), ("Why?", "word " * HUGE_WORDS), ("word " * HUGE_WORDS, "Yes.")):
        try:
            _scored(model, [prompt], [response], [row])
        except RewardModelError as error:
            raise RewardModelError(
                f"reward model {model.name}: must score or abstain on any text; a prompt of {len(prompt)} characters "
                f"with a response of {len(response)} failed: {error}"
            ) from error


def _require_same(
    name: str, whole: Scores, other: Scores, rows: list[int], rule: str, atol: float, rtol: float
) -> None:
    for place, row in enumerate(rows):
        first, second = _row(whole, row), _row(other, place)
        if not np.allclose(first, second, atol=atol, rtol=rtol, equal_nan=True):
            raise RewardModelError(
                f"reward model {name}: {rule}; row {row} got (value, valid, std) = {first} and then {second}"
            )


def _row(scores: Scores, row: int) -> tuple[float, float, float]:
    """Value, validity and std of a row; NaN stands for no std."""
    return (
        float(scores.value[row]),
        float(scores.valid[row]),
        math.nan if scores.std is None else float(scores.std[row]),
    )
