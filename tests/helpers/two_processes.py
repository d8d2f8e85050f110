"""Run a program in two processes that meet in one process group of torch.distributed."""

import subprocess
import sys
from pathlib import Path

MEETING = """
import os, sys
import torch
from torch import distributed

torch.set_num_threads(1)
distributed.init_process_group("gloo", init_method="file://" + sys.argv[1], rank=int(os.environ["RANK"]), world_size=2)
"""
PARTING = """
distributed.destroy_process_group()
"""


def printed_by_two(program: str, folder: Path, timeout_s: float = 180) -> list[str]:
    """Run a program as rank 0 and rank 1 at once. Returns: what each of them printed.

    Args:
        program: source text; ``os``, ``sys``, ``torch`` and ``distributed`` are imported, the group is there.
        folder: an empty one, where the two meet.
    """
    started = [
        subprocess.Popen(
            [sys.executable, "-c", MEETING + program + PARTING, str(folder / "meet")],
            env={"RANK": str(rank), "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        outputs = [process.communicate(timeout=timeout_s) for process in started]
    finally:
        for process in started:
            process.kill()  # the other one waits for ever if one fails
    assert [process.returncode for process in started] == [0, 0], outputs
    return [out.strip() for out, _ in outputs]
