"""Samples side by side, with the words that RL changed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lm_gym.app.report.exchanges import Piece, changed_words, exchanges_of
from lm_gym.app.report.report_data import ModelRow, Role, Sample


def row(name: str, role: Role | None, response: str) -> ModelRow:
    numbers = dict.fromkeys(("score", "kl", "win_rate", "win_rate_low", "win_rate_high", "response_length"), 0.0)
    return ModelRow(
        name=name, description="", role=role, eos_share=1.0, samples=(Sample(prompt="p", response=response),), **numbers
    )


def test_words_that_changed() -> None:
    assert changed_words("I like the lamp.", "I love the lamp. Five stars.") == (
        Piece("I", False),
        Piece(" ", False),
        Piece("love", True),
        Piece(" the lamp.", False),
        Piece(" ", False),
        Piece("Five stars.", True),
    )
    assert changed_words("", "new text") == (Piece("new text", True),)
    assert changed_words("old text", "") == ()


@given(st.text(), st.text())
def test_the_pieces_are_the_text(before: str, after: str) -> None:
    assert "".join(piece.text for piece in changed_words(before, after)) == after.rstrip()


def test_only_models_after_the_start_are_compared_with_it() -> None:
    rows = [
        row("base", "base", " a b"),
        row("before", "start", " a b"),
        row("after", "rl", " a c"),
        row("same", "rl", " a b"),
    ]
    (exchange,) = exchanges_of(rows)
    marked = {answer.model: [piece.text for piece in answer.pieces if piece.changed] for answer in exchange.answers}
    assert marked == {"base": [], "before": [], "after": ["c"], "same": []}
    assert [answer.remark for answer in exchange.answers] == ["", "", "", "word for word as before RL"]
