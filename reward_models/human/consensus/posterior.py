"""Posterior of the right label of each item, from the labels of several annotators of unknown reliability.

Knows: items, annotators and labels as whole numbers. Does not know: where they come from.

Model (Dawid and Skene 1979, with priors): item i has one right class ``z_i ~ Categorical(pi)``; annotator a who sees
class c says l with probability ``theta[a, c, l]``; ``pi ~ Dirichlet(1)`` and each row ``theta[a, c] ~
Dirichlet(alpha[c])`` with the largest weight on the diagonal. The prior is what keeps one label from being certain, and
what names the classes: without it, all annotators wrong is as likely as all annotators right.

Two ways to the same posterior: :func:`label_probabilities`, collapsed variational inference, takes milliseconds
("CVB0" of Asuncion et al. 2009, arXiv:1205.2662: what an item itself says of its annotators is taken out before it is
judged by them); :func:`label_posterior`, Gibbs sampling, also has intervals.

Shapes: N = labels, I = items, A = annotators, C = classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lm_gym.errors import DataError
from lm_gym.tools.settings import Count, Seed, checked, shown

__all__ = ["LabelPosterior", "Labels", "label_posterior", "label_probabilities", "labels_of"]

RIGHT, STRENGTH = 0.8, 5.0
"""Prior: an annotator is right four times in five, worth five observations of each class."""
ITERATIONS, TOLERANCE = 200, 1e-7
BURN_IN = 100


@dataclass(frozen=True, kw_only=True, eq=False)
class Labels:
    """Labels of several annotators.

    Raises:
        DataError: the arrays differ in length, or a number is out of range.
    """

    items: np.ndarray
    """Item of each label. Shape: (N,), in 0..I-1."""
    annotators: np.ndarray
    """Annotator of each label. Shape: (N,), in 0..A-1."""
    labels: np.ndarray
    """Shape: (N,), in 0..C-1."""
    item_count: int
    """I; an item may have no label."""
    class_count: int
    """C >= 2."""
    ordered: bool = False
    """True for classes on a scale, of which an annotator rather confuses neighbours."""

    def __post_init__(self) -> None:
        for name in ("items", "annotators", "labels"):
            value = np.asarray(getattr(self, name))
            if value.ndim != 1 or (value.size and value.dtype.kind not in "iu"):
                raise DataError(f"Labels: {name} must be a list of whole numbers, got {shown(getattr(self, name))}")
            object.__setattr__(self, name, value.astype(np.int64))
        if not len(self.items) == len(self.annotators) == len(self.labels):
            raise DataError(
                f"Labels: items, annotators and labels must be equally many, got {len(self.items)}, "
                f"{len(self.annotators)} and {len(self.labels)}"
            )
        if self.class_count < 2:
            raise DataError(f"Labels: class_count must be >= 2, got {self.class_count}")
        bounds = {"items": self.item_count, "labels": self.class_count, "annotators": None}
        for name, most in bounds.items():
            value = getattr(self, name)
            if value.size and (value.min() < 0 or (most is not None and value.max() >= most)):
                raise DataError(f"Labels: {name} must lie in 0..{'' if most is None else most - 1}, got {shown(value)}")

    @property
    def annotator_count(self) -> int:
        """A."""
        return int(self.annotators.max()) + 1 if len(self.annotators) else 0


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelPosterior:
    """Posterior of the right class of each item, and of each annotator's reliability."""

    probability: np.ndarray
    """Of each class. Shape: (I, C)."""
    low: np.ndarray
    """Lower end of the 95 % interval of that probability over what the annotators' reliabilities may be. (I, C)."""
    high: np.ndarray
    """Its upper end. (I, C)."""
    accuracy: np.ndarray
    """Probability that an annotator says the right class, over the classes as often as they occur. Shape: (A,)."""

    @property
    def leading(self) -> np.ndarray:
        """The most probable class of each item. Shape: (I,)."""
        return self.probability.argmax(axis=1)


def prior_rows(labels: Labels) -> np.ndarray:
    """Weights ``alpha`` of the Dirichlet prior of each row of a confusion matrix. Shape: (C, C)."""
    count = labels.class_count
    distance = np.abs(np.arange(count)[:, None] - np.arange(count)[None, :])
    wrong = np.where(distance == 0, 0.0, 0.5 ** (distance - 1.0) if labels.ordered else 1.0)
    return STRENGTH * (RIGHT * np.eye(count) + (1 - RIGHT) * wrong / wrong.sum(axis=1, keepdims=True))


