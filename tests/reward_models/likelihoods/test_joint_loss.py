"""One loss for every kind of judgement: values by hand, and scores that are recovered from what they produced."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from lm_gym.errors import ConfigError
from lm_gym.reward_models.judgements.learning_targets import Opinion, Pair, Ranked, Targets
from lm_gym.reward_models.likelihoods.joint_loss import JudgementLoss, LossConfig, target_tensors

COUNT = 30


def loss_of(scores: list[float], targets: Targets, **config: Any) -> float:
    loss = JudgementLoss(LossConfig(**config), [targets])
    return float(loss(torch.tensor(scores), target_tensors([targets], [range(len(scores))])).detach())


def log_sigmoid(x: float) -> float:
    return -math.log1p(math.exp(-x))


def test_a_mix_is_the_weighted_sum_of_its_parts() -> None:
    scores = [0.3, -0.8, 1.1]
    parts = {
        "rankings": Targets(rankings=(Ranked((0, 1, 2), (2, 3, 1)),)),
        "pairs": Targets(pairs=(Pair(0, 1, (0.6, 0.2, 0.2)),)),
        "thumbs": Targets(thumbs=(Opinion(2, 1.0), Opinion(1, 0.0))),
        "ratings": Targets(ratings=(Opinion(0, 4.0), Opinion(1, 1.0))),
        "values": Targets(values=(Opinion(0, 10.0), Opinion(2, 30.0))),
    }
    whole = Targets(**{name: getattr(part, name) for name, part in parts.items()})
    weights = {"rankings": 1.0, "pairs": 0.5, "thumbs": 2.0, "ratings": 0.25, "values": 3.0}
    expected = sum(weights[name] * loss_of(scores, part) for name, part in parts.items())
    got = loss_of(scores, whole, **{f"{name}_weight": weight for name, weight in weights.items()})
    assert got == pytest.approx(expected, rel=1e-5)
    assert len(whole) == 8


def test_pairs_and_picks_by_hand() -> None:
    pair = Targets(pairs=(Pair(0, 1, (0.6, 0.2, 0.2)),))
    assert loss_of([0.7, 0.0], pair) == pytest.approx(-(0.7 * log_sigmoid(0.7) + 0.3 * log_sigmoid(-0.7)), rel=1e-5)
    won = Targets(pairs=(Pair(0, 1, (1.0, 0.0, 0.0)),))
    assert loss_of([0.7, 0.0], won, margin=0.5) == pytest.approx(-log_sigmoid(0.2), rel=1e-5)
    smoothed = -(0.95 * log_sigmoid(0.7) + 0.05 * log_sigmoid(-0.7))
    assert loss_of([0.7, 0.0], won, label_smoothing=0.1) == pytest.approx(smoothed, rel=1e-5)
    assert loss_of([0.7, 0.1], won, score_centering=2.0) == pytest.approx(-log_sigmoid(0.6) + 2 * 0.4**2, rel=1e-5)
    best = Targets(rankings=(Ranked((0, 1, 2), (2, 1, 2)),))
    odds = [math.exp(s) for s in (0.3, 0.9, -0.4)]
    assert loss_of([0.3, 0.9, -0.4], best) == pytest.approx(-math.log(odds[1] / sum(odds)), rel=1e-5)


def test_the_margin_of_a_row_is_taken_off_the_winners_lead() -> None:
    by_a = Targets(pairs=(Pair(0, 1, (1.0, 0.0, 0.0), 0.5),))
    by_b = Targets(pairs=(Pair(0, 1, (0.0, 0.0, 1.0), 0.5),))
    assert loss_of([0.7, 0.0], by_a) == pytest.approx(-log_sigmoid(0.2), rel=1e-5)
    assert loss_of([0.7, 0.0], by_b) == pytest.approx(-log_sigmoid(-1.2), rel=1e-5)
    assert loss_of([0.7, 0.0], by_a, margin=0.1) == pytest.approx(-log_sigmoid(0.1), rel=1e-5)
    with pytest.raises(ConfigError, match='must be "half" where choices have a margin'):
        loss_of([0.7, 0.0], by_a, tie_model="davidson")


def test_links_start_where_the_frequencies_put_them() -> None:
    thumbs = tuple(Opinion(0, float(number < 3)) for number in range(4))
    ratings = tuple(Opinion(0, float(number % 6)) for number in range(60))
    values = (Opinion(0, 10.0), Opinion(0, 30.0))
    links = JudgementLoss(None, [Targets(thumbs=thumbs, ratings=ratings, values=values)]).links()
    assert links["thumb_bias"] == pytest.approx(math.log(3))
    assert links["rating_thresholds"] == pytest.approx([math.log(k / (6 - k)) for k in range(1, 6)], abs=1e-4)
    assert (links["value_center"], links["value_scale"]) == (20.0, 10.0)
    stated = JudgementLoss(LossConfig(value_center=1.0, value_scale=5.0), [Targets(values=values)]).links()
    assert (stated["value_center"], stated["value_scale"]) == (1.0, 5.0)


@pytest.mark.parametrize("model", ["rao_kupper", "davidson"])
def test_a_tie_parameter_starts_at_the_share_of_ties(model: Any) -> None:
    pairs = tuple(Pair(0, 1, (0.0, 1.0, 0.0) if number < 3 else (0.5, 0.0, 0.5)) for number in range(10))
    tie = Targets(pairs=(Pair(0, 1, (0.0, 1.0, 0.0)),))
    loss = JudgementLoss(LossConfig(tie_model=model), [Targets(pairs=pairs)])
    got = loss(torch.zeros(2), target_tensors([tie], [range(2)]))
    assert math.exp(-float(got.detach())) == pytest.approx(0.3, abs=1e-4)


def test_an_empty_batch_of_a_kind_costs_nothing_and_keeps_the_graph() -> None:
    scores = torch.tensor([0.5, -0.5], requires_grad=True)
    loss = JudgementLoss()
    thumbs = Targets(thumbs=(Opinion(0, 1.0),))
    loss(scores, target_tensors([thumbs], [range(2)])).backward()
    assert all(torch.isfinite(p.grad).all() for p in loss.parameters() if p.requires_grad and p.grad is not None)
    assert all(p.grad is not None for p in loss.parameters() if p.requires_grad)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tie_model": "coin"}, "tie_model"),
        ({"label_smoothing": 0.5}, "label_smoothing"),
        ({"margin": -1.0}, "margin"),
        ({"margin": 1.0, "tie_model": "davidson"}, "margin"),
        ({"value_scale": 0.0}, "value_scale"),
        ({"thumbs_weight": math.nan}, "thumbs_weight"),
    ],
)
def test_bad_settings_are_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        LossConfig(**change)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def sampled_pairs(kind: str, truth: np.ndarray, rng: np.random.Generator) -> Targets:
    """Comparisons that people with these scores in mind would make."""
    pairs = []
    for _ in range(400 if kind == "votes" else 1500):
        first, second = (int(place) for place in rng.choice(COUNT, 2, replace=False))
        lead = float(truth[first] - truth[second])
        if kind == "rao_kupper":
            p = np.array([sigmoid(lead - 0.6), 0.0, sigmoid(-lead - 0.6)])
            p[1] = 1 - p.sum()
        elif kind == "davidson":
            p = np.exp([lead / 2, 0.2, -lead / 2])
        else:
            p = np.array([sigmoid(lead), 0.0, sigmoid(-lead)])
        people = 5 if kind == "votes" else 1
        won, tied, lost = rng.multinomial(people, p / p.sum()) / people
        pairs.append(Pair(first, second, (float(won), float(tied), float(lost))))
    return Targets(pairs=tuple(pairs))


def sampled_rankings(kind: str, truth: np.ndarray, rng: np.random.Generator) -> Targets:
    rankings = []
    for _ in range(300 if kind == "rankings" else 900):
        places = rng.choice(COUNT, 5, replace=False)
        order = np.argsort(-(truth[places] + rng.gumbel(size=5)))
        ranks = np.empty(5, dtype=int)
        ranks[order] = np.arange(1, 6)
        if kind == "best_of":
            ranks = np.minimum(ranks, 2)
        rankings.append(Ranked(tuple(map(int, places)), tuple(map(int, ranks))))
    return Targets(rankings=tuple(rankings))


def sampled_opinions(kind: str, truth: np.ndarray, rng: np.random.Generator) -> Targets:
    places = [int(place) for place in rng.integers(COUNT, size=3000)]
    if kind == "thumbs":
        return Targets(thumbs=tuple(Opinion(p, float(rng.random() < sigmoid(truth[p] + 0.5))) for p in places))
    if kind == "ratings":
        stars = np.searchsorted([-2.0, -1.0, 0.0, 1.0, 2.0], [truth[p] + rng.logistic() for p in places])
        return Targets(ratings=tuple(Opinion(p, float(s)) for p, s in zip(places, stars, strict=True)))
    return Targets(values=tuple(Opinion(p, float(7 + 3 * (truth[p] + rng.normal()))) for p in places))


def sampled(kind: str, truth: np.ndarray, rng: np.random.Generator) -> Targets:
    if kind in ("rankings", "best_of"):
        return sampled_rankings(kind, truth, rng)
    if kind in ("thumbs", "ratings", "values"):
        return sampled_opinions(kind, truth, rng)
    return sampled_pairs(kind, truth, rng)


KINDS = ["pairs", "votes", "rao_kupper", "davidson", "rankings", "best_of", "thumbs", "ratings", "values"]


@pytest.mark.parametrize("kind", [*KINDS, "all at once"])
def test_the_scalar_behind_judgements_is_recovered(kind: str) -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(0, 1.5, COUNT)
    mixed = [one for one in KINDS if one not in ("rao_kupper", "davidson")]
    targets = [sampled(one, truth, rng) for one in (mixed if kind == "all at once" else [kind])]
    tie_model: Any = kind if kind in ("rao_kupper", "davidson") else "half"
    loss = JudgementLoss(LossConfig(tie_model=tie_model), targets)
    scores = torch.zeros(COUNT, requires_grad=True)
    batch = target_tensors(targets, [range(COUNT)] * len(targets))
    fitted = torch.optim.LBFGS([scores, *loss.parameters()], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        fitted.zero_grad()
        value = loss(scores, batch) / len(batch["labels"]) + 1e-4 * (scores**2).sum()
        value.backward()
        return value

    fitted.step(closure)
    assert spearmanr(scores.detach().numpy(), truth).statistic >= 0.95
