"""The posterior of labels: by hand, by enumeration of every truth, and on annotators of known reliability."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from lm_gym.errors import ConfigError, DataError
from lm_gym.reward_models.human.consensus.posterior import (
    Labels,
    label_posterior,
    label_probabilities,
    labels_of,
    prior_rows,
)
from lm_gym.reward_models.human.consensus.posterior import _given as given
from lm_gym.reward_models.human.consensus.posterior import _said_of as said_of


def exact(labels: Labels) -> np.ndarray:
    """Every truth of all items, by its Dirichlet-multinomial likelihood: the reliabilities are integrated out."""
    alpha, classes, people = prior_rows(labels), labels.class_count, labels.annotator_count
    total = np.zeros((labels.item_count, classes))

    def log_weight(counts: np.ndarray, prior: np.ndarray) -> float:
        parts = [math.lgamma(c + p) - math.lgamma(p) for c, p in zip(counts, prior, strict=True)]
        return math.lgamma(prior.sum()) - math.lgamma(prior.sum() + counts.sum()) + sum(parts)

    for truth in itertools.product(range(classes), repeat=labels.item_count):
        said = np.zeros((people, classes, classes))
        for item, who, label in zip(labels.items, labels.annotators, labels.labels, strict=True):
            said[who, truth[item], label] += 1
        weight = log_weight(np.bincount(truth, minlength=classes), np.ones(classes))
        weight += sum(log_weight(said[a, c], alpha[c]) for a in range(people) for c in range(classes))
        for item, right in enumerate(truth):
            total[item, right] += math.exp(weight)
    return total / total.sum(axis=1, keepdims=True)


def test_one_label_of_one_annotator_by_hand() -> None:
    """Symmetric: the prior accuracy of .8 is what is known."""
    labels = labels_of([("x", "me", 1)], class_count=2)
    assert exact(labels) == pytest.approx(np.array([[0.2, 0.8]]))
    assert label_posterior(labels, samples=4000).probability == pytest.approx(np.array([[0.2, 0.8]]), abs=0.02)
    assert label_probabilities(labels) == pytest.approx(np.array([[0.2, 0.8]]))


def test_the_prior_by_hand() -> None:
    plain = Labels(items=np.array([]), annotators=np.array([]), labels=np.array([]), item_count=0, class_count=3)
    assert prior_rows(plain) == pytest.approx(np.array([[4, 0.5, 0.5], [0.5, 4, 0.5], [0.5, 0.5, 4]]))
    scale = Labels(items=[], annotators=[], labels=[], item_count=0, class_count=3, ordered=True)
    assert prior_rows(scale)[0] == pytest.approx([4, 2 / 3, 1 / 3])
    assert prior_rows(scale)[1] == pytest.approx([0.5, 4, 0.5])


CASES = {
    "two agree": ([(0, 0, 0), (0, 1, 0)], 2),
    "two disagree": ([(0, 0, 0), (0, 1, 1)], 2),
    "one against two": ([(0, 0, 0), (0, 1, 0), (0, 2, 1), (1, 0, 1), (1, 1, 1), (1, 2, 1)], 2),
    "one always says the same": ([(i, 0, 0) for i in range(5)] + [(i, 1, i % 2) for i in range(5)], 2),
    "three classes": ([(0, 0, 2), (0, 1, 2), (1, 0, 0), (1, 1, 1), (2, 0, 1), (2, 1, 1)], 3),
    "one item without a label": ([(0, 0, 1), (2, 0, 1), (2, 1, 0)], 2),
}


@pytest.mark.parametrize("name", CASES)
def test_sampling_gives_the_enumerated_posterior(name: str) -> None:
    rows, classes = CASES[name]
    columns = np.array(rows).T
    labels = Labels(
        items=columns[0],
        annotators=columns[1],
        labels=columns[2],
        item_count=int(columns[0].max()) + 1,
        class_count=classes,
    )
    found = label_posterior(labels, samples=6000)
    assert found.probability == pytest.approx(exact(labels), abs=0.025)  # Monte Carlo: .5 / sqrt(6000 / 4) = .013
    assert (found.low <= found.probability + 1e-9).all()
    assert (found.high >= found.probability - 1e-9).all()


@pytest.mark.parametrize("name", CASES)
def test_the_quick_way_leads_where_the_exact_one_does(name: str) -> None:
    rows, classes = CASES[name]
    columns = np.array(rows).T
    labels = Labels(
        items=columns[0],
        annotators=columns[1],
        labels=columns[2],
        item_count=int(columns[0].max()) + 1,
        class_count=classes,
    )
    right, quick = exact(labels), label_probabilities(labels)
    assert quick == pytest.approx(right, abs=0.05)
    clear = np.sort(right, axis=1)[:, -1] - np.sort(right, axis=1)[:, -2] > 0.2
    assert (quick.argmax(axis=1) == right.argmax(axis=1))[clear].all()


def by_importance(labels: Labels, draws: int = 400_000) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean and 95 % interval of each item's probability: reliabilities from the prior, weighted by what was said."""
    rng, alpha, classes = np.random.default_rng(0), prior_rows(labels), labels.class_count
    share = rng.dirichlet(np.ones(classes), size=draws)
    confusion = [
        [rng.dirichlet(alpha[right], size=draws) for right in range(classes)] for _ in range(labels.annotator_count)
    ]
    joint = np.repeat(share[:, None], labels.item_count, axis=1)
    for item, who, label in zip(labels.items, labels.annotators, labels.labels, strict=True):
        for right in range(classes):
            joint[:, item, right] *= confusion[who][right][:, label]
    weight = joint.sum(axis=2).prod(axis=1)
    each = joint / joint.sum(axis=2, keepdims=True)
    mean = np.einsum("d,dic->ic", weight, each) / weight.sum()
    ends = np.empty((2, labels.item_count, classes))
    for item, right in itertools.product(range(labels.item_count), range(classes)):
        order = each[:, item, right].argsort()
        below = weight[order].cumsum() / weight.sum()
        ends[:, item, right] = each[order[np.searchsorted(below, (0.025, 0.975))], item, right]
    return mean, ends[0], ends[1]


