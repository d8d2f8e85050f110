"""A run folder in which every stage happens once: finished stages are read back, a killed one is taken up again."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from rich.console import Console
from rich.text import Text

from lm_gym.runs.folder import RunIdentity, open_run
from lm_gym.tools.files import sweep_temporaries, write_json

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
        resume: bool = False,
        overwrite: bool = False,
    ) -> None:
        """Open or make a run folder; see :func:`lm_gym.runs.folder.open_run` for the rules and the errors.

        Args:
            folder: of the whole run.
            identity: everything that decides what its stages make.
            console: where stages are announced.
            resume: go on with the run that the folder holds.
            overwrite: delete it first.
        """
        self._run = open_run(folder, identity, resume=resume, overwrite=overwrite)
        self.folder = self._run.folder
        self.console = console
        self.seconds: dict[str, float] = {}

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

    def stage(self, name: str, make: Callable[[Path], object], load: Callable[[Path], Made]) -> Made:
        """Do a stage unless it is done, then load what it made.

        Args:
            name: of the stage and its folder, such as "round-1/reward".
            make: called with the folder, in which an earlier attempt may have left something to go on with. An error
                in it, an interruption included, leaves the stage undone.
            load: reads the finished stage back, also right after making it, so that both ways are one.
        """
        path = self.folder / name
        mark = path / DONE
        if not mark.is_file():
            sweep_temporaries(path)
            left = path.is_dir() and any(path.iterdir())
            self.console.print(Text.assemble((name, "bold"), " (taken up again)" if left else ""))
            started = time.perf_counter()
            make(path)
            seconds = time.perf_counter() - started
            write_json(mark, {"seconds": seconds})
            self.console.print(f"  {seconds:.0f} s", style="dim")
        self.seconds[name] = float(json.loads(mark.read_text(encoding="utf-8"))["seconds"])
        return load(path)


def machine_description() -> str:
    """Processor count, system, and the versions that numbers depend on."""
    import torch
    import transformers

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{os.cpu_count()} CPU cores"
    return (
        f"{device}, {platform.system()} {platform.machine()}, Python {platform.python_version()}, "
        f"torch {torch.__version__}, transformers {transformers.__version__}"
    )
