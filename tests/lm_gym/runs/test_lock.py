"""The lock of an output that is replaced as a whole: it lies beside, and whoever comes second is refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lm_gym.errors import OutputExistsError
from lm_gym.runs.lock import only_writer


def test_a_second_writer_is_refused_until_the_first_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "new" / "rm"
    monkeypatch.chdir(tmp_path)
    with only_writer(out):
        for same in (out, Path("new/rm"), "new/../new/rm"):
            with pytest.raises(OutputExistsError, match=rf"another process works in it .process {os.getpid()} on"):
                only_writer(same).__enter__()
        with only_writer(out.with_name("other")):
            pass
        out.mkdir()
        out.rename(out.with_name("moved"))  # the lock does not go with the folder
        with pytest.raises(OutputExistsError):
            only_writer(out).__enter__()
    assert [path.name for path in out.parent.iterdir()] == ["moved"]


def test_an_error_gives_the_lock_back(tmp_path: Path) -> None:
    with pytest.raises(KeyError), only_writer(tmp_path / "rm"):
        raise KeyError
    with only_writer(tmp_path / "rm"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_the_file_of_a_killed_process_is_no_lock(tmp_path: Path) -> None:
    (tmp_path / ".rm.lock").write_text("process 1 on nowhere")
    with only_writer(tmp_path / "rm"):
        assert str(os.getpid()) in (tmp_path / ".rm.lock").read_text()
    assert list(tmp_path.iterdir()) == []


def test_the_other_processes_of_a_launcher_take_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with only_writer(tmp_path / "rm"):
        monkeypatch.setenv("WORLD_SIZE", "2")
        monkeypatch.setenv("RANK", "1")
        with only_writer(tmp_path / "rm"):
            pass
        monkeypatch.delenv("WORLD_SIZE")
        monkeypatch.delenv("RANK")


def test_a_folder_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputExistsError, match=r"cannot be made .*; choose another path"):
        only_writer(tmp_path / "file" / "rm").__enter__()
