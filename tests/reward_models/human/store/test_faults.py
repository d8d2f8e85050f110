"""A label store whose writer is killed, whose disk is full, and that two processes write at once."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from lm_gym.errors import ArtifactError, WriteError
from lm_gym.reward_models import Question
from lm_gym.reward_models.human import LabelRules, LabelStore, ask_questions, judge, next_showing, set_rules

LABELS = 400
WRITER = """
import sys, time
from pathlib import Path
from lm_gym.reward_models.human import LabelStore, judge, next_showing
place, who, acks = sys.argv[1:]
store = LabelStore.open(place)
with open(acks, "a", buffering=1) as told:
    print("ready", file=told)
    while not Path(acks).with_name("go").exists():
        time.sleep(0.001)
    while (showing := next_showing(store, who)) is not None:
        id = showing.id[:-1] + ("0" if showing.id[-1] != "0" else "1")
        judge(store, who, showing.id, {"kind": "choice", "winner": "a"}, id=id)
        print(id, file=told)
        time.sleep(0.002)
"""


def fill(place: str, count: int) -> None:
    with LabelStore.open(place) as store:
        set_rules(store, LabelRules(repeat_share=0.0))
        ask_questions(store, [Question.of(f"{n}", (f"{n}a", f"{n}b")) for n in range(count)], kind="choice")


def writer(place: str, who: str, acks: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", WRITER, place, who, str(acks)])


def acknowledged(acks: Path) -> list[str]:
    text = acks.read_text() if acks.exists() else ""
    return [line for line in text.split("\n")[:-1] if line != "ready"]  # the last line may be cut


def test_a_writer_that_is_killed_loses_nothing_that_it_acknowledged(place: str, tmp_path: Path) -> None:
    fill(place, LABELS)
    rng, acks = random.Random(0), tmp_path / "acks"
    (tmp_path / "go").touch()
    for number in range(12):
        said = acks.read_text().count("ready") if acks.exists() else 0
        process = writer(place, f"person-{number % 3}", acks)
        while not acks.exists() or acks.read_text().count("ready") == said:
            time.sleep(0.005)
        time.sleep(rng.uniform(0.0, 0.08))
        process.kill()
        assert process.wait() == -signal.SIGKILL
        with LabelStore.open(place) as store, store.reading() as state:
            stored = Counter(answer.id for answer in state.answers())
            assert set(acknowledged(acks)) <= set(stored)
            assert set(stored.values()) <= {1}
            assert all(len(item.labels) <= 1 for item in state.items.values())
    assert len(acknowledged(acks)) > 3


def test_two_processes_that_write_at_once_share_the_items(place: str, tmp_path: Path) -> None:
    fill(place, 150)
    acks = [tmp_path / "one", tmp_path / "two"]
    processes = [writer(place, f"person-{number}", each) for number, each in enumerate(acks)]
    while not all(each.exists() and each.read_text() for each in acks):
        time.sleep(0.005)
    (tmp_path / "go").touch()
    assert [process.wait() for process in processes] == [0, 0]
    told = [acknowledged(each) for each in acks]
    assert min(map(len, told)) > 10
    with LabelStore.open(place) as store, store.reading() as state:
        assert sorted(answer.id for answer in state.answers()) == sorted(told[0] + told[1])
        assert [len(item.labels) for item in state.items.values()] == [1] * 150


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 512 KiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("needs the right to mount a small tmpfs")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_is_told_and_what_was_stored_is_whole(small_disk: Path) -> None:
    place = str(small_disk / "labels.db")
    fill(place, 40)
    given = []
    with LabelStore.open(place) as store:

        def answer_all() -> None:
            while (showing := next_showing(store, "person-a")) is not None:
                judge(store, "person-a", showing.id, {"kind": "choice", "winner": "b", "comment": "long " * 4000})
                given.append(showing.id)

        with pytest.raises(WriteError, match=r"labels\.db: nothing was stored, and what was stored before is whole"):
            answer_all()
        assert given
        with store.reading() as state:
            assert list(state.answer_of) == given
    with LabelStore.open(place) as store:
        with store.reading() as state:
            assert list(state.answer_of) == given
            (open_one,) = set(state.showings) - set(given) or {None}
        subprocess.run(["mount", "-o", "remount,size=8m", str(small_disk)], check=True)
        if open_one is not None:
            judge(store, "person-a", open_one, {"kind": "choice", "winner": "b"})
        with store.reading() as state:
            assert len(state.answer_of) == len(given) + (open_one is not None)


def test_a_file_that_is_cut_short_is_told(tmp_path: Path) -> None:
    path = tmp_path / "labels.db"
    fill(str(path), 200)
    os.truncate(path, path.stat().st_size // 2)

    def use() -> None:
        with LabelStore.open(path) as store, store.reading():
            pass

    with pytest.raises(ArtifactError, match=r"labels\.db"):
        use()
