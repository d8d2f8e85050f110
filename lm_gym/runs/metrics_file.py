"""The file of a run's metrics: JSON Lines, one per iteration or logged step.

Knows: its name and its lines. Does not know: what was measured.
"""

from __future__ import annotations

from pathlib import Path

from lm_gym.tools.files import read_jsonl

__all__ = ["METRICS_FILE", "read_metrics"]

METRICS_FILE = "metrics.jsonl"
"""Its name in a run folder."""


def read_metrics(run_folder: Path) -> tuple[dict[str, float | None], ...]:
    """The metrics of a run, line by line.

    Raises:
        DataError: they cannot be read.
    """
    return tuple(read_jsonl(run_folder / METRICS_FILE))
