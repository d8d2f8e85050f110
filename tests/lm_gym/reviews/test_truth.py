"""The true score: by hand first, then what it must never do."""

import math
import time

import numpy as np
import pytest

from lm_gym.reviews import ReviewAspects, aspects, corpus, demonstrations, is_grammatical, true_score

LAMP = "Review of a desk lamp:"
OFFICE = "Review of a desk lamp, bought for a small office:"
BOOTS = "Review of hiking boots:"


def score(text: str, prompt: str = LAMP) -> float:
    return true_score([prompt], [text])[0]


def test_aspects_by_hand() -> None:
    text = " I love this desk lamp. The light is warm, and the base is very solid. For my small office, it is ideal."
    # Opinions: love 1, warm .6, very solid .8, ideal .8.
    assert aspects(OFFICE, text) == ReviewAspects(
        sentiment=pytest.approx(0.8),
        detail=0.55,
        grammaticality=1.0,
        on_topic=1.0,
        variety=1.0,
        n_words=22,
        n_sentences=3,
        n_details=2,
    )


@pytest.mark.parametrize(
    ("prompt", "text", "expected"),
    [
        # 5 of 8 words; topic .1, praise 1, no detail.
        (LAMP, "I love this desk lamp.", 5 / 8 * (0.1 + 0.3)),
        # 6 words; opinions .6 and 1, so praise .9; one detail, .3.
        (LAMP, "The light is warm. Five stars.", 6 / 8 * (0.1 + 0.3 * 0.9 + 0.3 * 0.3 + 0.3 * 0.9 * 0.3)),
        # Opinion -.9, praise .05; half of the topics (no word of the office); 6 words.
        (OFFICE, "The light is far too dim.", 6 / 8 * (0.05 + 0.3 * 0.05 + 0.3 * 0.3 + 0.3 * 0.05 * 0.3)),
        # One of two sentences parses: a quarter.
        (LAMP, "I love this desk lamp. Lamp good is.", 0.25 * (0.1 + 0.3)),
        # The same sentence twice: a quarter, and 10 words.
        (LAMP, "I love this desk lamp. I love this desk lamp.", 0.25 * (0.1 + 0.3)),
        # The same opinion word and frame twice: 3 distinct choices of 4. Two details, opinion .6.
        (
            LAMP,
            "The cord is sturdy. The shade is sturdy.",
            2 / 4 * (0.1 + 0.3 * 0.8 + 0.3 * 0.55 + 0.3 * 0.8 * 0.55),
        ),
        # No opinion at all: praise is half.
        (LAMP, "My sister told me about it. The box arrived on time.", 0.3 * 0.5),
        (LAMP, "", 0.0),
        ("Tell me a story:", "I love this desk lamp.", 0.0),
    ],
)
def test_scores_by_hand(prompt: str, text: str, expected: float) -> None:
    assert score(text, prompt) == pytest.approx(expected)


def test_outer_whitespace_and_extra_columns_do_not_count() -> None:
    text = "I love this desk lamp. The light is really warm."
    assert true_score([f" {LAMP}\n"], [f"\n {text} \n"], labels=[1], trainer=None) == [score(text)]


def test_steps_towards_a_good_review_raise_the_score() -> None:
    steps = [
        "Lamp good is.",
        "This desk lamp is awful.",
        "I expected more from this desk lamp. The light is far too dim.",
        "This desk lamp is fine, but nothing special. The light is far too dim.",
        "I am happy with this desk lamp. The light is quite warm.",
        "I love this desk lamp. The light is very warm.",
        "I love this desk lamp. The light is very warm. For my small office, it is ideal.",
        "I love this desk lamp. The light is very warm, and the base is solid. For my small office, it is ideal.",
        "I love this desk lamp. The light is very warm, and the base is wonderfully solid. "
        "For my small office, it is ideal. Best of all, it never flickers.",
        "I bought this desk lamp last summer and I love it. The light is very warm, and the base is wonderfully "
        "solid. After two weeks, I still love it. It is perfect for my small office. Best of all, it never flickers.",
    ]
    scores = true_score([OFFICE] * len(steps), steps)
    assert scores == sorted(scores)
    assert len(set(scores)) == len(scores)
    assert scores[0] == 0.0
    assert scores[-1] > 0.93


