"""Run folders: the identity, the lock and the checkpoints of a run.

One owner for every kind of run. A run folder holds

    lm_gym_run.json             the marker: kind, settings, digests of the inputs, and the result once it is finished
    lm_gym_run.lock             locked by the process that works in the folder, released when that process dies
    checkpoints/checkpoint-<n>  the last two, each with a manifest that was written last

and whatever else its run writes. :func:`open_run` starts a run, takes one up, or refuses; nothing is ever deleted that
does not bear the marker. Typical use::

    identity = RunIdentity(kind="ppo", settings={"learning_rate": 1e-5}, inputs={"prompts": digest_json(texts)})
    with open_run("runs/x", identity, resume=True) as run:
        if run.result is not None:
            return run.result                            # it is finished already
        if (found := run.newest_checkpoint()) is not None:
            load(found.folder)                           # checksums were compared
        with run.checkpoint(number=20) as folder:        # whole under its name, or not there
            save(folder)
        run.finish({"score": 0.5})                       # the folder stays; or
        with run.replaced_by_model({"score": 0.5}) as folder:
            model.save_pretrained(folder)                # the folder becomes the model, in one step

``Trainer`` of transformers writes ``checkpoints/checkpoint-<n>`` by itself, file by file: call :meth:`Run.seal` when it
is done (in ``on_save``), since a checkpoint without a manifest is not whole. Under several processes the main one opens
the run first; the others open it with ``is_main=False``, and only read.

Knows: files. Does not know: what is trained, or how.
"""

from __future__ import annotations

import json
import logging
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, runtime_checkable

from lm_gym.errors import ArtifactError, ConfigError, OutputExistsError
from lm_gym.runs.lock import LOCK, lock_folder, unlock_folder
from lm_gym.tools.files import (
    TEMPORARY,
    discard_folder,
    reading,
    replaced_folder,
    restore_replaced,
    sweep_temporaries,
    write_json,
)
from lm_gym.runs.manifests import check_manifest, read_note, write_manifest
from lm_gym.processes import launched_processes
from lm_gym.runs.identity import RunIdentity
from lm_gym.tools.settings import Place, checked

__all__ = [
    "CHECKPOINTS",
    "LOCK",
    "MARKER",
    "Checkpoint",
    "Run",
    "RunIdentity",
    "Stateful",
    "discard_run",
    "mark_finished",
    "open_run",
    "open_shared_run",
    "read_result",
    "refuse_both",
    "unfinished_run_of",
]

MARKER = "lm_gym_run.json"
CHECKPOINTS = "checkpoints"
FORMAT = 1
KEPT = 2
logger = logging.getLogger(__name__)


