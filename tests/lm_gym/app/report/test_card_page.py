"""The card as people read it: counts where there are few pairs, intervals where there are many."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from lm_gym.app.report.card_page import card_rows, print_card, write_card
from lm_gym.reward_models import Choice, Judgement, RewardModelCard, Vote, Votes, reward_card


def longer(prompts: Sequence[str], completions: Sequence[str]) -> list[float | None]:
    return [float(len(text)) for text in completions]


def card_of(pairs: int, wrong: int) -> RewardModelCard:
    said = [
        Judgement.of(f"p{row}", ("long answer", "short"), Choice("b" if row < wrong else "a")) for row in range(pairs)
    ]
    return reward_card(longer, said)


def told(card: RewardModelCard) -> str:
    file = io.StringIO()
    print_card(card, "mine", Console(file=file, width=200))
    return file.getvalue()


def test_three_pairs_are_counted_and_not_divided(tmp_path: Path) -> None:
    card = card_of(3, wrong=1)
    rows = dict(card_rows(card))
    assert rows["accuracy"] == "2 of 3: too few pairs to tell"
    assert rows["calibration, temperature, correlations"] == "too few pairs to tell (3)"
    assert not any("quarter" in name or "Krippendorff" in name for name in rows)
    page = write_card(card, tmp_path / "card.html").read_text(encoding="utf-8")
    words = re.sub(r"<style>.*?</style>|<svg.*?</svg>", "", page, flags=re.DOTALL)
    for output in (told(card), words):
        assert not re.search(r"[01]\.\d\d", output)
    assert "<svg" not in page
    assert "1 of 1" in words  # a group of one pair


def test_a_narrow_terminal_says_which_probe_fools() -> None:
    file = io.StringIO()
    print_card(card_of(100, wrong=20), "mine", Console(file=file, width=80))
    probes = file.getvalue().partition("Texts that must lose")[2]
    assert "fools it" in probes
    padded = next(line for line in probes.splitlines() if "padded" in line)
    assert [cell.strip() for cell in padded.strip("│").split("│")][-1] == "yes"  # longer wins here
    assert max(map(len, probes.splitlines())) <= 80


def test_many_pairs_have_intervals(tmp_path: Path) -> None:
    rows = dict(card_rows(card_of(100, wrong=20)))
    # 100 groups of one pair: standard error sqrt(.8 * .2 / 99) = .0402
    assert rows["accuracy"] == "0.800 ± 0.040 (95% interval 0.72 to 0.88)"
    assert rows["accuracy on the closest quarter of its calls"].endswith(": too few pairs to tell")  # 25 pairs
    assert "expected calibration error" in rows


def test_single_choices_have_no_shares_of_votes() -> None:
    assert not any("of the votes" in name for name, _ in card_rows(card_of(100, wrong=20)))
    votes = [
        Judgement.of(f"p{row}", ("long answer", "short"), Votes((Vote("a"), Vote("a"), Vote("b")))) for row in range(40)
    ]
    rows = dict(card_rows(reward_card(longer, votes)))
    assert rows["accuracy where 50% to 70% of the votes agree"].startswith("1.000 (95% interval 0.91 to 1.00")
    assert "agreement of annotators, Krippendorff's alpha" in rows
