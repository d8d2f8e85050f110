"""The page of other libraries: it is what the script writes, and each of its rows is true."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from scripts import compatibility_trials as trials
from scripts.compatibility import BY_HAND, ENTRIES, Entry, page

PAGE = Path(__file__).resolve().parents[2] / "docs" / "guides" / "other_libraries.md"
PROCESSES = "AsyncVectorEnv"


def test_the_page_is_what_the_script_writes() -> None:
    assert PAGE.read_text(encoding="utf-8") == page()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "entry",
    [
        pytest.param(entry, marks=[pytest.mark.slow] if entry.what == PROCESSES else [], id=f"{entry.library}-{number}")
        for number, entry in enumerate(ENTRIES)
    ],
)
def test_an_entry_does_what_its_row_says(entry: Entry) -> None:
    entry.run()


def test_every_row_says_why_or_how() -> None:
    for entry in (*ENTRIES, *BY_HAND):
        assert entry.glue is not None or entry.note, entry.what
    assert len({entry.run for entry in ENTRIES}) == len(ENTRIES)
    assert {entry.what for entry in ENTRIES} >= {PROCESSES}


def test_a_row_that_is_wrong_is_found_out() -> None:
    """The check of a refusal fails where nothing refuses, and where something else does."""
    with pytest.raises(RuntimeError, match="nothing refused"):
        trials.refused(lambda: None, ValueError, "x")
    with pytest.raises(RuntimeError, match="refused for another reason: invalid literal"):
        trials.refused(lambda: int("y"), ValueError, "x")

    still = SimpleNamespace(policy=SimpleNamespace(parameters=list), learn=lambda steps: None)
    with pytest.raises(RuntimeError, match="SimpleNamespace did not learn"):
        trials.moved(still, 1)
