"""Rules of a label store: how many people answer an item, for how long it is theirs, and what is shown again."""

from __future__ import annotations

from typing import Annotated

from lm_gym.tools.settings import Bounds, Count, Positive, Seed, Share, Whole, settings

__all__ = ["LabelRules"]


@settings
class LabelRules:
    """Rules that every page and every trainer on one store reads from its log."""

    overlap: Count = 1
    """Most annotators that answer one item."""
    sure: Annotated[float, Bounds(above=0.5, most=1)] = 0.95
    """Probability of an item's answer from which on it consumes no further annotators, though fewer than ``overlap``
    answered; 1 always asks all of them."""
    skips: Count = 3
    """Annotators that pass an item until nobody else is asked; it also rests when all that were ever shown anything
    have answered or passed it."""
    lease_seconds: Positive = 600.0
    """Time for which an item that was shown is one annotator's."""
    repeat_share: Share = 0.05
    """Share of what an annotator is shown that they answered before, with the sides swapped."""
    repeat_gap: Whole = 10
    """Answers of that annotator between the two."""
    check_share: Share = 0.05
    """Share of what an annotator is shown whose answer is known, while there are such items that they have not seen."""
    seed: Seed = 0
    """Seed of the order of responses and of these two draws."""