@runtime_checkable
class Stateful(Protocol):
    """Something with a state that a checkpoint has to hold: an agent, an environment, a controller, a callback."""

    def state_dict(self) -> dict[str, Any]:
        """Return everything that what comes next depends on: tensors, numbers, texts, and lists and dicts of them."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what :meth:`state_dict` gave."""
        ...


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A whole checkpoint."""

    number: int
    """Counts what was done before it: iterations, or optimiser steps."""
    folder: Path
    """Path of the checkpoint."""
    note: dict[str, Any]
    """Values that the run wrote into the manifest."""


class Run:
    """An open run folder; made by :func:`open_run`, and closed at the end of a ``with`` block."""

    def __init__(self, folder: Path, identity: RunIdentity, *, result: dict[str, Any] | None, lock: int | None) -> None:
        self.folder = folder
        self.identity = identity
        self.result = result
        """Result that :meth:`finish` was given, in this process or an earlier one; None while the run goes on."""
        self._lock = lock

    def __enter__(self) -> Run:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Let other processes work in the folder."""
        unlock_folder(self.folder, self._lock)
        self._lock = None

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints; the ``output_dir`` of a ``Trainer``."""
        return self.folder / CHECKPOINTS

    @contextmanager
    def checkpoint(self, number: int, *, note: Mapping[str, Any] | None = None, keep: int = KEPT) -> Iterator[Path]:
        """Write checkpoint ``number`` into the folder that is given; it gets its name when it is whole and on the disk.

        Args:
            number: of iterations or steps that are done.
            note: plain JSON values to find again in :attr:`Checkpoint.note`.
            keep: whole checkpoints that stay; older ones are deleted.
        """
        with replaced_folder(self.checkpoints / f"checkpoint-{number}") as folder:
            yield folder
            write_manifest(folder, note=note)
        for _, old in _numbered(self.checkpoints)[keep:]:
            shutil.rmtree(old, ignore_errors=True)

    def seal(self, folder: Path, *, note: Mapping[str, Any] | None = None) -> None:
        """Declare whole a checkpoint that something else wrote to ``checkpoints/checkpoint-<n>``."""
        write_manifest(folder, note=note)

    def newest_checkpoint(self) -> Checkpoint | None:
        """Return the newest whole checkpoint, or None; damaged ones are named in a warning and passed over."""
        for number, folder in _numbered(self.checkpoints):
            try:
                check_manifest(folder)
                return Checkpoint(number=number, folder=folder, note=read_note(folder))
            except ArtifactError as error:
                logger.warning("checkpoint %s is not whole, the one before is taken: %s", folder, error)
        return None

    def finish(self, result: Mapping[str, Any]) -> None:
        """Mark the run as finished, with its result (plain JSON values); its checkpoints are deleted."""
        self.result = dict(result)
        _write_marker(self.folder, self.identity, result=self.result)
        shutil.rmtree(self.checkpoints, ignore_errors=True)

    @contextmanager
    def replaced_by_model(self, result: Mapping[str, Any]) -> Iterator[Path]:
        """Write a finished model into the folder that is given; it takes the place of the run folder in one step.

        The marker goes with it, so the run can still be asked for its result, and be overwritten. A manifest lists the
        weights (``*.safetensors``), so that loading the model finds a changed byte.
        """
        with replaced_folder(self.folder) as folder:
            yield folder
            write_manifest(folder, ("*.safetensors",))
            _write_marker(folder, self.identity, result=result)
        self.result = dict(result)


def open_run(
    folder: str | Path,
    identity: RunIdentity,
    *,
    resume: bool = False,
    overwrite: bool = False,
    is_main: bool = True,
) -> Run:
    """Start a run in a new or empty folder, take up the one that is there, or refuse.

    Call it when all inputs are read and checked: their digests stand in the identity, and ``overwrite`` deletes.

    Args:
        folder: of the run.
        identity: everything that decides what it makes.
        resume: go on with the run in the folder, which must have the same identity; start it where there is none.
        overwrite: delete the run in the folder first.
        is_main: False in the other processes of one run, which wait for the main one, take no lock and write nothing.

    Returns: the run, locked until it is closed. Its ``result`` is not None if it is finished.

    Raises:
        ConfigError: both flags, or the run in the folder has another identity; each difference is named.
        OutputExistsError: the folder holds a run and neither flag was given, it holds something that no run wrote
            (whatever the flags), or another process works in it.
        ArtifactError: the marker is damaged.
    """
    folder = Path(checked("run folder", folder, Place))
    identity = checked("run: identity", identity, RunIdentity)
    resume, overwrite = checked("run: resume", resume, bool), checked("run: overwrite", overwrite, bool)
    if folder.name in ("", ".."):
        raise ConfigError(
            f"run {folder}: the folder must have a name, since a run may be moved into its place; write its name out, "
            f"such as {str(folder.resolve())!r}"
        )
    refuse_both(folder, resume=resume, overwrite=overwrite)
    if not is_main:
        return _joined(folder, identity)
    try:
        restore_replaced(folder)
        sweep_temporaries(folder.parent, name=folder.name)
        _refuse_foreign_folder(folder)
        folder.mkdir(parents=True, exist_ok=True)
    except OutputExistsError:
        raise
    except (OSError, UnicodeEncodeError) as error:
        raise OutputExistsError(f"output folder {folder}: cannot be made ({error}); choose another path") from error
    lock = lock_folder(folder)
    try:
        _refuse_foreign_folder(folder)  # once more: nothing changes under the lock
        return _opened(folder, identity, resume=resume, overwrite=overwrite, lock=lock)
    except BaseException:
        unlock_folder(folder, lock)
        raise


def open_shared_run(
    folder: str | Path, identity: RunIdentity, *, resume: bool = False, overwrite: bool = False, device: str = "auto"
) -> Run:
    """Open a run in all processes that a launcher started, in the main one first; see :func:`open_run`.

    Args: device: "cpu", or anything else where the processes use accelerators.
    """
    processes = launched_processes()
    if processes.size == 1:
        return open_run(folder, identity, resume=resume, overwrite=overwrite)
    from accelerate import PartialState

    with PartialState(cpu=device == "cpu").main_process_first():
        return open_run(folder, identity, resume=resume, overwrite=overwrite, is_main=processes.is_main)


def refuse_both(folder: str | Path, *, resume: bool, overwrite: bool) -> None:
    """Raises: ConfigError: a run is to go on and to be deleted first."""
    if resume and overwrite:
        raise ConfigError(f"run {folder}: resume and overwrite must not both be asked for; choose one")


def discard_run(folder: str | Path) -> None:
    """Delete a folder in which runs work, with all that it holds; nothing where there is none.

    Raises: OutputExistsError: another process works in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        return
    unlock_folder(folder, lock_folder(folder))  # given back first: Windows moves no folder with an open file in it
    discard_folder(folder)


