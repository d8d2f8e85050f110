"""Every kind of judgement through the trainer: one scalar, its links, and what is said of the data."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lm_gym.reward_models import (
    BestOf,
    Choice,
    Critique,
    Judgement,
    LossConfig,
    PreferenceRewardModel,
    Rating,
    RewardTrainingConfig,
    Thumb,
    Value,
    Vote,
    Votes,
    evaluate_reward_model,
)

PROMPT = "write a review :"
CONFIG = RewardTrainingConfig(epochs=6, learning_rate=3e-3, link_learning_rate=0.03)


def said_of(kind: str, texts: list[str], truth: list[float]) -> list[Judgement]:
    """Judgements by somebody who sees the truth, about texts in turn."""
    said = []
    for place, (text, value) in enumerate(zip(texts, truth, strict=True)):
        other = (place * 7 + 1) % len(texts)
        lead = value - truth[other]
        both = (text, texts[other])
        winner: Any = "a" if lead > 0 else "b"
        if kind == "thumb":
            said.append(Judgement.of(PROMPT, (text,), Thumb(value > 1)))
        elif kind == "rating":
            said.append(Judgement.of(PROMPT, (text,), Rating(int(min(max(round(value / 2 + 2.5), 0), 5)))))
        elif kind == "value":
            said.append(Judgement.of(PROMPT, (text,), Value(50 + 10 * value)))
        elif lead and text != texts[other]:
            verdicts: dict[str, Any] = {
                "choice": Choice(winner),
                "votes": Votes((Vote(winner), Vote(winner), Vote("tie"))),
                "best_of": BestOf(0 if lead > 0 else 1),
            }
            said.append(Judgement.of(PROMPT, both, verdicts[kind]))
    return said


KINDS = ["choice", "votes", "best_of", "thumb", "rating", "value"]


@pytest.fixture(scope="module")
def data(judged_texts: Callable[..., Any], word_score: Callable[..., list[float]]) -> tuple[list[str], list[float]]:
    texts = sorted({text for one in judged_texts(120, 4, 0) for text in one.texts})
    return texts, word_score([], texts)


@pytest.mark.parametrize("kind", [*KINDS, "all"])
def test_each_kind_teaches_the_scalar(kind: str, data: Any, reward_of: Any, judged_texts: Any) -> None:
    kinds = KINDS if kind == "all" else [kind]
    said = [one for each in kinds for one in said_of(each, *data)]
    model = reward_of("llama")
    summary = model.fit(said, CONFIG)
    # One threshold for all thumbs leaves the order on either side of it untold.
    assert evaluate_reward_model(model, judged_texts(50, 4, 1)).accuracy > (0.78 if kind == "thumb" else 0.85)
    assert summary["judgements"] == len(said)
    assert summary["left_out"] == {}
    assert sum(summary["targets"].values()) == len(said)


def test_links_are_learned_saved_and_loaded(data: Any, reward_of: Any, tmp_path: Path) -> None:
    said = [one for each in KINDS for one in said_of(each, *data)]
    said.append(Judgement.of(PROMPT, ("good",), Critique(), comment="short"))
    model = reward_of("llama")
    summary = model.fit(said, RewardTrainingConfig(epochs=1, loss=LossConfig(tie_model="davidson")))
    assert summary["left_out"] == {"critique": 1}
    assert model.links["tie_model"] == "davidson"
    assert model.links["rating_thresholds"] == sorted(model.links["rating_thresholds"])
    assert model.links["value_center"] == pytest.approx(50, abs=10)
    before = dict(model.links)
    model.fit(said, RewardTrainingConfig(epochs=1, loss=LossConfig(tie_model="davidson"), link_learning_rate=1e-9))
    assert model.links["thumb_bias"] != before["thumb_bias"]  # the quick rate had moved it
    model.save(tmp_path / "rm")
    assert PreferenceRewardModel.load(tmp_path / "rm", device="cpu").links == model.links
