"""Reward models on real human judgements: four fixed folds, each leaving three of the twelve topics out.

    LM_GYM_DATA=DATA LM_GYM_ENCODER=FOLDER python -m benchmarks.arguments --kind embedding --learn pairs

``DATA/arguments`` holds pairs.jsonl, rankings.jsonl and votes.jsonl.gz (UKPConvArg1, Habernal and Gurevych 2016);
``FOLDER`` is a sentence encoder, MiniLM for instance. Both sides of a topic stay together. A fold is measured on the
clear pairs of its topics, and by rank correlation with the ranking of each debate side.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from scipy.stats import spearmanr

from lm_gym.reward_models import (
    CrossEncoderRewardModel,
    EmbeddingRewardModel,
    EmbeddingTrainingConfig,
    Judgement,
    LoraSettings,
    LossConfig,
    PreferenceRewardModel,
    Ranks,
    RewardTrainingConfig,
    evaluate_reward_model,
    load_judgements,
)

FOLDS = 4
FILES = {"pairs": "pairs.jsonl", "rankings": "rankings.jsonl", "votes": "votes.jsonl.gz"}
LEARN = {"pairs": ("pairs",), "votes": ("votes",), "rankings": ("rankings",), "joint": ("pairs", "votes", "rankings")}


def topic_of(prompt: str) -> str:
    """Both sides of a debate have one topic."""
    return prompt.split(". Argue for")[0]


def train(options: argparse.Namespace, judgements: list[Judgement], encoder: str, cache: Path) -> Any:
    """A reward model of the wanted kind."""
    loss = LossConfig(tie_model=options.tie_model, rankings_weight=options.rankings_weight)
    if options.kind == "embedding":
        config = EmbeddingTrainingConfig(l2=options.l2, loss=loss, reads=options.reads, surface=options.surface)
        return EmbeddingRewardModel.train(judgements, encoder, config, device="cpu", cache_dir=cache)
    settings = RewardTrainingConfig(
        epochs=options.epochs,
        learning_rate=options.learning_rate,
        items_per_step=1,
        max_responses=16,
        loss=loss,
        seed=options.seed,
    )
    kind = CrossEncoderRewardModel if options.kind == "cross-encoder" else PreferenceRewardModel
    lora = LoraSettings(rank=options.lora_rank) if options.lora_rank else None
    return kind.train(judgements, encoder, settings, max_length=256, seed=options.seed, device="cpu", lora=lora)


def rank_correlation(model: Any, rankings: list[Judgement]) -> float:
    """Mean Spearman correlation of scores and places within a debate side."""
    found = []
    for one in rankings:
        assert isinstance(one.verdict, Ranks)
        scores = model.score([one.prompt] * len(one.texts), one.texts).value
        found.append(-float(spearmanr(scores, one.verdict.ranks).statistic))
    return statistics.mean(found)


def main() -> None:
    """Train and measure every fold, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", choices=["embedding", "preference", "cross-encoder"], default="embedding")
    parser.add_argument("--learn", choices=list(LEARN), default="pairs")
    parser.add_argument("--tie-model", choices=["half", "rao_kupper", "davidson"], default="half")
    parser.add_argument("--rankings-weight", type=float, default=1.0)
    parser.add_argument("--l2", type=float, default=1.0)
    parser.add_argument("--reads", choices=["response", "prompt_and_response", "interaction"], default="response")
    parser.add_argument("--surface", action="store_true")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    parser.add_argument("--lora-rank", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    folder, encoder = Path(os.environ["LM_GYM_DATA"]) / "arguments", os.environ["LM_GYM_ENCODER"]
    data = {name: load_judgements(folder / file).judgements for name, file in FILES.items()}
    topics = sorted({topic_of(one.prompt) for one in data["pairs"]})
    console = Console(width=110)
    table = Table("fold", "pairs", "accuracy", "length", "NLL", "ECE", "ECE at T", "Spearman", "seconds")
    rows: list[list[float]] = []
    with tempfile.TemporaryDirectory() as cache:
        for fold in range(FOLDS):
            held_out = set(topics[fold::FOLDS])
            train_on = [
                one for name in LEARN[options.learn] for one in data[name] if topic_of(one.prompt) not in held_out
            ]
            pairs, rankings = (
                [one for one in data[name] if topic_of(one.prompt) in held_out] for name in ("pairs", "rankings")
            )
            start = time.monotonic()
            model = train(options, train_on, encoder, Path(cache))
            seconds = time.monotonic() - start
            found = evaluate_reward_model(model, pairs, group_of=topic_of)
            numbers = [found.accuracy, found.length_accuracy, found.nll, found.ece, found.ece_at_temperature]
            rows.append([*numbers, rank_correlation(model, rankings), seconds])
            table.add_row(str(fold), str(found.pairs), *(f"{number:.3f}" for number in rows[-1][:-1]), f"{seconds:.0f}")
    means = [statistics.mean(column) for column in zip(*rows, strict=True)]
    table.add_row("mean", "", *(f"{number:.3f}" for number in means[:-1]), f"{means[-1]:.0f}")
    console.print(table, f"worst fold: accuracy {min(row[0] for row in rows):.3f}")


if __name__ == "__main__":
    main()