def label_probabilities(labels: Labels) -> np.ndarray:
    """Probability of each class for each item, by collapsed variational inference. Shape: (I, C).

    An annotator's second label of one item counts as one of another annotator's.
    """
    alpha = prior_rows(labels)
    share = np.full(labels.class_count, 1 / labels.class_count)
    confusion = np.broadcast_to(
        alpha / alpha.sum(axis=1, keepdims=True), (max(labels.annotator_count, 1), *alpha.shape)
    )
    found = _given(labels, confusion, share)
    for _ in range(ITERATIONS):
        before, found = found, _without_itself(labels, found, alpha)
        if np.abs(found - before).max(initial=0.0) < TOLERANCE:
            break
    return found


def _without_itself(labels: Labels, found: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """One pass: each item given all others. Shapes: (I, C), (C, C). Returns: (I, C)."""
    said, own = _said_of(labels, found) + alpha, found[labels.items]
    here = np.maximum(said[labels.annotators, :, labels.labels] - own, 1e-12)
    logs = np.log(here) - np.log(said.sum(axis=2)[labels.annotators] - own)
    total = [
        np.bincount(labels.items, weights=logs[:, of], minlength=labels.item_count) for of in range(labels.class_count)
    ]
    return _normalised(np.log(1 + found.sum(axis=0) - found) + np.stack(total, axis=1))


def label_posterior(labels: Labels, *, samples: int = 400, seed: int = 0) -> LabelPosterior:
    """Posterior of the right class of each item, by Gibbs sampling.

    Args:
        labels: of several annotators.
        samples: of the reliabilities, after 100 that are thrown away.
        seed: of the sampler.

    Raises:
        ConfigError: samples is no whole number >= 1.
    """
    samples = checked("label_posterior: samples", samples, Count)
    rng = np.random.default_rng(checked("label_posterior: seed", seed, Seed))
    alpha, found = prior_rows(labels), label_probabilities(labels)
    kept = np.empty((samples, labels.item_count, labels.class_count))
    accuracy = np.zeros(labels.annotator_count)
    for number in range(-BURN_IN, samples):
        right = np.eye(labels.class_count)[(found.cumsum(axis=1) > rng.random((len(found), 1))).argmax(axis=1)]
        share = rng.dirichlet(1 + right.sum(axis=0))
        confusion = rng.standard_gamma(_said_of(labels, right) + alpha)
        confusion /= confusion.sum(axis=2, keepdims=True)
        found = _given(labels, confusion, share)
        if number >= 0:
            kept[number] = found
            accuracy += np.einsum("c,acc->a", share, confusion)[: len(accuracy)] / samples
    low, high = np.quantile(kept, (0.025, 0.975), axis=0) if labels.item_count else (kept[0], kept[0])
    return LabelPosterior(probability=kept.mean(axis=0), low=low, high=high, accuracy=accuracy)


def _said_of(labels: Labels, right: np.ndarray) -> np.ndarray:
    """How often each annotator said each label of each class. Returns: (A, C, C), at least one annotator."""
    classes, people = labels.class_count, max(labels.annotator_count, 1)
    place = labels.annotators * classes + labels.labels
    counts = [np.bincount(place, weights=right[labels.items, of], minlength=people * classes) for of in range(classes)]
    return np.stack(counts).reshape(classes, people, classes).transpose(1, 0, 2)


def _given(labels: Labels, confusion: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Probability of each class given the reliabilities (Dawid and Skene 1979, eq. 2.5). Returns: (I, C)."""
    logs = np.log(np.maximum(confusion, 1e-300))
    said = [
        np.bincount(labels.items, weights=logs[labels.annotators, of, labels.labels], minlength=labels.item_count)
        for of in range(labels.class_count)
    ]
    return _normalised(np.log(np.maximum(share, 1e-300)) + np.stack(said, axis=1))


def _normalised(logs: np.ndarray) -> np.ndarray:
    found = np.exp(logs - logs.max(axis=1, keepdims=True))
    return np.asarray(found / found.sum(axis=1, keepdims=True))


def labels_of(rows: Sequence[tuple[Any, Any, int]], *, class_count: int, ordered: bool = False) -> Labels:
    """Labels from rows of (item, annotator, class), whose items and annotators have any names.

    Items are numbered in the order in which they come, and annotators too.
    """
    items: dict[Any, int] = {}
    people: dict[Any, int] = {}
    numbers = [
        (items.setdefault(item, len(items)), people.setdefault(who, len(people)), label) for item, who, label in rows
    ]
    columns = np.array(numbers, dtype=np.int64).reshape(-1, 3).T
    return Labels(
        items=columns[0],
        annotators=columns[1],
        labels=columns[2],
        item_count=len(items),
        class_count=class_count,
        ordered=ordered,
    )