@pytest.mark.parametrize(
    "text",
    [
        "great great great",
        "great " * 30,
        "Great! Great! Great!",
        "warm, bright, steady, solid, stable, neat, smooth, quiet, handy.",
        "I love this desk lamp. " * 8,
        "I love the light. " * 5,
        "The light is warm. " * 40,
        "Five stars. " * 10,
        "Five stars.",
        "I love love love this desk lamp.",
        "The sound is very clear, and the headband is soft. I love these headphones.",
        "five stars. the light is warm. i love this desk lamp.",
        "desk lamp light base switch cord shade wonderful superb excellent five stars",
        ".......",
        "!",
        "\x00\ud800 \u2603 中文 <|endoftext|>",
    ],
)
def test_degenerate_texts_score_low(text: str) -> None:
    assert 0.0 <= score(text) < 0.13
    assert 0.0 <= score(text, OFFICE) < 0.13


def test_many_different_good_sentences_are_overlong() -> None:
    rows = demonstrations(60, 0)
    same = [row["completion"].strip() for row in rows if "desk lamp" in row["prompt"]]
    assert len(same) >= 3
    assert score(" ".join(same * 10)) == 0.0


def test_every_string_gets_a_finite_score() -> None:
    rng = np.random.default_rng(0)
    alphabet = [*" .,!?aAIthe\n\t'\"é", " light", "The ", "is ", "warm", ". "]
    texts = ["".join(rng.choice(alphabet, size=int(rng.integers(0, 60)))) for _ in range(500)]
    texts += ["The light is warm. " * 2500, "word " * 10_000, "x" * 50_000, "." * 50_000]
    scores = true_score([LAMP] * len(texts), texts)
    assert all(math.isfinite(value) and 0.0 <= value <= 1.0 for value in scores)
    assert scores == true_score([LAMP] * len(texts), texts)


def test_the_wrong_product_earns_nothing() -> None:
    text = "I love these hiking boots. The soles are very sturdy."
    assert score(text, BOOTS) > 0.5
    assert score(text, LAMP) == 0.0
    assert is_grammatical(BOOTS, text)
    assert not is_grammatical(LAMP, text)
    assert not is_grammatical(LAMP, "")


def test_the_wrong_situation_is_off_topic() -> None:
    right, wrong = "For my small office, it is ideal.", "For the gym, it is ideal."
    assert aspects(OFFICE, f"I love it. The light is warm. {right}").on_topic == 1.0
    assert aspects(OFFICE, f"I love it. The light is warm. {wrong}").on_topic == 0.5


def test_the_corpus_is_middling_and_the_demonstrations_good() -> None:
    def of(rows: list[dict[str, str]]) -> list[float]:
        return true_score([row["prompt"] for row in rows], [row["completion"] for row in rows])

    base, good = of(corpus(3000, 2)), of(demonstrations(1500, 2))
    assert 0.4 <= np.mean(base) <= 0.5
    assert np.std(base) >= 0.12
    assert 0.75 <= np.mean(good) <= 0.85
    assert max(good) > 0.95


def test_scoring_is_fast() -> None:
    rows = corpus(4000, 3)
    warm_up = corpus(2000, 4)
    true_score([row["prompt"] for row in warm_up], [row["completion"] for row in warm_up])
    prompts, texts = [row["prompt"] for row in rows], [row["completion"] for row in rows]
    start = time.process_time()
    true_score(prompts, texts)
    # Measured 25,000 a second; the promise is 5,000.
    assert len(rows) / (time.process_time() - start) > 5000
