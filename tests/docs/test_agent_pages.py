"""The pages on algorithms: each algorithm has one on the skeleton, and what is made by the script is what it makes."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import pytest

from benchmarks.exact_tasks import RUNS, SEEDS, TASKS, read_runs, summary
from lm_gym.agents.algorithms.names import ALGORITHMS
from scripts.agent_pages import FAMILIES, FOLDER, REVIEWS, filled, page_of, pages
from scripts.draw_agents_picture import draw, spread_apart
from scripts.picture_style import FOLDER as PICTURES

SKELETON = (
    "Equation",
    "Source",
    "Converges to",
    "Settings",
    "When to use it",
    "In other libraries",
    "Measured",
)
PAST_THE_OPTIMUM = ("grpo", "dapo", "gspo", "cispo", "dpo", "rejection")
ENDINGS = ("", "_narrow", "_dark", "_dark_narrow")


def test_every_algorithm_is_in_one_family() -> None:
    assert Counter(name for names in FAMILIES.values() for name in names) == dict.fromkeys(ALGORITHMS, 1)
    assert set(FOLDER.glob("*/*.md")) == set(pages().values())


@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_page_has_the_skeleton(name: str) -> None:
    text = page_of(name).read_text(encoding="utf-8")
    assert tuple(re.findall(r"^## (.+)$", text, flags=re.MULTILINE)) == SKELETON
    assert re.findall(r"<!-- made: (\w+) -->", text) == ["settings", "exact", "reviews"]
    assert f"`lm-gym train --agent {name}`" in text


@pytest.mark.parametrize("name", [None, *ALGORITHMS])
def test_what_is_made_is_what_the_script_makes(name: str | None) -> None:
    """If this fails: ``python -m scripts.agent_pages``."""
    text = (FOLDER / "index.md" if name is None else page_of(name)).read_text(encoding="utf-8")
    assert filled(text, name) == text
    assert "| --- |" in text


def test_a_stale_number_is_made_anew() -> None:
    text = page_of("ppo").read_text(encoding="utf-8")
    stale = text.replace("| `clip` | `0.2` |", "| `clip` | `0.3` |")
    assert stale != text
    assert filled(stale, "ppo") == text


def test_every_run_was_measured() -> None:
    lines = Counter((line["run"], line["task"], line["seed"]) for line in read_runs())
    assert lines == {(run, task, seed): 1 for run in RUNS for task in TASKS for seed in SEEDS}


def test_the_numbers_say_what_the_pages_say() -> None:
    """Which agents reach the optimum, and which go past it; the rules apart, by the KL of "order"."""
    for name in ALGORITHMS:
        lines = [line for line in read_runs() if line["run"] == name]
        found = summary([line for line in lines if line["task"] == "order"])
        if name in PAST_THE_OPTIMUM:
            assert found["kl"] > 1.5 * found["best_kl"], name
            assert found["score"] > found["best_score"] + 0.1, name
        else:
            assert summary(lines)["share"] > 0.95, name
            assert found["kl"] == pytest.approx(found["best_kl"], rel=0.15), name


def test_pictures_are_those_of_the_data(tmp_path: Path) -> None:
    data = json.loads(REVIEWS.read_text(encoding="utf-8"))
    assert Counter(run["agent"] for run in data["runs"]) == dict.fromkeys(ALGORITHMS, 3)
    assert all(run["tokens"] >= data["tokens"] for run in data["runs"])
    for drawn in draw(data, tmp_path):
        assert drawn.read_text(encoding="utf-8") == (PICTURES / drawn.name).read_text(encoding="utf-8")
    assert {path.name for path in tmp_path.iterdir()} == {f"every_agent{one}.svg" for one in ENDINGS}


def test_labels_move_apart_and_stay_inside() -> None:
    assert spread_apart([0.5, 0.1], 0.2, 0.0, 1.0) == [0.5, 0.1]
    near = spread_apart([0.52, 0.5, 0.51], 0.1, 0.0, 1.0)
    assert near == pytest.approx([0.61, 0.41, 0.51])
    assert spread_apart([1.0, 1.0], 0.2, 0.0, 1.0) == pytest.approx([0.8, 1.0])
    assert spread_apart([0.0, 0.0], 0.2, 0.0, 1.0) == pytest.approx([0.0, 0.2])
