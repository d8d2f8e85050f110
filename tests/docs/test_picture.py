"""The picture is made by its script from the data beside it, and from the folder of any demo."""

from __future__ import annotations

import json
from pathlib import Path

from scripts.draw_kl_picture import DATA, draw
from scripts.picture_style import FOLDER

RUNS = json.loads(DATA.read_text(encoding="utf-8"))["runs"]


def test_pictures_are_those_of_the_data(tmp_path: Path) -> None:
    for drawn in draw(json.loads(DATA.read_text(encoding="utf-8")), tmp_path):
        assert drawn.read_text(encoding="utf-8") == (FOLDER / drawn.name).read_text(encoding="utf-8")
    endings = ("", "_narrow", "_dark", "_dark_narrow")
    assert {path.name for path in tmp_path.iterdir()} == {f"kl_penalty{one}.svg" for one in endings}


def test_the_data_say_what_the_caption_says() -> None:
    held, free = RUNS["with the penalty"], RUNS["without"]
    assert held["true_score"][-1] > held["true_score"][0] + 0.1
    assert free["true_score"][-1] < 0.1
    assert free["score"][-1] > free["score"][0] + 1
    assert max(held["kl"]) < 10 < free["kl"][-1]
