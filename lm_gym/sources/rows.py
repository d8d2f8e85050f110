"""The one reader of rows: files, data sets, and lists of rows, for prompts, fine-tuning and judgements alike.

========================== ==========================================================================================
``.jsonl``                 one JSON object per line; blank lines are skipped
``.json``                  a list of objects, one object, or JSON Lines under this name
``.csv``, ``.tsv``         a table with a header (:mod:`lm_gym.sources.tables`)
``.parquet``               needs ``pip install 'lm-gym[data]'``
``datasets.Dataset``       or one that streams
a list                     of objects
========================== ==========================================================================================

All but Parquet may be compressed: ``.jsonl.gz``. A byte-order mark is no part of a text. Every row is held to
:func:`lm_gym.tools.json_values.check_row`.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from lm_gym.errors import ConfigError, DataError
from lm_gym.tools.files import jsonl_lines
from lm_gym.tools.json_values import check_row, parse_json, parse_object
from lm_gym.tools.settings import Place, checked

from .tables import parquet_rows, plain_row, separated_rows

__all__ = ["SUFFIXES", "SourceRow", "is_row_file", "read_rows", "source_rows"]

SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
"""Ends of the names of files of rows; ``.gz`` may follow each but the last."""
ENDINGS = (*SUFFIXES, *(f"{suffix}.gz" for suffix in SUFFIXES if suffix != ".parquet"))


class SourceRow(NamedTuple):
    """One row, or what is wrong with it."""

    where: str
    """File and line, or the place in the list, for messages."""
    row: Mapping[str, Any]
    """The row; empty where there is a fault."""
    fault: str | None = None
    """The reason why it cannot be read; None for a good row."""


def is_row_file(source: Any) -> bool:
    """True for a path, and for a string that ends as a file of rows does."""
    return isinstance(source, Path) or (isinstance(source, str) and source.endswith(ENDINGS))


def source_rows(source: Any, *, name: str = "rows", plain: bool = False) -> Iterator[SourceRow]:
    """Read rows one by one; a bad one is given with its fault, and reading goes on.

    Args:
        source: a file, a ``datasets.Dataset``, or a list of rows.
        name: of rows that come from no file, for messages.
        plain: refuse values that JSON cannot hold.

    Raises:
        DataError: the source is of no known kind, or a file is missing or cannot be read as a whole.
        MissingExtraError: a Parquet file, and its reader is not installed.
    """
    rows = _file_rows(_checked_path(source, name)) if isinstance(source, str | Path) else _given_rows(source, name)
    for where, row, fault in rows:
        if fault is None:
            try:
                check_row(row, plain=plain)
            except DataError as error:
                row, fault = {}, str(error)
        yield SourceRow(where, row, fault)


def read_rows(source: Any, *, name: str = "rows") -> list[dict[str, Any]]:
    """Read every row, and stop at the first bad one.

    Raises:
        DataError: see :func:`source_rows`; a row is bad (the message gives file and line); or there is none.
    """
    rows = []
    for where, row, fault in source_rows(source, name=name):
        if fault is not None:
            raise DataError(f"{where}: {fault}")
        rows.append(dict(row))
    if not rows:
        subject, found = (source, "an empty file") if isinstance(source, str | Path) else (name, "none")
        raise DataError(f"{subject}: must hold at least one row, got {found}")
    return rows


def _given_rows(source: Any, name: str) -> Iterator[SourceRow]:
    if isinstance(source, Mapping) and hasattr(source, "num_rows"):  # a datasets.DatasetDict
        raise DataError(
            f"{name}: must be one split of a data set, got {', '.join(map(str, source))}; choose one by name"
        )
    if isinstance(source, Mapping | bytes) or not isinstance(source, Iterable) or hasattr(source, "iloc"):
        raise DataError(
            f"{name}: must be a file, a datasets.Dataset or a list of rows, got {type(source).__name__}; put rows "
            "into a list (of a data frame: frame.to_dict('records'))"
        )
    from_arrow = hasattr(source, "column_names")
    for number, row in enumerate(source, start=1):
        where = f"{name}, row {number}"
        if isinstance(row, Mapping):
            yield SourceRow(where, plain_row(row) if from_arrow else row)
        else:
            yield SourceRow(where, {}, f"must be an object with keys, got {type(row).__name__}")


def _checked_path(source: str | Path, name: str) -> Path:
    try:
        return Path(checked(name, source, Place))
    except ConfigError as error:
        raise DataError(str(error)) from error


def _file_rows(path: Path) -> Iterator[SourceRow]:
    name = path.name.removesuffix(".gz")
    if path.is_dir():
        raise DataError(
            f"{path}: must be a file of rows, got a folder; name the file, or load it as a datasets.Dataset"
        )
    if not path.name.endswith(ENDINGS):
        raise DataError(f"{path}: must end in {', '.join(SUFFIXES)} (or .gz after it); rename the file")
    if name.endswith(".parquet"):
        yield from _numbered(path, parquet_rows(_existing(path)))
    elif name.endswith((".csv", ".tsv")):
        delimiter = "," if name.endswith(".csv") else "\t"
        yield from _numbered(path, separated_rows(_text(path), delimiter=delimiter, name=str(path)))
    elif name.endswith(".json"):
        yield from _json_rows(path)
    else:
        yield from _lines(path, jsonl_lines(path))


def _numbered(path: Path, rows: Iterable[Any]) -> Iterator[SourceRow]:
    """Rows of a table or list; an error stands in the place of one."""
    for number, row in enumerate(rows, start=1):
        where = f"{path}, row {number}"
        if isinstance(row, Mapping):
            yield SourceRow(where, row)
        else:
            wrong = isinstance(row, DataError)
            yield SourceRow(where, {}, str(row) if wrong else f"must be a JSON object, got {type(row).__name__}")


def _json_rows(path: Path) -> Iterator[SourceRow]:
    text = _text(path)
    lines = [(number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
    if len(lines) > 1 and all(line.lstrip().startswith("{") for _, line in lines):
        yield from _lines(path, iter(lines))  # JSON Lines, which many keep under this name
        return
    if not lines:
        return
    try:
        value = parse_json(text)
    except DataError as error:
        raise DataError(f"{path}: must be a list of JSON objects, or one on each line; {error}") from error
    if not isinstance(value, list | dict):
        raise DataError(f"{path}: must be a list of JSON objects, got {type(value).__name__}; put the rows into a list")
    yield from _numbered(path, value if isinstance(value, list) else [value])


def _lines(path: Path, lines: Iterator[tuple[int, str]]) -> Iterator[SourceRow]:
    for number, line in lines:
        where = f"{path}, line {number}"
        try:
            row = parse_object(line)
        except DataError as error:
            yield SourceRow(where, {}, str(error))
        else:
            yield SourceRow(where, row)


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise DataError(f"{path}: must be a file of rows, and there is no such file")
    return path


def _text(path: Path) -> str:
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(_existing(path), "rt", encoding="utf-8-sig", newline="") as file:
            return str(file.read())
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise DataError(f"{path}: must be text in UTF-8, plain or gzip; reading it failed: {error}") from error
