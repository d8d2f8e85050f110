"""The files around the code: CI runs what a developer runs, and forms and citation are whole."""

from __future__ import annotations

from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]


def load(name: str) -> dict:
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


def test_the_workflow_runs_the_projects_own_checks() -> None:
    steps = load(".github/workflows/ci.yml")["jobs"]["ci"]["steps"]
    assert {"run": "bash .ci/run"} in steps
    checks = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    assert [line for line in checks if line.startswith("make ")][:3] == ["make check", "make docs", "make build"]


def test_issue_forms_ask_something() -> None:
    for name in ("bug", "idea"):
        form = load(f".github/ISSUE_TEMPLATE/{name}.yml")
        fields = [part for part in form["body"] if part["type"] != "markdown"]
        assert form["name"]
        assert form["description"]
        assert any(part.get("validations", {}).get("required") for part in fields)
        assert len({part["id"] for part in fields}) == len(fields)


def test_citation_has_what_the_format_requires() -> None:
    """Citation File Format 1.2.0: these four keys are required, and an author has a name."""
    citation = load("CITATION.cff")
    assert citation["cff-version"] == "1.2.0"
    assert citation["title"]
    assert citation["message"]
    assert citation["authors"] == [{"name": "The lm-gym contributors"}]


def test_the_changelog_begins_with_the_newest_version() -> None:
    heads = [
        line for line in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").splitlines() if line.startswith("## ")
    ]
    assert heads[0].startswith("## 0.2.0")
    assert len(set(heads)) == len(heads)
