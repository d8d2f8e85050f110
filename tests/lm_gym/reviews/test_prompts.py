"""Prompts: their form, their split, and the errors around them."""

import subprocess
import sys

import numpy as np
import pytest

import lm_gym.reviews
from lm_gym.errors import ConfigError, DataError, PromptError
from lm_gym.reviews import corpus, demonstrations, prompts, sample_review, true_score
from lm_gym.reviews.lexicon import PRODUCTS, SITUATIONS
from lm_gym.reviews.prompts import read_prompt


def test_the_split_does_not_leak() -> None:
    train, held_out = prompts("train"), prompts("held_out")
    assert not set(train) & set(held_out)
    assert len(train) == len(set(train)) >= 300
    assert len(held_out) == len(set(held_out)) >= 50
    assert train == prompts("train")
    drawn = {row["prompt"] for row in corpus(3000, 0) + demonstrations(1000, 0)}
    assert drawn <= set(train)
    assert len(drawn) > 300


def test_both_splits_cover_every_product() -> None:
    for split in ("train", "held_out"):
        named = {request.product.name for line in prompts(split) if (request := read_prompt(line))}
        assert named == {product.name for product in PRODUCTS}
    situations = {
        split: {(request.product.name, request.situation) for line in prompts(split) if (request := read_prompt(line))}
        for split in ("train", "held_out")
    }
    assert situations["held_out"] <= situations["train"]
    assert {key for _, key in situations["train"]} == {None, *SITUATIONS}


def test_prompts_end_where_a_completion_begins() -> None:
    for line in prompts("train") + prompts("held_out"):
        assert line == line.strip()
        assert line.endswith(":")
    assert all(row["completion"][0] == " " and row["completion"][1] != " " for row in corpus(200, 0))


def test_prompts_are_read_back() -> None:
    request = read_prompt("  Review of an umbrella, bought for rainy days:\n")
    assert request is not None
    assert (request.product.name, request.situation) == ("umbrella", "rain")
    assert read_prompt("Review of a umbrella:") is None


def test_errors_name_subject_rule_value_and_remedy() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(ConfigError, match=r"prompts: split must be .* got 'test'; pass one"):
        prompts("test")  # type: ignore[arg-type]
    with pytest.raises(PromptError, match=r"sample_review: the prompt must be .* got 'Hello'; take one"):
        sample_review("Hello", rng)
    with pytest.raises(ConfigError, match=r"sample_review: quality must be .* got 'best'; pass one"):
        sample_review(prompts("train")[0], rng, quality="best")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"size: must be a whole number >= 0, got -1"):
        corpus(-1, 0)
    with pytest.raises(DataError, match=r"true_score: needs one prompt .* got 1 and 0; pass"):
        true_score(["a"], [])


def test_the_public_names() -> None:
    assert lm_gym.reviews.__all__ == sorted(lm_gym.reviews.__all__)
    assert set(lm_gym.reviews.__all__) == {
        "Quality",
        "ReviewAspects",
        "Split",
        "aspects",
        "corpus",
        "demonstrations",
        "is_grammatical",
        "prompts",
        "sample_review",
        "true_score",
    }


@pytest.mark.parametrize(("extra", "loaded"), [("", "False"), ("sys.modules['torch'] = sys; ", "True")])
def test_the_import_is_light(extra: str, loaded: str) -> None:
    # The second case proves that the first can fail.
    code = f"import sys; {extra}import lm_gym.reviews; print('torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == loaded
