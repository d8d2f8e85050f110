"""Rules as reward models, by hand; fluency against plain full forwards."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from lm_gym.errors import ConfigError
from lm_gym.models.language_model import LanguageModel
from lm_gym.reward_models import (
    FluencyReward,
    LengthReward,
    LexiconReward,
    RegexReward,
    RepetitionPenalty,
    SimilarityReward,
    WeightedSum,
)
from lm_gym.testing import check_reward_model


def values(model: Any, *texts: str) -> list[float]:
    scores = model.score(["p"] * len(texts), list(texts))
    assert scores.valid.all()
    return [float(one) for one in scores.value]


def test_length_by_hand() -> None:
    assert values(LengthReward(target=4, tolerance=2), "a b c d", "a b c", "a b", "", "a b c d e f g") == [
        1,
        0.5,
        0,
        0,
        0,
    ]


def test_regex_by_hand() -> None:
    assert values(RegexReward(r"\d+", most=2), "1 and 22 and 3", "no", "7") == [2, 0, 1]


def test_repetition_by_hand() -> None:
    found = values(RepetitionPenalty(ngram=2), "a b a b a", "a b c", "a", "")
    assert found == pytest.approx([-(4 - 2) / 4, 0, 0, 0])


def test_lexicon_by_hand() -> None:
    assert values(LexiconReward(["Good", "fine"], weight=-2.0), "GOOD film, fine!", "dull", "") == pytest.approx(
        [-2 * 2 / 3, 0, 0]
    )


def test_similarity_by_hand() -> None:
    vectors = {"target": [3.0, 0.0], "same": [1.0, 0.0], "other": [0.0, 2.0], "half": [1.0, 1.0]}
    model = SimilarityReward("target", lambda texts: np.array([vectors[text] for text in texts]))
    assert values(model, "same", "other", "half") == pytest.approx([1, 0, np.sqrt(0.5)])


def test_fluency_is_the_mean_log_likelihood(tiny_model: Any, tokenizer_for: Any) -> None:
    model, tokenizer = tiny_model("gpt2").eval(), tokenizer_for("gpt2")
    fluency = FluencyReward(LanguageModel(model, tokenizer))
    prompts, texts = ["write a review :", "film", ""], ["good film", "the film was very dull .", "bad"]
    got = fluency.score(prompts, texts)
    for prompt, text, value in zip(prompts, texts, got.value, strict=True):
        head = tokenizer(prompt)["input_ids"] or [tokenizer.eos_token_id]
        tail = tokenizer(text)["input_ids"]
        with torch.no_grad():
            log_probs = torch.log_softmax(model(torch.tensor([head + tail])).logits[0], dim=-1)
        expected = np.mean([float(log_probs[len(head) - 1 + i, token]) for i, token in enumerate(tail)])
        assert value == pytest.approx(expected, abs=1e-4)
    assert not fluency.score(["p"], [""]).valid[0]


def test_rules_keep_the_contract(tiny_model: Any, tokenizer_for: Any) -> None:
    fluency = FluencyReward(LanguageModel(tiny_model("llama").eval(), tokenizer_for("llama")))
    rules = [
        LengthReward(target=5, tolerance=5),
        RegexReward("a"),
        RepetitionPenalty(),
        LexiconReward(["good"]),
        fluency,
    ]
    for rule in rules:
        check_reward_model(rule)
    both = WeightedSum({"short": (0.5, rules[0]), "fluent": (1.0, fluency)})
    check_reward_model(both)
    (row,) = both.table(["one"], ["good film"])
    assert row["total"] == pytest.approx(sum(row["terms"].values()))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LengthReward(target=3, tolerance=0), "tolerance: must be"),
        (lambda: RegexReward("("), "regular expression"),
        (lambda: RegexReward("a", most=0), "most: must be"),
        (lambda: RepetitionPenalty(ngram=0), "ngram: must be"),
        (lambda: LexiconReward([]), "single words"),
        (lambda: LexiconReward(["two words"]), "single words"),
        (lambda: SimilarityReward(" ", lambda texts: np.zeros((len(texts), 2))), "target must be a text"),
    ],
)
def test_bad_settings_are_named(make: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()
