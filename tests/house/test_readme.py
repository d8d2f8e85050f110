"""README is code: its metric table is the one in the library, its snippets run, its file map names real files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from lm_gym.agents import METRICS

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def snippets() -> list[str]:
    return re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def test_metric_table_is_the_librarys() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", README, flags=re.MULTILINE))
    assert {name: formula.replace("\\|", "|") for name, formula in rows.items()} == METRICS


def test_first_snippet_stands_by_line_20() -> None:
    assert README[: README.index("```python")].count("\n") < 20


def test_environment_snippet_runs(capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(snippets()[0], "README.md", "exec"), {})
    assert capsys.readouterr().out.strip()


def test_right_answer_snippet_pays_by_the_column() -> None:
    [snippet] = [one for one in snippets() if "right_answer" in one]
    names: dict[str, Any] = {}
    exec(compile(snippet, "README.md", "exec"), names)
    assert names["env"].unwrapped.reward_model.columns == ("answer",)
    assert names["right_answer"](["it is 4"] * 2, ["4", "7"]) == [1.0, 0.0]


def test_ppo_snippet_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    [snippet] = [one for one in snippets() if "PPO(" in one]
    short = snippet.replace("=25", "=1").replace("num_envs=64", "num_envs=4").replace("[:64]", "[:2]")
    short = short.replace("learning_rate=3e-4", "learning_rate=3e-4, episodes_per_iteration=4, epochs=1")
    exec(compile(short, "README.md", "exec"), {})
    assert (tmp_path / "runs" / "ppo-model" / "model.safetensors").is_file()


def test_snippets_are_at_most_fifteen_lines() -> None:
    assert all(len(snippet.strip().splitlines()) <= 15 for snippet in snippets())


def test_file_map_names_real_files() -> None:
    tree = README[README.index("lm_gym/                 the environment") :]
    tree = tree[: tree.index("```")]
    folder, missing = ROOT, []
    for line in tree.splitlines():
        entry = line[:24] if not line.startswith(" ") else line
        if not line.startswith(" "):
            folder = ROOT / entry.split()[0]
            missing += [] if folder.is_dir() else [str(folder)]
            continue
        names = [name.rstrip(",:;") for name in line.split() if re.fullmatch(r"[\w*]+\.py[,:;]?|[\w]+/", name)]
        missing += [name for name in names if not list(folder.rglob(name.rstrip("/")))]
    assert missing == []
