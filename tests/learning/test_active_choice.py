"""Choosing what to ask: where most candidates teach nothing, few chosen labels do what many random ones do.

Among candidates that are all worth asking about, choosing gained nothing that eight seeds could show (docs/log.md).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lm_gym import reviews
from lm_gym.assets import REVIEWS_LM
from lm_gym.reward_models import (
    BradleyTerryAnnotator,
    EmbeddingRewardModel,
    EmbeddingTrainingConfig,
    EnsembleRewardModel,
    Judgement,
    Question,
    SentenceFeatures,
    choose_pairs,
)

FIRST, STEP, LAST, MEMBERS, SEEDS = 20, 20, 200, 6, 4
DULL = 0.9
"""Share of the candidates whose second response is the first with another mark at its end."""
CONFIG = EmbeddingTrainingConfig(l2=0.5, max_iterations=60)


class World:
    """Candidates without labels, a noisy annotator, and held-out pairs with their truth."""

    def __init__(self, seed: int, encoder: SentenceFeatures, cache: Path) -> None:
        rng = np.random.default_rng(seed)

        def pairs(prompts: list[str], count: int) -> list[tuple[str, str, str]]:
            drawn = [str(prompt) for prompt in rng.choice(prompts, count)]
            made = [(p, reviews.sample_review(p, rng), reviews.sample_review(p, rng)) for p in drawn]
            return [one for one in made if one[1] != one[2]]

        varied, self.test = pairs(reviews.prompts("train"), 1200), pairs(reviews.prompts("held_out"), 1000)
        dull = rng.random(len(varied)) < DULL
        self.pool = [
            (prompt, first, first[:-1] + ("." if first[-1] == "!" else "!") if is_dull else second)
            for (prompt, first, second), is_dull in zip(varied, dull, strict=True)
        ]
        self.annotator = BradleyTerryAnnotator(reviews.true_score, temperature=0.1, seed=seed)
        truth = [np.array(reviews.true_score([p] * 2, [a, b])) for p, a, b in self.test]
        self.lead = np.array([first - second for first, second in truth])
        self.labels: dict[int, Judgement] = {}
        self.encoder, self.cache = encoder, cache

    def label(self, index: int) -> Judgement:
        if index not in self.labels:
            prompt, first, second = self.pool[index]
            (self.labels[index],) = self.annotator.ask([Question.of(prompt, (first, second))])
        return self.labels[index]

    def fitted(self, judgements: list[Judgement]) -> EmbeddingRewardModel:
        return EmbeddingRewardModel.train(judgements, self.encoder, CONFIG, cache_dir=self.cache)

    def accuracy(self, judgements: list[Judgement]) -> float:
        model = self.fitted(judgements)
        prompts = [one[0] for one in self.test]
        first, second = (model.score(prompts, [one[place] for one in self.test]).value for place in (1, 2))
        decided = np.abs(self.lead) > 1e-9
        return float((np.sign(first - second) == np.sign(self.lead))[decided].mean())


def curve(world: World, rule: Any, seed: int) -> list[float]:
    """Accuracy after each round of labels."""
    chosen = [int(i) for i in np.random.default_rng(seed + 100).permutation(len(world.pool))[:FIRST]]
    found = []
    while True:
        said = [world.label(index) for index in chosen]
        found.append(world.accuracy(said))
        if len(chosen) >= LAST:
            return found
        left = sorted(set(range(len(world.pool))) - set(chosen))
        ensemble = None
        if rule != "random":
            rng = np.random.default_rng(len(chosen) + seed)
            draws = [rng.integers(len(said), size=len(said)) for _ in range(MEMBERS)]
            ensemble = EnsembleRewardModel([world.fitted([said[i] for i in draw]) for draw in draws])
        candidates = [world.pool[index] for index in left]
        picks = choose_pairs(candidates, STEP, rule=rule, ensemble=ensemble, seed=seed + len(chosen))
        chosen += [left[index] for index in picks]


@pytest.fixture(scope="module")
def encoder() -> SentenceFeatures:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    base = Transformer(str(REVIEWS_LM), max_seq_length=128)
    if base.tokenizer.pad_token is None:
        base.tokenizer.pad_token = base.tokenizer.eos_token
    model = SentenceTransformer(modules=[base, Pooling(base.get_embedding_dimension())], device="cpu")
    return SentenceFeatures(model, source="reviews")


@pytest.mark.slow
def test_where_most_pairs_teach_nothing_chosen_ones_need_half_of_the_labels(
    encoder: SentenceFeatures, tmp_path: Path
) -> None:
    rules = ("random", "disagreement", "information")
    curves: dict[str, list[list[float]]] = {rule: [] for rule in rules}
    for seed in range(SEEDS):
        world = World(seed, encoder, tmp_path)
        for rule in rules:
            curves[rule].append(curve(world, rule, seed))
    means = {rule: np.mean(found, axis=0) for rule, found in curves.items()}
    counts = np.arange(FIRST, LAST + 1, STEP)
    for rule in rules:
        told = " ".join(f"{count}:{value:.3f}" for count, value in zip(counts, means[rule], strict=True))
        print(f"{rule:>13}: {told}")
    for rule in rules[1:]:
        reached = counts[np.argmax(means[rule] >= means["random"][-1])]
        print(f"{rule}: {reached} labels reach what {LAST} random ones do")
        assert means[rule][-1] > means["random"][-1]
        assert reached <= 0.5 * LAST
