"""Files that are whole or not there: a write that is cut short leaves the old one."""

import gzip
import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from lm_gym.errors import DataError, WriteError
from lm_gym.tools import files
from lm_gym.tools.files import (
    append_jsonl,
    lies_in,
    read_jsonl,
    replaced_folder,
    write_json,
    write_jsonl,
    write_text,
    writing,
)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_json_lines_come_back_as_they_were_written(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"text": "é\nß\u2028x", "n": 1.5}, {"list": [1, None, True]}]
    path = write_jsonl(tmp_path / "deep" / "rows.jsonl", rows)
    assert read_jsonl(path) == rows
    assert path.read_text(encoding="utf-8").count("\n") == 2


def test_what_lies_in_a_folder_does_so_by_any_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = tmp_path / "outer" / "inner"
    inner.mkdir(parents=True)
    (tmp_path / "link").symlink_to(inner)
    monkeypatch.chdir(inner)
    for path in (inner, "link", tmp_path / "link", ".", inner / "new", tmp_path / "outer"):
        assert lies_in(path, tmp_path / "outer")
    for path in (tmp_path, tmp_path / "outer2", "../../link2", "/"):
        assert not lies_in(path, tmp_path / "outer")
    assert lies_in(inner, tmp_path / "link")


def test_blank_lines_do_not_shift_the_line_numbers(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('\n{"a": 1}\n\n\nnot json\n')
    with pytest.raises(DataError, match=r"rows\.jsonl, line 5: must be one JSON object, got 'not json'"):
        read_jsonl(path)


@pytest.mark.parametrize("damage", ["cut", "flipped", "plain text", "latin-1"])
def test_a_damaged_file_is_a_data_error_that_names_it(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl.gz"
    raw = bytearray(gzip.compress(b'{"prompt": "a"}\n' * 2000, mtime=0))
    if damage == "cut":
        raw = raw[:-20]
    elif damage == "flipped":
        raw[30] ^= 0xFF
        raw[31] ^= 0x55
    elif damage == "plain text":
        raw = bytearray(b'{"prompt": "a"}\n')
    else:
        raw = bytearray(gzip.compress('{"prompt": "é"}\n'.encode("latin-1")))
    path.write_bytes(raw)
    with pytest.raises(DataError, match=r"rows\.jsonl\.gz: must be UTF-8 JSON Lines, plain or gzip; reading it failed"):
        read_jsonl(path)


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_text(tmp_path / "a.txt", "old")

    def die(*args: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", die)
    with pytest.raises(KeyboardInterrupt):
        write_text(path, "new")
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_a_value_that_is_no_json_leaves_the_old_file(tmp_path: Path) -> None:
    path = write_json(tmp_path / "a.json", {"old": 1})
    with pytest.raises(TypeError):
        write_json(path, {"new": object()})

    def rows() -> Iterator[dict[str, Any]]:
        yield {"new": 1}
        raise ValueError("source failed")

    with pytest.raises(ValueError, match="source failed"):
        write_jsonl(path, rows())
    assert json.loads(path.read_text()) == {"old": 1}
    assert names(tmp_path) == ["a.json"]


def test_written_files_can_be_read_by_others(tmp_path: Path) -> None:
    path = write_text(tmp_path / "a.txt", "text")
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def fill(folder: Path, text: str) -> None:
    (folder / "file").write_text(text)


def test_a_replaced_folder_appears_when_the_block_ends(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "model"
    for text in ("first", "second"):
        with replaced_folder(target) as folder:
            fill(folder, text)
            assert folder.parent == target.parent
            assert not target.exists() or (target / "file").read_text() == "first"
        assert (target / "file").read_text() == text
        assert names(target.parent) == ["model"]
    assert stat.S_IMODE(target.stat().st_mode) == 0o755


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_block_that_fails_leaves_the_old_folder(error: type[BaseException], tmp_path: Path) -> None:
    target = tmp_path / "model"
    with replaced_folder(target) as folder:
        fill(folder, "old")
    with pytest.raises(error), replaced_folder(target) as folder:  # noqa: PT012
        fill(folder, "new")
        raise error
    assert (target / "file").read_text() == "old"
    assert names(tmp_path) == ["model"]


def test_a_swap_that_fails_half_way_brings_the_old_folder_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "model"
    with replaced_folder(target) as folder:
        fill(folder, "old")
    real, calls = os.rename, []

    def second_fails(source: Any, destination: Any) -> None:
        calls.append(source)
        if len(calls) == 2:
            raise OSError("disk")
        real(source, destination)

    monkeypatch.setattr(files, "_exchanged", lambda one, other: False)
    monkeypatch.setattr(os, "rename", second_fails)
    with pytest.raises(OSError, match="disk"), replaced_folder(target) as folder:
        fill(folder, "new")
    assert target.is_dir(), f"the old folder is gone; left: {names(tmp_path)}"
    assert (target / "file").read_text() == "old"


KILLS = """
import os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from killing import killed_before
from lm_gym.tools import files

os.fsync = lambda handle: None  # what a killed process has written stays written
root = Path(sys.argv[1])
if sys.argv[3] == "two renames":
    files._exchanged = lambda one, other: False

def write(target, text):
    with files.replaced_folder(target) as folder:
        for name in "abc":
            (folder / name).write_text(text)

for change in range(1, 100):
    target = root / str(change) / "model"
    write(target, "old")
    killed = killed_before(change, root, lambda: write(target, "new"))
    if sys.argv[3] == "exchange":
        assert target.is_dir(), change
    files.restore_replaced(target)
    found = {(target / name).read_text() for name in "abc"}
    assert found in ({"old"}, {"new"}), (change, found)
    write(target, "last")
    assert [path.name for path in target.parent.iterdir()] == ["model"], change
    if not killed:
        break
print(change)
"""


@pytest.mark.parametrize("way", ["exchange", "two renames"])
def test_a_kill_at_any_moment_leaves_the_old_folder_or_the_new_one(way: str, tmp_path: Path) -> None:
    if way == "exchange" and sys.platform not in ("linux", "darwin"):
        pytest.skip("this system cannot exchange two folders")
    command = [sys.executable, "-c", KILLS, str(tmp_path), str(Path(__file__).parents[2] / "helpers"), way]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 10


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs the names of open files")
def test_a_written_folder_is_synced_before_it_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    real_sync, real_rename = os.fsync, os.rename

    def sync(handle: int) -> None:
        calls.append(Path(os.readlink(f"/proc/self/fd/{handle}")).name)
        real_sync(handle)

    def rename(source: Any, target: Any) -> None:
        calls.append("renamed")
        real_rename(source, target)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(os, "rename", rename)
    with replaced_folder(tmp_path / "model") as folder:
        (folder / "deep").mkdir()
        fill(folder / "deep", "x")
    assert calls == ["file", "deep", folder.name, "renamed", tmp_path.name]
    calls.clear()
    write_text(tmp_path / "a.txt", "text")
    assert [name.partition(".tmp-")[0] for name in calls] == [".a.txt", tmp_path.name]


def test_a_byte_order_mark_is_no_part_of_the_first_line(tmp_path: Path) -> None:
    rows = b'\xef\xbb\xbf{"a": 1}\r\n{"a": 2}\r\n'
    (tmp_path / "rows.jsonl").write_bytes(rows)
    (tmp_path / "rows.jsonl.gz").write_bytes(gzip.compress(rows))
    assert read_jsonl(tmp_path / "rows.jsonl") == read_jsonl(tmp_path / "rows.jsonl.gz") == [{"a": 1}, {"a": 2}]


# --- what cannot be written ------------------------------------------------------------------------------------------

WRITERS: dict[str, Callable[[Path], object]] = {
    "python": lambda path: path.write_text("x" * 100_000),
    "torch": lambda path: torch.save({"a": torch.zeros(50_000)}, path),
    "safetensors": lambda path: save_file({"a": torch.zeros(50_000)}, path),
    "tokenizers": lambda path: Tokenizer(WordLevel({"a": 0}, unk_token="a")).save(str(path)),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_a_full_disk_is_told_with_the_path_by_every_writer(writer: str, tmp_path: Path, full_disk: Any) -> None:
    target = tmp_path / "checkpoint-2"
    with replaced_folder(target) as folder:
        fill(folder, "old")
    words = rf"^{target}: must be written to its end, and writing it failed: .*; free space on its disk"
    whole, part = replaced_folder(target), full_disk(20)
    with pytest.raises(WriteError, match=words), whole as folder, replaced_folder(folder / "policy") as inner, part:
        WRITERS[writer](inner / "file")
    assert (target / "file").read_text() == "old"
    assert names(tmp_path) == ["checkpoint-2"]


def test_a_file_that_cannot_be_written_is_told_with_its_path(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match=rf"^{tmp_path}/file/rows.jsonl: .* failed: (File exists|Not a directory); "):
        write_jsonl(tmp_path / "file" / "rows.jsonl", [])
    with pytest.raises(WriteError, match=rf"^{tmp_path}: .* failed: Is a directory; "):
        append_jsonl(tmp_path, {"a": 1})


@pytest.mark.parametrize("error", [DataError("other"), RuntimeError("other"), ValueError("other")])
def test_an_error_that_is_of_no_writer_stays_what_it_is(error: Exception, tmp_path: Path) -> None:
    with pytest.raises(type(error), match=r"^other$"), writing(tmp_path):
        raise error