@pytest.mark.parametrize("name", ["one label", "two agree", "two disagree", "one against two"])
def test_the_interval_is_that_of_weighted_draws_from_the_prior(name: str) -> None:
    rows, classes = {"one label": ([(0, 0, 0)], 2), **CASES}[name]
    labels = labels_of(rows, class_count=classes)
    mean, low, high = by_importance(labels)
    assert mean == pytest.approx(exact(labels), abs=0.01)
    found = label_posterior(labels, samples=8000)
    assert found.low == pytest.approx(low, abs=0.03)  # ends of a sample: three times as far off as its mean
    assert found.high == pytest.approx(high, abs=0.03)
    assert (high - low).max() > 0.3  # so that an interval of no width, or of all, would be seen


def test_without_a_prior_its_steps_are_those_of_dawid_and_skene() -> None:
    """Their EM from the shares of votes, in loops over labels as the paper writes it (eq. 2.3, 2.4, 2.5)."""
    labels, _ = crowd([0.9, 0.7, 0.6, 0.55], 25, 3, 0)
    rows = list(zip(labels.items, labels.annotators, labels.labels, strict=True))
    plain = np.zeros((25, 3))
    for item, _, label in rows:
        plain[item, label] += 1 / 4
    quick = plain.copy()
    for _ in range(12):
        said = np.zeros((4, 3, 3))
        for item, who, label in rows:
            said[who, :, label] += plain[item]
        share, after = plain.mean(axis=0), np.ones((25, 3)) * plain.mean(axis=0)
        for item, who, label in rows:
            for right in range(3):
                after[item, right] *= said[who, right, label] / said[who, right].sum()
        plain = after / after.sum(axis=1, keepdims=True)

        counts = said_of(labels, quick)
        quick = given(labels, counts / counts.sum(axis=2, keepdims=True), share)
    assert quick == pytest.approx(plain, abs=1e-9)
    assert plain.max(axis=1).mean() > 0.8


