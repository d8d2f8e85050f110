"""Tables as rows: comma- and tab-separated text, Parquet.

Knows: cells. Does not know: which rows are of use to whom. A cell of a text file is text, and becomes a value by the
rule of :func:`typed_columns`.
"""

from __future__ import annotations

import csv
import datetime
import decimal
import io
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lm_gym.errors import DataError
from lm_gym.tools.extras import require
from lm_gym.tools.json_values import parse_json

__all__ = ["parquet_rows", "plain_row", "separated_rows"]

TEXT_COLUMN = re.compile(
    r"prompt|chosen|rejected|completion|text|instruction|input|output|system|comment|annotator|question|history|[ab]"
    r"|(response|answer|human_ref)s?_?[0-9abAB]?"
)
"""Names of columns that hold text even where every cell looks like a number."""


def separated_rows(text: str, *, delimiter: str, name: str) -> Iterator[dict[str, Any] | DataError]:
    """The rows of a table with a header; in the place of one with too many or too few cells, the error.

    A column without a name (the index that data frames write) is left out.

    Raises:
        DataError: no header, two columns of one name, or quotes that never end.
    """
    limit = csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    try:
        lines = [line for line in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True) if line]
    except csv.Error as error:
        raise DataError(
            f"{name}: must be a table with a header and quoted cells; reading it failed: {error}"
        ) from error
    finally:
        csv.field_size_limit(limit)
    if not lines:
        return
    header, *body = lines
    named = [column for column in header if column]
    if len(set(named)) < len(named):
        twice = next(column for column in named if named.count(column) > 1)
        raise DataError(f"{name}: every column must have a name of its own, got {twice!r} twice; rename one")
    whole = [cells for cells in body if len(cells) == len(header)]
    columns = {column: _typed(column, [cells[place] for cells in whole]) for place, column in enumerate(header)}
    number = 0
    for cells in body:
        if len(cells) != len(header):
            yield DataError(
                f"must have a cell for each of the {len(header)} columns, got {len(cells)}; quote cells with separators"
            )
            continue
        row = {column: values[number] for column, values in columns.items() if column}
        yield {column: value for column, value in row.items() if value is not None}
        number += 1


def _typed(name: str, cells: list[str]) -> list[Any]:
    """The values of a column. An empty cell is no value, and an empty text in a column of text.

    Cells become lists or objects where each is one in JSON; numbers, true or false where each is one and the name is
    none that :data:`TEXT_COLUMN` fits; and text else.
    """
    is_text = TEXT_COLUMN.fullmatch(name) is not None
    kinds: tuple[type, ...] = (list, dict) if is_text else (list, dict, int, float, bool)
    values: list[Any] = []
    for cell in cells:
        try:
            value = parse_json(cell.lower() if cell in ("True", "False") else cell) if cell.strip() else None
        except DataError:
            break
        if value is not None and not isinstance(value, kinds):
            break
        values.append(value)
    else:
        if any(value is not None for value in values):
            return values
    return list(cells) if is_text else [cell or None for cell in cells]


def parquet_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a Parquet file, batch by batch.

    Raises:
        MissingExtraError: pyarrow is not installed.
        DataError: the file is no Parquet.
    """
    parquet = require("pyarrow.parquet", extra="data", purpose=f"{path}: a Parquet file")
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches():
                yield from map(plain_row, batch.to_pylist())
    except (OSError, ValueError) as error:  # pyarrow's errors are both
        raise DataError(f"{path}: must be a Parquet file; reading it failed: {error}") from error


def plain_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of an Arrow table with plain values; a null is a key that the row does not have."""
    found: dict[str, Any] = _plain(row)
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items() if each is not None}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, datetime.datetime | datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, decimal.Decimal):
        return float(value)
    return value
