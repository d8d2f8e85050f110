"""What a head reads: surface features by hand, and the prompt beside the response."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lm_gym.reward_models.embedding.reading import SURFACE_WEIGHT, Reading
from lm_gym.reward_models.embedding.surface import SURFACE_NAMES, surface_features


def named(prompt: str, text: str) -> dict[str, float]:
    return dict(zip(SURFACE_NAMES, surface_features([prompt], [text])[0].tolist(), strict=True))


def test_surface_features_by_hand() -> None:
    found = named("Should homework be banned?", "No, homework helps. Homework, homework! i say")
    assert found["log words"] == pytest.approx(np.log1p(7))
    assert found["log sentences"] == pytest.approx(np.log1p(3))
    assert found["log longest sentence"] == pytest.approx(np.log1p(3))
    assert found["commas per word"] == pytest.approx(2 / 7)
    assert found["exclamation marks per word"] == pytest.approx(1 / 7)
    assert found["share of the commonest word"] == pytest.approx(3 / 7)
    assert found["word said twice in a row"] == pytest.approx(1 / 7)
    assert found["lonely small i"] == pytest.approx(1 / 7)
    assert found["sentences that start with a capital"] == pytest.approx(1 / 2)
    assert found["ends with a mark"] == 0
    assert found["words that are the prompt's"] == pytest.approx(3 / 7)
    assert found["prompt's words that come back"] == pytest.approx(1 / 4)
    assert found["prompt's longer words that come back"] == pytest.approx(1 / 3)
    assert named("", "- one\n- two\n3. three")["log bullets"] == pytest.approx(np.log1p(3))


def test_repetition_shows() -> None:
    once, again = named("p", "a b c d e f g h"), named("p", "a b a b a b a b")
    assert again["pairs of words said again"] > once["pairs of words said again"] == 0
    assert again["different words"] < once["different words"] == 1


@settings(max_examples=50, deadline=None)
@given(st.text(max_size=80), st.text(max_size=80))
def test_every_text_has_finite_features(prompt: str, text: str) -> None:
    found = surface_features([prompt], [text])
    assert found.shape == (1, len(SURFACE_NAMES))
    assert np.isfinite(found).all()
    assert np.isfinite(surface_features([prompt], [text + "\ud800"])).all()  # half a surrogate


class _Known:
    """Embeddings by hand: width 2, three poolings."""

    def __call__(self, texts: list[str], show_progress: bool = False) -> np.ndarray:
        rows = {"p": [3, 4, 0, 0, 0, 0], "r": [0, 2, 7, 7, 7, 7], "p r": [1, 1, 1, 1, 1, 1]}
        return np.array([rows[text] for text in texts], dtype=np.float32)


def test_interaction_is_product_difference_and_cosine() -> None:
    embed: Any = _Known()
    got = Reading(reads="interaction")(embed, ["p"], ["r"])
    np.testing.assert_allclose(got, [[0, 2, 7, 7, 7, 7, 0, 0.8, 0.6, 0.2, 0.8]], rtol=1e-6)
    assert Reading()(embed, ["p"], ["r"]).shape == (1, 6)
    assert Reading(reads="prompt_and_response")(embed, ["p"], ["r"]).tolist() == [[1] * 6]
    whole = Reading(reads="interaction", surface=True)
    features = whole(embed, ["p"], ["r"])
    np.testing.assert_array_equal(features[:, 11:], surface_features(["p"], ["r"]))
    weights = whole.weights(features.shape[1])
    assert weights.tolist() == [1.0] * 11 + [SURFACE_WEIGHT] * len(SURFACE_NAMES)
