"""Budgets that keep rooms small: a file is at most 400 lines, a function at most 60, a folder at most 12 files."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("lm_gym", "agents", "reward_models", "tests", "examples", "benchmarks", "scripts")
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60
MAX_EXAMPLE_LINES = 120
MAX_FOLDER_FILES = 12


def sources() -> list[Path]:
    return sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))


def long_functions(text: str) -> Iterator[tuple[str, int]]:
    """Functions over the budget; signature and docstring are the contract and do not count."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node) is not None else node.body
            lines = (node.end_lineno or 0) - body[0].lineno + 1 if body else 0
            if lines > MAX_FUNCTION_LINES:
                yield node.name, lines


def full_folders(paths: Iterable[Path]) -> dict[Path, int]:
    """Folders over the budget, ``__init__.py`` counted, subfolders not."""
    return {
        folder: files for folder, files in Counter(path.parent for path in paths).items() if files > MAX_FOLDER_FILES
    }


def test_there_are_sources_to_look_at() -> None:
    assert len(sources()) > 50


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_file_and_its_functions_stay_within_budget(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    limit = MAX_EXAMPLE_LINES if ROOT / "examples" in path.parents else MAX_FILE_LINES
    assert len(text.splitlines()) <= limit
    assert list(long_functions(text)) == []


def test_a_long_function_is_caught() -> None:
    body = "\n".join(f"    x{number} = {number}" for number in range(MAX_FUNCTION_LINES + 1))
    assert list(long_functions(f"def too_long():\n{body}\n")) == [("too_long", MAX_FUNCTION_LINES + 1)]


def test_folders_stay_within_budget() -> None:
    assert full_folders(sources()) == {}


def test_a_full_folder_is_caught() -> None:
    names = [f"m{number}.py" for number in range(MAX_FOLDER_FILES)]
    fits = [Path("package/fits") / name for name in ("__init__.py", *names[:-1])]
    full = [Path("package/full") / name for name in ("__init__.py", *names)]
    assert full_folders([*fits, *full, Path("package/one.py")]) == {Path("package/full"): MAX_FOLDER_FILES + 1}
