"""The generator and the parser speak one language, and that language is English."""

import re

import numpy as np
import pytest

from lm_gym.reviews import corpus, demonstrations, is_grammatical, prompts, sample_review
from lm_gym.reviews.grammar import Grammar, Mark, split_sentences
from lm_gym.reviews.lexicon import PRODUCTS, SITUATIONS, article
from lm_gym.reviews.rules import SENTENCES
from lm_gym.reviews.truth import grammar_of, read_sentence

TINY = {
    "SENTENCE": ("the <NOUN> [+0.5] shines.", "I see <NOUN>."),
    "NOUN": ("3x [aspect sun] sun", "[aspect moon] [word pale] pale moon"),
}


@pytest.fixture(scope="module")
def rows() -> list[dict[str, str]]:
    return corpus(2000, 11) + demonstrations(500, 11)


def test_a_tiny_grammar_is_read_by_hand() -> None:
    grammar = Grammar(TINY, frames=frozenset({"SENTENCE"}))
    moon, pale = Mark("aspect", "moon", 0.0), Mark("word", "pale", 0.0)
    assert grammar.parse("The pale moon shines.") == [
        moon,
        pale,
        Mark("opinion", "", 0.5),
        Mark("frame", "SENTENCE 0", 0.0),
    ]
    assert grammar.parse("I see sun.") == [Mark("aspect", "sun", 0.0), Mark("frame", "SENTENCE 1", 0.0)]
    for wrong in (
        "",
        ".",
        "the sun shines.",
        "The sun shines",
        "The sun shines!",
        "The  sun shines.",
        "The sun shines .",
        "The sun shines. ",
        "The Sun shines.",
        "The moon shines.",
        "i see sun.",
    ):
        assert grammar.parse(wrong) is None, wrong


def test_weights_are_followed() -> None:
    rng = np.random.default_rng(0)
    grammar = Grammar(TINY, frames=frozenset())
    share = np.mean(["moon" in grammar.sample("NOUN", rng)[0].lower() for _ in range(4000)])
    assert share == pytest.approx(0.25, abs=0.03)  # 4 standard errors


def test_a_fixed_rule_is_not_drawn() -> None:
    rng = np.random.default_rng(0)
    grammar = Grammar(TINY, frames=frozenset())
    assert {grammar.sample("NOUN", rng, fixed={"NOUN": 1})[0] for _ in range(20)} == {"Pale moon"}


def test_sentences_keep_every_character() -> None:
    assert split_sentences("  One. Two!  Three ") == ["One.", " Two!", "  Three"]
    assert split_sentences(" \n ") == []


@pytest.mark.parametrize("product", PRODUCTS, ids=lambda product: product.name)
def test_what_is_written_is_read_back_with_the_same_marks(product) -> None:
    rng = np.random.default_rng(3)
    grammar = grammar_of(product)
    for name in SENTENCES:
        for _ in range(15):
            sentence, marks = grammar.sample(name, rng)
            assert sorted(grammar.parse(sentence) or []) == sorted(marks), sentence


def test_every_sampled_review_is_grammatical(rows) -> None:
    assert [row for row in rows if not is_grammatical(row["prompt"], row["completion"])] == []


def test_reviews_have_the_promised_shape(rows) -> None:
    texts = [row["completion"] for row in rows]
    words = [len(text.split()) for text in texts]
    assert all(re.fullmatch(r" [A-Z][A-Za-z ,!'.-]*[.!]", text) and "  " not in text for text in texts)
    assert all(1 <= len(split_sentences(text)) <= 5 for text in texts)
    assert max(words) <= 80
    assert 20 <= np.mean(words) <= 35
    assert len(set(texts)) > 0.95 * len(texts)


def test_articles_and_numbers_are_english(rows) -> None:
    # Checked by eye-level patterns, not by the grammar that is on trial.
    plural = {product.name for product in PRODUCTS if product.plural}
    for row in rows:
        text = row["completion"]
        assert not re.search(r"\ba [aeio]|\ba um|\ban (?!hour)[^aeiou]", text), text
        assert not re.search(r"\b(they|these \w+ \w+) (is|was|has|does)\b|\bit (are|were|have|do)\b", text), text
        if any(name in row["prompt"].lower() for name in plural):
            assert not re.search(r"\b[Tt]his\b", text), text


