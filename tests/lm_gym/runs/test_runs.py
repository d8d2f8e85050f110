"""Run folders: one identity, one process, whole checkpoints, and nothing deleted that no run wrote."""

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lm_gym.errors import ArtifactError, ConfigError, OutputExistsError
from lm_gym.runs.manifests import MANIFEST, check_manifest
from lm_gym.runs.folder import MARKER, Run, RunIdentity, open_run, read_result


def identity(**settings: Any) -> RunIdentity:
    return RunIdentity(
        kind="test", settings={"rate": 1e-5, "loss": {"clip": 0.2}} | settings, inputs={"data": "a" * 64}
    )


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def save(run: Run, number: int, text: str = "state") -> Path:
    with run.checkpoint(number) as folder:
        (folder / "state.txt").write_text(f"{text} {number}")
    return run.checkpoints / f"checkpoint-{number}"


def resumed(folder: Path) -> Run:
    return open_run(folder, identity(), resume=True)


# --- who may open a folder -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flags", [{}, {"resume": True}, {"overwrite": True}])
@pytest.mark.parametrize("exists", [False, True])
def test_a_new_or_empty_folder_starts_a_run(flags: dict[str, bool], exists: bool, tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "run"
    if exists:
        folder.mkdir(parents=True)
    with open_run(folder, identity(), **flags) as run:
        assert run.newest_checkpoint() is None
        assert run.result is None
        assert "lm_gym_run.lock" in names(folder)
    assert names(folder) == [MARKER]


@pytest.mark.parametrize("folder", [".", ".."])
def test_a_folder_without_a_name_is_refused(folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="must have a name.* write its name out, such as '/"):
        open_run(folder, identity())


@pytest.mark.parametrize("name", ["file/run", "dangling"])
def test_a_folder_that_cannot_be_made_is_named(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a file")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    with pytest.raises(OutputExistsError, match=f"output folder .*{name}: cannot be made .* choose another path"):
        open_run(tmp_path / name, identity())


def test_a_run_is_taken_up_overwritten_or_refused(tmp_path: Path) -> None:
    with open_run(tmp_path, identity()) as run:
        save(run, 3)
    with pytest.raises(OutputExistsError, match=r"holds a run; go on with that one: --resume .* --overwrite"):
        open_run(tmp_path, identity())
    with resumed(tmp_path) as run:
        found = run.newest_checkpoint()
        assert found is not None
        assert (found.number, (found.folder / "state.txt").read_text()) == (3, "state 3")
    (tmp_path / "notes.txt").write_text("of the first run")
    with open_run(tmp_path, identity(rate=1.0), overwrite=True) as run:
        assert run.newest_checkpoint() is None
    assert names(tmp_path) == [MARKER]
    with pytest.raises(ConfigError, match="must not both be asked for"):
        open_run(tmp_path, identity(), resume=True, overwrite=True)


@pytest.mark.parametrize("flags", [{}, {"resume": True}, {"overwrite": True}])
def test_what_an_overwriting_process_left_when_it_was_killed_is_not_used(
    flags: dict[str, bool], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_run(tmp_path, identity(rate=1)) as run:
        save(run, 3)

    def die(path: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):  # noqa: PT012
        patch.setattr(shutil, "rmtree", die)
        open_run(tmp_path, identity(), overwrite=True)
    assert (tmp_path / "checkpoints" / "checkpoint-3").is_dir()
    with open_run(tmp_path, identity(), **flags) as run:
        assert run.newest_checkpoint() is None
    assert names(tmp_path) == [MARKER]


@pytest.mark.parametrize("flags", [{}, {"resume": True}, {"overwrite": True}])
def test_what_no_run_wrote_is_never_deleted(flags: dict[str, bool], tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(OutputExistsError, match=r"holds thesis\.tex, which no run wrote"):
        open_run(tmp_path, identity(), **flags)
    assert names(tmp_path) == ["thesis.tex"]
    with pytest.raises(OutputExistsError, match="must be a folder, got a file"):
        open_run(tmp_path / "thesis.tex", identity(), **flags)


def test_each_difference_is_named(tmp_path: Path) -> None:
    open_run(tmp_path, identity(old=1)).close()
    other = RunIdentity(kind="test", settings={"rate": 1e-4, "loss": {"clip": 0.2, "coef": [1, None]}}, inputs={})
    with pytest.raises(ConfigError) as error:
        open_run(tmp_path, other, resume=True)
    expected = (
        "input data (was aaaaaaaaaaaa..., is not set), loss.coef (was not set, is [1, None]), old (was 1, is not set), "
        "rate (was 1e-05, is 0.0001)"
    )
    assert expected in str(error.value)


def test_an_identity_is_plain_json_and_compares_as_it_is_read_back() -> None:
    assert identity(sizes=(1, 2)) == identity(sizes=[1, 2])
    assert identity(sizes=(1, 2)).differences(identity(sizes=[1, 2])) == []
    assert identity(limit=float("nan")).differences(identity(limit=float("nan"))) == []
    one, two = (RunIdentity(kind="k", inputs={"model": "m" * 40 + end}) for end in "ab")
    assert len(one.differences(two)) == 1
    with pytest.raises(ConfigError, match=r"must hold plain JSON values, and settings\.loss\.at\[1\] is a value of type .*Path"):
        identity(loss={"at": [0.0, Path("x")]})


@pytest.mark.parametrize("text", ["", "{", '{"format": 2}', '{"format": 1, "kind": "test"}'])
@pytest.mark.parametrize("flags", [{}, {"resume": True}, {"overwrite": True}])
def test_a_damaged_marker_is_refused(text: str, flags: dict[str, bool], tmp_path: Path) -> None:
    (tmp_path / MARKER).write_text(text)
    with pytest.raises(ArtifactError, match=f"must have a whole {MARKER}"):
        open_run(tmp_path, identity(), **flags)
    assert names(tmp_path) == [MARKER]


def test_traces_of_a_process_that_was_killed_before_the_marker_do_not_matter(tmp_path: Path) -> None:
    (tmp_path / "lm_gym_run.lock").write_text("process 1")
    (tmp_path / f".{MARKER}.tmp-abc").write_text("{")
    with resumed(tmp_path) as run:
        assert run.newest_checkpoint() is None
    assert names(tmp_path) == [MARKER]


# --- one process -----------------------------------------------------------------------------------------------------

HOLDER = """
import sys, time
from lm_gym.runs.folder import RunIdentity, open_run
run = open_run(sys.argv[1], RunIdentity(kind="test", settings={"rate": 1e-5, "loss": {"clip": 0.2}},
               inputs={"data": "a" * 64}), resume=True)
print("open", flush=True)
time.sleep(60)
"""


def test_a_second_process_is_refused_and_a_dead_one_is_not_waited_for(tmp_path: Path) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "open\n"
        before = (tmp_path / MARKER).read_bytes()
        for flags in ({"resume": True}, {"overwrite": True}):
            with pytest.raises(OutputExistsError, match=f"another process works in it .process {holder.pid} on"):
                open_run(tmp_path, identity(), **flags)
        assert (tmp_path / MARKER).read_bytes() == before
        holder.send_signal(signal.SIGKILL)
    resumed(tmp_path).close()


def test_an_error_while_opening_leaves_no_lock(tmp_path: Path) -> None:
    open_run(tmp_path, identity()).close()
    with pytest.raises(ConfigError):
        open_run(tmp_path, identity(rate=1), resume=True)
    resumed(tmp_path).close()


def test_a_file_system_without_locks_is_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from lm_gym.runs import lock

    def unsupported(path: Path, *, create: bool) -> int:
        raise OSError(95, "not supported")

    monkeypatch.setattr(lock, "locked", unsupported)
    open_run(tmp_path, identity()).close()
    assert "start no second process there" in caplog.text


def test_the_other_processes_of_a_run_write_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="must have been opened by the main process first"):
        open_run(tmp_path, identity(), is_main=False)
    with open_run(tmp_path, identity()):
        before = names(tmp_path)
        with open_run(tmp_path, identity(), is_main=False) as run:
            assert run.result is None
        assert names(tmp_path) == before
        with pytest.raises(ConfigError, match=r"rate \(was 1e-05, is 1\)"):
            open_run(tmp_path, identity(rate=1), is_main=False)


def test_the_snippet_of_the_docs_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (Path(__file__).parents[3] / "docs" / "guides" / "runs.md").read_text(encoding="utf-8")
    snippet = text.partition("```python\n")[2].partition("```")[0]
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        exec(compile(snippet, "runs.md", "exec"), {})
        assert read_result(Path("runs/mine")) == {"steps": 3}


# --- checkpoints -----------------------------------------------------------------------------------------------------


def test_the_last_two_checkpoints_stay(tmp_path: Path) -> None:
    with open_run(tmp_path, identity()) as run:
        for number in (2, 9, 10, 11):
            save(run, number)
        assert names(run.checkpoints) == ["checkpoint-10", "checkpoint-11"]
        with run.checkpoint(12, note={"seconds": 1.5}, keep=1) as folder:
            (folder / "state.txt").write_text("last")
        assert names(run.checkpoints) == ["checkpoint-12"]
        found = run.newest_checkpoint()
    assert found is not None
    assert found.note == {"seconds": 1.5}


@pytest.mark.parametrize("damage", ["flipped", "cut", "missing", "no manifest", "torn manifest"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(
    damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with open_run(tmp_path, identity()) as run:
        save(run, 1)
        newest = save(run, 2)
    state = newest / "state.txt"
    if damage == "flipped":
        state.write_text("stale 2")
    elif damage == "cut":
        state.write_text("")
    elif damage == "missing":
        state.unlink()
    elif damage == "no manifest":
        (newest / MANIFEST).unlink()
    else:
        (newest / MANIFEST).write_text("{")
    with resumed(tmp_path) as run, caplog.at_level(logging.WARNING):
        found = run.newest_checkpoint()
        assert found is not None
        assert found.number == 1
        assert str(newest) in caplog.text
        save(run, 2, "again")  # the run comes to the same number once more
        found = run.newest_checkpoint()
        assert found is not None
        assert (found.folder / "state.txt").read_text() == "again 2"


def test_a_checkpoint_that_something_else_writes_is_whole_once_it_is_sealed(tmp_path: Path) -> None:
    with open_run(tmp_path, identity()) as run:
        folder = run.checkpoints / "checkpoint-5"
        folder.mkdir(parents=True)
        (folder / "optimizer.pt").write_bytes(b"abc")
        assert run.newest_checkpoint() is None
        run.seal(folder, note={"seconds": 2.0})
        found = run.newest_checkpoint()
        assert found is not None
        assert (found.number, found.folder, found.note) == (5, folder, {"seconds": 2.0})


def test_a_block_that_fails_leaves_the_checkpoints_as_they_were(tmp_path: Path) -> None:
    with open_run(tmp_path, identity()) as run:
        save(run, 1)
        with pytest.raises(ValueError, match="disk"), run.checkpoint(2) as folder:  # noqa: PT012
            (folder / "state.txt").write_text("half")
            raise ValueError("disk")
        assert names(run.checkpoints) == ["checkpoint-1"]


def test_temporary_folders_of_killed_processes_are_swept(tmp_path: Path) -> None:
    with open_run(tmp_path, identity()) as run:
        save(run, 1)
    for left in (tmp_path / ".best.tmp-x1", tmp_path / "checkpoints" / ".checkpoint-2.tmp-y2"):
        left.mkdir()
        (left / "weights").write_text("half")
    (tmp_path / ".metrics.jsonl.tmp-z3").write_text("half")
    resumed(tmp_path).close()
    assert names(tmp_path) == ["checkpoints", MARKER]
    assert names(tmp_path / "checkpoints") == ["checkpoint-1"]


# --- the end of a run ------------------------------------------------------------------------------------------------


def test_a_finished_run_keeps_its_result(tmp_path: Path) -> None:
    assert read_result(tmp_path) is None
    with open_run(tmp_path, identity()) as run:
        save(run, 1)
        assert read_result(tmp_path) is None
        run.finish({"loss": 0.5})
    assert names(tmp_path) == [MARKER]
    assert read_result(tmp_path) == {"loss": 0.5}
    with resumed(tmp_path) as run:
        assert run.result == {"loss": 0.5}
    with open_run(tmp_path, identity(), overwrite=True) as run:
        assert run.result is None


def test_a_finished_run_becomes_its_model(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with open_run(folder, identity()) as run:
        save(run, 1)
        with run.replaced_by_model({"loss": 0.5}) as model:
            (model / "w.safetensors").write_text("w")
            assert (folder / "checkpoints").is_dir()
        with resumed(folder) as again:
            assert again.result == {"loss": 0.5}
    assert names(folder) == [MANIFEST, MARKER, "w.safetensors"]
    assert names(tmp_path) == ["run"]
    check_manifest(folder)
    (folder / "w.safetensors").write_text("v")
    with pytest.raises(ArtifactError, match=r"w\.safetensors: must have the 1 bytes"):
        check_manifest(folder)
    assert json.loads((folder / MARKER).read_text())["settings"] == identity().settings
    with open_run(folder, identity(), overwrite=True):
        pass
    assert names(folder) == [MARKER]


# --- kills -----------------------------------------------------------------------------------------------------------

KILLS = """
import os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from killing import forked, killed_before
from lm_gym.runs.folder import RunIdentity, open_run

os.fsync = lambda handle: None  # what a killed process has written stays written
root = Path(sys.argv[1])
FINISHED = ["lm_gym_manifest.json", "lm_gym_run.json", "weights"]
IDENTITY = RunIdentity(kind="test", inputs={"data": "b" * 64})

def write(folder):
    with open_run(folder, IDENTITY, resume=True) as run:
        if run.result is not None:
            return
        found = run.newest_checkpoint()
        total = int((found.folder / "state").read_text()) if found else 0
        for number in range(found.number if found else 0, 4):
            total += 10 ** number
            with run.checkpoint(number + 1) as checkpoint:
                (checkpoint / "state").write_text(str(total))
        with run.replaced_by_model({"total": total}) as model:
            (model / "weights").write_text(str(total))

def overwrite(folder):
    with open_run(folder, IDENTITY, overwrite=True):
        pass

def start(folder, work):
    if work is overwrite:
        write(folder)

for work in (write, overwrite):
    change = 0
    while True:
        change += 1
        folder = root / f"{work.__name__}-{change}" / "run"
        start(folder, work)
        killed = killed_before(change, root, lambda: work(folder))
        assert forked(lambda: write(folder)) == 0, change
        assert sorted(path.name for path in folder.iterdir()) == FINISHED, change
        assert (folder / "weights").read_text() == "1111", change
        assert [path.name for path in folder.parent.iterdir()] == ["run"], change
        if not killed:
            break
    print(change)
"""


def test_a_run_survives_a_kill_before_each_of_its_changes(tmp_path: Path) -> None:
    helpers = Path(__file__).parents[2] / "helpers"
    command = [sys.executable, "-c", KILLS, str(tmp_path), str(helpers)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr
    writing, overwriting = map(int, done.stdout.split())
    assert writing > 40
    assert overwriting > 6
