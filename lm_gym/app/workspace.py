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

from lm_gym.errors import OutputExistsError
from lm_gym.files import output_folder, write_json

__all__ = ["Workspace", "machine_description"]

Made = TypeVar("Made")
DONE = "stage.json"


class Workspace:
    """Stages by name, each with a folder of its own and a mark that it is finished."""

    def __init__(self, folder: str | Path, *, console: Console, resume: bool = False, overwrite: bool = False) -> None:
        """Open or make a run folder.

        Args:
            folder: of the whole run.
            console: where stages are announced.
            resume: go on with a run that the folder holds.
            overwrite: replace it.

        Raises:
            OutputExistsError: the folder holds a run, and neither was asked for.
        """
        self.folder = Path(folder)
        if not resume:
            try:
                output_folder(self.folder, overwrite=overwrite)
            except OutputExistsError as error:
                raise OutputExistsError(f"{error}; or go on with it: --resume") from None
        self.folder.mkdir(parents=True, exist_ok=True)
        self.console = console
        self.seconds: dict[str, float] = {}

    def stage(self, name: str, make: Callable[[Path, bool], object], load: Callable[[Path], Made]) -> Made:
        """Do a stage unless it is done, then load what it made.

        Args:
            name: of the stage and its folder, such as "round-1/reward".
            make: called with the folder and whether an earlier, killed attempt left something in it.
            load: reads the finished stage back, also right after making it, so that both ways are one.
        """
        path = self.folder / name
        mark = path / DONE
        if not mark.is_file():
            left = path.is_dir() and any(path.iterdir())
            self.console.print(f"[bold]{name}[/bold]" + (" (taken up again)" if left else ""))
            started = time.perf_counter()
            make(path, left)
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
