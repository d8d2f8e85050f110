"""What every reward model must do, as one call: ``check_reward_model(model)``.

Knows: the protocol in ``lm_gym.scoring``. Does not know: any concrete reward model.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lm_gym.errors import RewardModelError
from lm_gym.handles import load_reward_model
from lm_gym.scoring import RewardFunction, RewardModel, Scores, as_reward_model, checked_scores

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


def check_reward_model(
    model: RewardModel | RewardFunction,
    *,
    prompts: Sequence[str] = PROMPTS,
    responses: Sequence[str] = RESPONSES,
    atol: float = 1e-3,
    rtol: float = 1e-4,
    deterministic: bool = True,
    saved: bool = True,
) -> None:
    """Check a reward model against the contract; returns nothing if it holds.

    Checked: one finite score (or an explicit abstention) per row; a batch equals its rows one by one; another order
    gives the same scores in that order; no rows give no scores; empty and huge texts are scored or abstained on; asking
    again gives the same; ``std``, where there is one, is finite and >= 0; what ``save`` writes, ``load_reward_model``
    reads back to the same scores.

    Args:
        model: any reward model, or a plain reward function.
        prompts, responses: texts to check with, at least two rows; give your own where the model reads a special form.
        atol, rtol: how far the scores of one text may differ between batches.
        deterministic: False for a model that answers differently each time (a person): only counts are checked.
        saved: False leaves ``save`` out, for a model that has the method and holds parts that cannot be saved.

    Raises:
        RewardModelError: the first rule that does not hold, with the model's name.
    """
    subject = as_reward_model(model)
    name = getattr(subject, "name", type(subject).__name__)
    if len(prompts) != len(responses) or len(prompts) < 2:
        raise RewardModelError(
            f"check_reward_model: needs at least 2 prompts and as many responses, got {len(prompts)}"
        )
    whole = _scored(subject, name, prompts, responses)
    nothing = _scored(subject, name, [], [])
    if len(nothing):
        raise RewardModelError(f"reward model {name}: no rows must give no scores, got {len(nothing)}")
    _check_extremes(subject, name)
    if not deterministic:
        return

    def same(other: Scores, rows: Sequence[int], rule: str) -> None:
        _require_same(name, whole, other, list(rows), rule, atol, rtol)

    everything = range(len(prompts))
    same(_scored(subject, name, prompts, responses), everything, "asked again it must give the same scores")
    for row in everything:
        alone = _scored(subject, name, [prompts[row]], [responses[row]])
        same(alone, [row], "a row alone must score as in a batch (is padding masked?)")
    order = list(reversed(everything))
    turned = _scored(subject, name, [prompts[row] for row in order], [responses[row] for row in order])
    same(turned, order, "rows in another order must give the scores in that order")
    if saved and hasattr(subject, "save"):
        with tempfile.TemporaryDirectory() as folder:
            subject.save(Path(folder) / "model")
            loaded = load_reward_model(Path(folder) / "model")
            same(_scored(loaded, name, prompts, responses), everything, "saved and loaded it must give the same scores")


def _scored(model: RewardModel, name: str, prompts: Sequence[str], responses: Sequence[str]) -> Scores:
    before = list(prompts), list(responses)
    scores = checked_scores(model, prompts, responses)
    if (list(prompts), list(responses)) != before:
        raise RewardModelError(f"reward model {name}: must leave the texts it is given as they are; copy them first")
    if scores.std is not None:
        std = np.asarray(scores.std)[scores.valid]
        if not (np.isfinite(std).all() and (std >= 0).all()):
            raise RewardModelError(f"reward model {name}: Scores.std must be finite and >= 0, got {std.min()}")
    return scores


def _check_extremes(model: RewardModel, name: str) -> None:
    for prompt, response in (("", ""), ("Why?", ""), ("Why?", "word " * HUGE_WORDS), ("word " * HUGE_WORDS, "Yes.")):
        try:
            _scored(model, name, [prompt], [response])
        except RewardModelError as error:
            raise RewardModelError(
                f"reward model {name}: must score or abstain on any text; a prompt of {len(prompt)} characters with a "
                f"response of {len(response)} failed: {error}"
            ) from error


def _require_same(
    name: str, whole: Scores, other: Scores, rows: list[int], rule: str, atol: float, rtol: float
) -> None:
    for place, row in enumerate(rows):
        first, second = float(whole.value[row]), float(other.value[place])
        if bool(whole.valid[row]) != bool(other.valid[place]) or not np.isclose(first, second, atol=atol, rtol=rtol):
            raise RewardModelError(
                f"reward model {name}: {rule}; row {row} got {first:.6g} (valid {bool(whole.valid[row])}) and then "
                f"{second:.6g} (valid {bool(other.valid[place])})"
            )
