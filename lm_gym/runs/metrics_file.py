"""The file of a run's metrics: JSON Lines, one per iteration or logged step.

Knows: its name, its lines, and that a killed process may leave half a line at its end. Does not know: what was
measured.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from lm_gym.errors import ArtifactError, DataError
from lm_gym.tools.files import reading, write_jsonl
from lm_gym.tools.json_values import parse_object

__all__ = ["METRICS_FILE", "drop_metrics", "read_metrics"]

METRICS_FILE = "metrics.jsonl"
"""Its name in a run folder."""
logger = logging.getLogger(__name__)


def read_metrics(path: Path, *, count: str | None = None) -> tuple[dict[str, Any], ...]:
    """The rows of a file of metrics; none where there is no file.

    A last line without its end, which a kill cut short or which is being written, is left out with a warning.

    Args:
        path: of the file.
        count: key of a whole number that every row must have, "iteration" or "step"; None asks for none.

    Raises:
        ArtifactError: the file cannot be read, or a line is no such row; it names the line.
    """
    if not path.is_file():
        return ()
    with reading(path, "must be a file of metrics", remedy="delete it, and its run goes on without the earlier lines"):
        *lines, last = path.read_bytes().split(b"\n")
    rows = []
    for number, line in enumerate([*lines, last], start=1):
        if not line.strip():
            continue
        try:
            rows.append(_row(line, count))
        except (UnicodeDecodeError, DataError) as error:
            if number > len(lines):
                logger.warning("%s, line %d: is cut short, and is left out", path, number)
                break
            raise ArtifactError(
                f"{path}, line {number}: must be the metrics of one iteration or step, and reading it failed: {error}; "
                "delete this line"
            ) from error
    return tuple(rows)


def drop_metrics(path: Path, *, count: str, after: int) -> tuple[dict[str, Any], ...]:
    """Drop the rows that a resumed run writes again.

    Args:
        path: of the file; nothing is written where there is none.
        count: key of the number of a row.
        after: the last number that stays.

    Returns: the rows that stay.

    Raises:
        ArtifactError: see :func:`read_metrics`; the file is as it was.
    """
    kept = tuple(row for row in read_metrics(path, count=count) if row[count] <= after)
    if path.is_file():
        write_jsonl(path, kept)
    return kept


def _row(line: bytes, count: str | None) -> dict[str, Any]:
    row = parse_object(line.decode("utf-8"))
    number = row.get(count) if count is not None else 0
    if not isinstance(number, int) or isinstance(number, bool):
        raise DataError(f'must have a whole number under "{count}", got {number!r}')
    return row