def crowd(accuracies: list[float], items: int, classes: int, seed: int) -> tuple[Labels, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = rng.integers(classes, size=items)
    rows = []
    for who, accuracy in enumerate(accuracies):
        wrong = (truth + rng.integers(1, classes, size=items)) % classes
        said = np.where(rng.random(items) < accuracy, truth, wrong)
        rows += [(item, who, int(label)) for item, label in enumerate(said)]
    columns = np.array(rows).T
    return (
        Labels(items=columns[0], annotators=columns[1], labels=columns[2], item_count=items, class_count=classes),
        truth,
    )


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_reliable_annotator_outweighs_two_that_guess(seed: int) -> None:
    labels, truth = crowd([0.95, 0.9, 0.5, 0.5, 0.5], 300, 2, seed)
    votes = np.stack([np.bincount(labels.items, weights=labels.labels == c, minlength=300) for c in (0, 1)], axis=1)
    by_majority = (votes.argmax(axis=1) == truth).mean()
    found = label_posterior(labels)
    assert (found.leading == truth).mean() > by_majority + 0.05
    assert found.accuracy == pytest.approx([0.95, 0.9, 0.5, 0.5, 0.5], abs=0.08)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_probabilities_are_calibrated(seed: int) -> None:
    labels, truth = crowd([0.8, 0.75, 0.7], 600, 2, seed)
    for found in (label_posterior(labels).probability, label_probabilities(labels)):
        said, right = found.max(axis=1), found.argmax(axis=1) == truth
        assert said.mean() == pytest.approx(right.mean(), abs=0.05)  # 600 items: a standard error of .016


def test_more_labels_narrow_the_interval() -> None:
    few, _ = crowd([0.8] * 3, 10, 2, 0)
    many, _ = crowd([0.8] * 3, 1000, 2, 0)
    width = [float((one.high - one.low).mean()) for one in (label_posterior(few), label_posterior(many))]
    assert width[1] < 0.5 * width[0]


def test_neighbours_on_a_scale_are_confused_rather() -> None:
    said = [("x", "me", 4)]
    plain, scale = (label_probabilities(labels_of(said, class_count=6, ordered=on))[0] for on in (False, True))
    assert plain[3] == pytest.approx(plain[0])
    assert scale[3] > 3 * scale[0]


def test_nothing_at_all() -> None:
    empty = labels_of([], class_count=4)
    assert label_probabilities(empty).shape == label_posterior(empty).low.shape == (0, 4)


def test_the_same_seed_gives_the_same_posterior() -> None:
    labels, _ = crowd([0.8, 0.6], 20, 3, 0)
    assert (label_posterior(labels, seed=3).low == label_posterior(labels, seed=3).low).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"items": [0, 5]}, "items must lie in 0..1"),
        ({"labels": [0, 2]}, "labels must lie in 0..1"),
        ({"annotators": [0, -1]}, "annotators must lie in 0.."),
        ({"labels": [0.0, 1.0]}, "must be a list of whole numbers"),
        ({"labels": [0]}, "must be equally many, got 2, 2 and 1"),
        ({"class_count": 1}, "class_count must be >= 2"),
    ],
)
def test_bad_labels_are_refused(change: dict, message: str) -> None:
    good = {"items": [0, 1], "annotators": [0, 0], "labels": [0, 1], "item_count": 2, "class_count": 2}
    Labels(**good)
    with pytest.raises(DataError, match=message):
        Labels(**{**good, **change})


def test_samples_are_counted() -> None:
    with pytest.raises(ConfigError, match="samples"):
        label_posterior(labels_of([], class_count=2), samples=0)
