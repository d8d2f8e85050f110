"""A run folder in which every stage happens once: finished stages are read back, a killed one is taken up again."""

from __future__ import annotations

import json
import os
import platform
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from rich.console import Console
from rich.text import Text

from lm_gym.runs.folder import RunIdentity, open_run
from lm_gym.tools.console.progress import duration
from lm_gym.tools.files import reading, sweep_temporaries, write_json
from lm_gym.tools.json_values import is_finite
from lm_gym.tools.settings import shown

from .story import Chapter

__all__ = ["Workspace", "machine_description"]

Made = TypeVar("Made")
DONE = "stage.json"


class Workspace:
    """Stages by name, each with a folder of its own and a mark that it is finished; close it, or use ``with``."""

    def __init__(
        self,
        folder: str | Path,
        identity: RunIdentity,
        *,
        console: Console,
        stages: int = 0,
        resume: bool = False,
        overwrite: bool = False,
    ) -> None:
        """Open or make a run folder; see :func:`lm_gym.runs.folder.open_run` for the rules and the errors.

        Args:
            folder: of the whole run.
            identity: everything that decides what its stages make.
            console: where stages are announced, with what each one does and what it found.
            stages: number of stages that there will be; 0 does not number them.
            resume: go on with the run that the folder holds.
            overwrite: delete it first.
        """
        self._run = open_run(folder, identity, resume=resume, overwrite=overwrite)
        self.folder = self._run.folder
        self.console = console
        self.seconds: dict[str, float] = {}
        self._stages, self._announced = stages, 0

    def __enter__(self) -> Workspace:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Let other processes work in the folder."""
        self._run.close()

    @property
    def is_finished(self) -> bool:
        """True if every stage is done."""
        return self._run.result is not None

    def finish(self) -> None:
        """Mark the whole run as done."""
        self._run.finish({"stage_seconds": self.seconds})

    def tell_plan(self, title: str, summary: str) -> None:
        """Say what the run is about."""
        count = f", in {self._stages} stages" if self._stages else ""
        self.console.print(Text.assemble((title, "bold"), f"{count}, kept in {self.folder}"), soft_wrap=True)
        self._say(summary)

    def chapter(self, about: Chapter) -> None:
        """Announce the next stage: its number, and what it does."""
        self._announced += 1
        number = f"stage {self._announced} of {self._stages}: " if self._stages else ""
        self.console.print()
        self.console.print(Text.assemble(number, (about.title, "bold")))
        self._say(about.purpose)

    def stage(
        self,
        name: str,
        make: Callable[[Path], str | None],
        load: Callable[[Path], Made],
        *,
        about: Chapter | None = None,
        part: str = "Found",
    ) -> Made:
        """Do a stage unless it is done, then load what it made.

        Args:
            name: of the stage and its folder, such as "round-1/reward".
            make: called with the folder, in which an earlier attempt may have left something to go on with. Returns:
                what was found, in words. An error in it, an interruption included, leaves the stage undone.
            load: reads the finished stage back, also right after making it, so that both ways are one.
            about: heading of the stage; None for a part of the one before.
            part: word before what was found, such as the name of the part.
        """
        if about is not None:
            self.chapter(about)
        path = self.folder / name
        mark = path / DONE
        before = mark.is_file()
        if not before:
            sweep_temporaries(path)
            if path.is_dir() and any(path.iterdir()):
                self._say("Goes on with what an interrupted run left.")
            started = time.perf_counter()
            found = make(path)
            write_json(mark, {"seconds": time.perf_counter() - started, "found": found})
        self.seconds[name], told = _read_mark(mark)
        took = "done before" if before else duration(self.seconds[name])
        self._say(f"{part}: {told or 'nothing to tell'} ({took})")
        return load(path)

    def _say(self, text: str) -> None:
        width = max(40, self.console.width - 2)
        body = textwrap.fill(text, width, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False)
        self.console.print(Text(body), soft_wrap=True)


def _read_mark(path: Path) -> tuple[float, str | None]:
    """Seconds that a finished stage took, and what was found. Raises: ArtifactError: the mark is damaged."""
    with reading(path, "must be the whole mark of a finished stage", remedy="delete it, and go on with --resume"):
        mark = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(mark, dict):
            raise TypeError(f"it holds {shown(mark)}")
        seconds, found = mark["seconds"], mark["found"]
        if not is_finite(seconds) or seconds < 0:
            raise TypeError(f"'seconds' is {shown(seconds)}")
        if not (found is None or isinstance(found, str)):
            raise TypeError(f"'found' is {shown(found)}")
        (found or "").encode()  # half of a surrogate pair can be told to nobody
    return float(seconds), found


def machine_description() -> str:
    """Processor count, system, and the versions that numbers depend on."""
    import torch
    import transformers

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{os.cpu_count()} CPU cores"
    return (
        f"{device}, {platform.system()} {platform.machine()}, Python {platform.python_version()}, "
        f"torch {torch.__version__}, transformers {transformers.__version__}"
    )
