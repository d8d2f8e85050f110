"""Does an ensemble know when it is wrong? The four folds of ``benchmarks.arguments``, members from drawn topics.

    LM_GYM_DATA=DATA LM_GYM_ENCODER=FOLDER python -m benchmarks.arguments_ensemble

Each member is a head on the frozen encoder, fitted to the pairs of topics drawn with replacement.
"""

from __future__ import annotations

import argparse
import os
import random
import tempfile
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.arguments import FOLDS, topic_of
from lm_gym.reward_models import (
    EmbeddingRewardModel,
    EmbeddingTrainingConfig,
    EnsembleRewardModel,
    Judgement,
    SentenceFeatures,
    error_detection,
    evaluate_reward_model,
    load_judgements,
)


def ensemble(judgements: list[Judgement], encoder: SentenceFeatures, members: int, cache: str) -> EnsembleRewardModel:
    """Members on topics drawn with replacement."""
    topics = sorted({topic_of(one.prompt) for one in judgements})
    found = []
    for seed in range(members):
        drawn = random.Random(seed).choices(topics, k=len(topics))
        part = [one for topic in drawn for one in judgements if topic_of(one.prompt) == topic]
        found.append(EmbeddingRewardModel.train(part, encoder, EmbeddingTrainingConfig(), cache_dir=cache))
    return EnsembleRewardModel(found)


def main() -> None:
    """Train and measure every fold, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--members", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    pairs = load_judgements(Path(os.environ["LM_GYM_DATA"]) / "arguments" / "pairs.jsonl").judgements
    encoder = SentenceFeatures.from_pretrained(os.environ["LM_GYM_ENCODER"], device="cpu")
    topics = sorted({topic_of(one.prompt) for one in pairs})
    table = Table("fold", "pairs", "errors", "accuracy", "AUROC: disagreement", "spread", "small difference")
    with tempfile.TemporaryDirectory() as cache:
        for fold in range(FOLDS):
            held_out = set(topics[fold::FOLDS])
            train = [one for one in pairs if topic_of(one.prompt) not in held_out]
            test = [one for one in pairs if topic_of(one.prompt) in held_out]
            model = ensemble(train, encoder, options.members, cache)
            found = error_detection(model, test)
            assert found is not None
            assert found.by_disagreement is not None
            accuracy = evaluate_reward_model(model, test, group_of=topic_of).accuracy
            numbers = (accuracy, found.by_disagreement, found.by_spread, found.by_margin)
            table.add_row(str(fold), str(found.pairs), str(found.errors), *(f"{number:.3f}" for number in numbers))
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
