"""Reward functions of a user's own files: ``mine:score`` beside the user, ``folder/mine.py:score`` anywhere."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from lm_gym import load_reward_model
from lm_gym.errors import ConfigError
from lm_gym.scoring.handles import import_attribute

SCORE = "def score(completions):\n    return [{value}] * len(completions)\n"


@pytest.fixture(autouse=True)
def as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [one for one in sys.path if one])  # pytest may have put "" there
    monkeypatch.setattr(sys, "modules", dict(sys.modules))


def written(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def value(handle: str) -> float:
    return float(load_reward_model(handle).score(["p"], ["r"]).value[0])


def test_a_module_in_the_working_directory_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path / "mine_here.py", "from helper_here import VALUE\n" + SCORE.format(value="VALUE"))
    written(tmp_path / "helper_here.py", "VALUE = 2.0\n")
    monkeypatch.chdir(tmp_path)
    assert value("mine_here:score") == 2.0


def test_it_is_found_from_the_command_itself(tmp_path: Path) -> None:
    written(tmp_path / "mine.py", SCORE.format(value="7.0"))
    script = "import lm_gym, sys; print(lm_gym.load_reward_model(sys.argv[1]).score(['p'], ['r']).value[0])"
    for handle in ("mine:score", "mine.py:score", str(tmp_path / "mine.py:score")):
        # -P leaves the working directory out of sys.path, as it is for an installed command.
        done = subprocess.run(
            [sys.executable, "-P", "-c", script, handle], cwd=tmp_path, capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == "7.0"


def test_files_of_one_name_are_two_modules(tmp_path: Path) -> None:
    for name, number in (("one", "1.0"), ("two", "2.0")):
        written(tmp_path / name / "mine.py", SCORE.format(value=number))
    assert [value(f"{tmp_path}/{name}/mine.py:score") for name in ("one", "two")] == [1.0, 2.0]
    first = import_attribute(f"{tmp_path}/one/mine.py:score")
    assert import_attribute(f"{tmp_path}/one/../one/mine.py:score") is first  # one file is run once


def test_a_file_that_ends_the_process_is_refused_and_ends_nothing(tmp_path: Path) -> None:
    """An exit status of 0 would say that all went well."""
    script = written(tmp_path / "script.py", SCORE.format(value="1.0") + "import sys\nsys.exit(0)\n")
    with pytest.raises(ConfigError, match=r"raised SystemExit: 0 \(.*script\.py, line 4\); put what is not to be"):
        load_reward_model(f"{script}:score")


def test_an_installed_module_is_not_hidden_by_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path / "random.py", SCORE.format(value="1.0"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"random\.py has no 'score'"):
        import_attribute("random:score")
    assert value("random.py:score") == 1.0


@pytest.mark.parametrize(
    ("text", "handle", "told"),
    [
        (None, "mine_missing:score", r"No module named 'mine_missing'.* and in .*give the file itself as path/to/file"),
        (None, "mine_missing.py:score", r"there is no file .*mine_missing\.py"),
        ("def scores(completions): ...\n", "mine_a.py:score", r"mine_a\.py has no 'score'; did you mean 'scores'\?"),
        ("x = 1 +\n", "mine_b:score", r"mine_b must run to its end .* SyntaxError: .*mine_b\.py, line 1"),
        ("y = 1\nx = 1 / 0\n", "mine_c.py:score", r"raised ZeroDivisionError: .*mine_c\.py, line 2\)"),
        ("import json\nx = json.loads('no')\n", "mine_e.py:score", r"raised JSONDecodeError: .*mine_e\.py, line 2\)"),
        ("import no_such_thing\n", "mine_d:score", r"No module named 'no_such_thing'"),
    ],
)
def test_what_cannot_be_imported_is_told_with_a_remedy(
    text: str | None, handle: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if text is not None:
        written(tmp_path / f"{handle.partition(':')[0].removesuffix('.py')}.py", text)
    with pytest.raises(ConfigError, match=told):
        load_reward_model(handle)