@pytest.mark.parametrize(
    ("pattern", "replacement"),
    [
        (r"\bis\b", "are"),
        (r"\bare\b", "is"),
        (r"\b([Tt])his\b", r"\1hese"),
        (r"\b([Tt])hese\b", r"\1his"),
        (r"\b([Aa]) ", r"\1n "),
        (r"\b([Aa])n ", r"\1 "),
        (r"\bhave\b", "has"),
        (r"\b[Tt]he ", ""),
        (r" is\b", ""),
        (r"[.!]$", ""),
        (r"[.!]$", ","),
        (r"\. ", ".  "),
        (r", ", " "),
        (r"\b([Tt])he (\w+)", r"\2 \1he"),
    ],
)
def test_one_slip_breaks_a_review(rows, pattern: str, replacement: str) -> None:
    slips = [
        (row["prompt"], re.sub(pattern, replacement, row["completion"], count=1))
        for row in rows
        if re.search(pattern, row["completion"])
    ]
    assert len(slips) > 20
    assert [text for prompt, text in slips if is_grammatical(prompt, text)] == []


def test_swapped_and_dropped_words_mostly_break_a_review(rows) -> None:
    rng = np.random.default_rng(5)
    swapped, dropped = [], []
    for row in rows:
        words = row["completion"].split()
        at = int(rng.integers(len(words) - 1))
        swapped.append(" ".join([*words[:at], words[at + 1], words[at], *words[at + 2 :]]))
        dropped.append(" ".join(words[:at] + words[at + 1 :]))
    prompt_of = [row["prompt"] for row in rows]
    assert np.mean([is_grammatical(*pair) for pair in zip(prompt_of, swapped, strict=True)]) < 0.01
    # A few words can go: "very", "really", "Sadly," leave good English behind.
    assert np.mean([is_grammatical(*pair) for pair in zip(prompt_of, dropped, strict=True)]) < 0.1


def test_another_products_sentence_is_foreign() -> None:
    lamp, boots = PRODUCTS[0], next(product for product in PRODUCTS if product.name == "hiking boots")
    assert read_sentence(lamp, "The light is warm.")
    assert read_sentence(boots, "The light is warm.") is None
    assert read_sentence(boots, "They are worth every penny.")
    assert read_sentence(lamp, "They are worth every penny.") is None


def test_a_part_is_named_once_in_a_sentence() -> None:
    lamp = PRODUCTS[0]
    assert read_sentence(lamp, "The light is warm, and the base is solid.")
    assert read_sentence(lamp, "The light is warm, and the light is bright.") is None


def test_no_review_contradicts_itself(rows) -> None:
    lamp = PRODUCTS[0]
    assert read_sentence(lamp, "It flickers at night, but the light is warm.")
    assert read_sentence(lamp, "It flickers at night, but it never flickers.") is None
    for row in rows:
        text = row["completion"].lower()
        assert not ("never flickers" in text and "flickers at night" in text), text
        assert not ("keep my feet dry" in text and "let water in" in text), text


def test_sampling_is_determined_by_the_generator() -> None:
    prompt = prompts("held_out")[0]
    draws = [[sample_review(prompt, np.random.default_rng(seed)) for seed in range(20)] for _ in range(2)]
    assert draws[0] == draws[1]
    assert len(set(draws[0])) > 15
    assert corpus(50, 1) == corpus(50, 1)
    assert corpus(50, 1) != corpus(50, 2)


def test_the_lexicon_is_sound() -> None:
    assert len(PRODUCTS) >= 12
    assert {product.plural for product in PRODUCTS} == {True, False}
    for product in PRODUCTS:
        assert set(product.situations) <= set(SITUATIONS)
        assert len({aspect.noun for aspect in product.aspects}) == len(product.aspects) == 5
        for aspect in product.aspects:
            assert not set(aspect.good) & set(aspect.bad)
    assert [article(word) for word in ("umbrella", "alarm clock", "desk lamp")] == ["an", "an", "a"]