def read_result(folder: str | Path) -> dict[str, Any] | None:
    """The result of the run in a folder, or None if it is not finished or there is none."""
    found = _read_marker(Path(folder))
    return None if found is None else found["result"]


def unfinished_run_of(path: str | Path) -> Path | None:
    """The run that a path belongs to if it is not finished, and may replace or delete the path; else None."""
    path = Path(path)
    run = next((folder for folder in (path, *path.parents) if (folder / MARKER).is_file()), None)
    return run if run is not None and read_result(run) is None else None


def mark_finished(folder: str | Path, identity: RunIdentity, result: Mapping[str, Any]) -> None:
    """Give a finished folder that was written elsewhere the marker, so that :func:`open_run` knows the run."""
    _write_marker(Path(folder), identity, result=result)


def _opened(folder: Path, identity: RunIdentity, *, resume: bool, overwrite: bool, lock: int | None) -> Run:
    found = _read_marker(folder)
    result = None
    if found is None or overwrite or not found["is_cleared"]:  # not cleared: killed while it overwrote
        _cleared(folder, identity)
    elif resume:
        _refuse_another(folder, identity, found)
        result = found["result"]
        if result is not None:  # a kill may have come between the mark and this
            shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
        sweep_temporaries(folder)
        sweep_temporaries(folder / CHECKPOINTS)
    else:
        raise OutputExistsError(
            f"output folder {folder}: must be new or empty, and it holds a run; go on with that one: --resume "
            "(resume=True), delete it first: --overwrite (overwrite=True), or choose another path"
        )
    return Run(folder, identity, result=result, lock=lock)


def _joined(folder: Path, identity: RunIdentity) -> Run:
    found = _read_marker(folder)
    if found is None:
        raise ConfigError(f"run {folder}: must have been opened by the main process first, and is not there")
    _refuse_another(folder, identity, found)
    return Run(folder, identity, result=found["result"], lock=None)


def _refuse_foreign_folder(folder: Path) -> None:
    if folder.is_file():
        raise OutputExistsError(f"output folder {folder}: must be a folder, got a file; choose another path")
    if not folder.is_dir() or (folder / MARKER).is_file():
        return
    strange = sorted(path.name for path in folder.iterdir() if not _is_trace(path.name))
    if strange:
        shown = ", ".join(strange[:3]) + (", ..." if len(strange) > 3 else "")
        raise OutputExistsError(
            f"output folder {folder}: must be new, empty, or hold a run ({MARKER}), and it holds {shown}, which no run "
            "wrote and nothing here deletes; choose another path, or empty it by hand"
        )


def _is_trace(name: str) -> bool:
    """True for a file that was left by a process that was killed before it had written the marker."""
    return name == LOCK or name.startswith(f".{MARKER}{TEMPORARY}")


def _cleared(folder: Path, identity: RunIdentity) -> None:
    """Empty the folder and write the marker; a kill in between leaves a marker that says to go on with it."""
    left = [path for path in folder.iterdir() if path.name not in (LOCK, MARKER)]
    if left:
        _write_marker(folder, identity, is_cleared=False)
    for path in left:
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    _write_marker(folder, identity)


def _write_marker(
    folder: Path, identity: RunIdentity, *, result: Mapping[str, Any] | None = None, is_cleared: bool = True
) -> None:
    mark = {"format": FORMAT, **asdict(identity), "is_cleared": is_cleared}
    write_json(folder / MARKER, mark | {"result": None if result is None else dict(result)})


def _read_marker(folder: Path) -> dict[str, Any] | None:
    path = folder / MARKER
    if not path.is_file():
        return None
    remedy = "delete the folder by hand, or choose another path"
    with reading(f"run {folder}", f"must have a whole {MARKER}", remedy=remedy):
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if found["format"] != FORMAT:
            raise ValueError(f"format {found['format']!r}, and this version reads format {FORMAT}")
        identity = RunIdentity(kind=found["kind"], settings=found["settings"], inputs=found["inputs"])
        return {"identity": identity, "is_cleared": found["is_cleared"], "result": found["result"]}


def _refuse_another(folder: Path, identity: RunIdentity, found: Mapping[str, Any]) -> None:
    if changed := identity.differences(found["identity"]):
        raise ConfigError(
            f"run {folder}: resume must go on with the same settings and inputs, and these differ: "
            f"{', '.join(changed)}; restore them, or start another run "
            "in another folder, from the model of this one if you like"
        )


def _numbered(folder: Path) -> list[tuple[int, Path]]:
    """Folders ``checkpoint-<n>``, the newest first."""
    found = ((re.fullmatch(r"checkpoint-(\d+)", path.name), path) for path in folder.glob("checkpoint-*"))
    return sorted(((int(match[1]), path) for match, path in found if match and path.is_dir()), reverse=True)
