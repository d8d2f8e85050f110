"""Every snippet of README and documentation runs: the blocks of a page one after another, in a folder of its own.

A comment before a block says how it is run in CI:

- ``<!-- ci: short: old => new; old => new -->`` replaces text, so that a run of minutes takes seconds;
- ``<!-- ci: goes on -->`` gives a Python block the names of the Python block before it;
- ``<!-- ci: file: NAME -->`` writes the block to a file, which later blocks read;
- ``<!-- ci: skip: REASON -->`` leaves it out.

The folder holds what pages take for granted: ``my-model`` (the built-in language model), ``prompts.jsonl``,
``pairs.jsonl`` and ``demonstrations.jsonl``.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lm_gym import reviews
from lm_gym.assets import REVIEWS_LM
from lm_gym.tools.files import write_jsonl

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*/**/*.md")), ROOT / "docs" / "index.md"]
PAGES = [page for page in PAGES if page.parent.name != "generated"]
BLOCK = re.compile(r"(?:^<!-- ci: (.*?) -->\n)?^```([^\n]*)\n(.*?)^```$", flags=re.DOTALL | re.MULTILINE)
RUN = ("python", "console")
SHOWN = ("text", "json", "yaml")


@dataclass(frozen=True)
class Block:
    """One fenced block of a page."""

    language: str
    code: str
    how: str

    @property
    def skipped(self) -> bool:
        return self.how.startswith("skip: ")

    @property
    def text(self) -> str:
        """The code as CI runs it."""
        code = self.code
        if "short: " in self.how:
            for pair in self.how.partition("short: ")[2].split("; "):
                old, new = pair.split(" => ")
                assert old in code, f"the page no longer says {old!r}"
                code = code.replace(old, new)
        return code


def blocks(page: Path) -> list[Block]:
    found = BLOCK.findall(page.read_text(encoding="utf-8"))
    return [Block(language=language, code=code, how=how) for how, language, code in found]


def commands(block: Block) -> list[str]:
    """The lines after a ``$`` prompt, with their continuations."""
    return re.findall(r"^\$ ((?:.*\\\n)*.*)$", block.text, flags=re.MULTILINE)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the pages' reader has."""
    rng = np.random.default_rng(0)
    prompts = reviews.prompts("train")[:8]
    (tmp_path / "my-model").symlink_to(REVIEWS_LM)
    texts = [[reviews.sample_review(prompt, rng) for _ in range(2)] for prompt in prompts]
    write_jsonl(tmp_path / "prompts.jsonl", [{"prompt": prompt} for prompt in prompts])
    pairs = [{"prompt": p, "chosen": a, "rejected": b} for p, (a, b) in zip(prompts, texts, strict=True)]
    write_jsonl(tmp_path / "pairs.jsonl", pairs)
    rows = [{"prompt": p, "completion": a} for p, (a, _) in zip(prompts, texts, strict=True)]
    write_jsonl(tmp_path / "demonstrations.jsonl", rows)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def by_length(page: Path) -> Any:
    """A page whose commands train several models is among the slow tests."""
    name = str(page.relative_to(ROOT))
    return pytest.param(page, id=name, marks=[pytest.mark.slow] if name == "docs/quickstarts/own_files.md" else [])


@pytest.mark.parametrize("page", [by_length(page) for page in PAGES])
def test_page_runs(page: Path, folder: Path) -> None:
    names: dict[str, Any] = {}
    for block in blocks(page):
        if block.skipped or block.language not in RUN:
            continue
        if block.how.startswith("file: "):
            (folder / block.how.removeprefix("file: ")).write_text(block.code, encoding="utf-8")
        elif block.language == "python":
            names = names if block.how.startswith("goes on") else {"__name__": "snippet"}
            exec(compile(block.text, str(page), "exec"), names)
        else:
            for command in commands(block):
                run(command, folder)


def run(command: str, folder: Path) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        command, shell=True, cwd=folder, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_code_hides_under_another_name(page: Path) -> None:
    known = {*RUN, *SHOWN}
    assert [
        one.language for one in blocks(page) if one.language not in known and not one.language.startswith("{")
    ] == []
    assert [one.code for one in blocks(page) if one.language == "console" and not commands(one)] == []


def test_most_blocks_are_run() -> None:
    every = [one for page in PAGES for one in blocks(page) if one.language in RUN]
    assert len(every) > 20
    assert sum(one.skipped for one in every) < len(every) / 4


def test_a_wrong_snippet_is_caught(tmp_path: Path, folder: Path) -> None:
    for text in ("```python\nraise KeyError\n```\n", "```console\n$ lm-gym no-such-command\n```\n"):
        page = tmp_path / "page.md"
        page.write_text(text, encoding="utf-8")
        with pytest.raises((KeyError, AssertionError)):
            test_page_runs(page, folder)


def test_a_replacement_that_fits_nothing_is_caught() -> None:
    with pytest.raises(AssertionError, match="no longer says"):
        _ = Block(language="python", code="train(1)", how="short: 25 => 1").text
