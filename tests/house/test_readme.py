"""README and documentation say what is there: links lead somewhere, the file map and the papers name real files."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]
MOST_FILES = 12


def test_first_snippet_stands_by_line_20() -> None:
    assert README[: README.index("```python")].count("\n") < 20


def test_readme_is_short() -> None:
    assert len(README.splitlines()) <= 125
    assert all(len(snippet.splitlines()) <= 16 for snippet in re.findall(r"```python\n(.*?)```", README, re.DOTALL))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_lead_to_files(page: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize(
    "folder", [DOCS, *(one for one in DOCS.rglob("*") if one.is_dir())], ids=lambda path: path.name
)
def test_a_folder_holds_a_dozen_pages_at_most(folder: Path) -> None:
    assert sum(one.is_file() for one in folder.iterdir()) <= MOST_FILES


def test_nobody_is_told_to_unwrap_an_environment() -> None:
    examples = [*(ROOT / "examples").rglob("*.py"), *(ROOT / "examples").rglob("*.ipynb")]
    assert len(examples) > 7
    assert [page.name for page in (*PAGES, *examples) if ".unwrapped" in page.read_text(encoding="utf-8")] == []


def test_papers_are_tied_to_code_and_test() -> None:
    rows = [line for line in (DOCS / "reference" / "papers.md").read_text(encoding="utf-8").splitlines() if "`" in line]
    assert len(rows) > 15
    for row in rows:
        paths = re.findall(r"`([\w/]+\.py)`", row)
        assert any(path.startswith("tests/") for path in paths), row
        assert any(not path.startswith("tests/") for path in paths), row
        assert [path for path in paths if not (ROOT / path).is_file()] == []


def test_file_map_names_real_files() -> None:
    text = (DOCS / "reference" / "files.md").read_text(encoding="utf-8")
    tree = text[text.index("lm_gym/                 the environment") :]
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


def test_no_other_place_names_the_version() -> None:
    """``lm_gym.__version__`` owns it."""
    assert re.search(r'^version = "', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE) is None
    assert "\nversion:" not in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
