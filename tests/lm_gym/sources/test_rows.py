"""One reader for every container: the same rows come out of each, and bad ones are named and passed over."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from lm_gym.errors import DataError, MissingExtraError
from lm_gym.sources.rows import read_rows, source_rows
from lm_gym.tools.json_values import MAX_DEPTH

ROWS: list[dict[str, Any]] = [
    {"prompt": "Why?", "chosen": "Because,\nof course.", "rejected": "", "margin": 0.5, "tags": ["a", "b"]},
    {"prompt": "007", "chosen": '"quoted"', "rejected": "ä", "margin": 1.5, "tags": ["c"]},
]


def write(folder: Path, name: str, rows: list[dict[str, Any]]) -> Path:
    path = folder / name
    kind = name.removesuffix(".gz")
    if kind.endswith(".parquet"):
        arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        parquet.write_table(arrow.Table.from_pylist(rows), path)
        return path
    opener = gzip.open if name.endswith(".gz") else open
    with opener(path, "wt", encoding="utf-8-sig", newline="") as file:
        if kind.endswith((".csv", ".tsv")):
            table = csv.DictWriter(file, list(rows[0]), delimiter="," if kind.endswith(".csv") else "\t")
            table.writeheader()
            table.writerows(row | {"tags": json.dumps(row["tags"])} for row in rows)
        elif kind == "list.json":
            json.dump(rows, file, indent=2)
        else:
            file.writelines(json.dumps(row) + "\n" for row in rows)
    return path


NAMES = ("a.jsonl", "a.jsonl.gz", "list.json", "list.json.gz", "lines.json", "a.csv", "a.csv.gz", "a.tsv", "a.parquet")


@pytest.mark.parametrize("name", NAMES)
def test_every_container_gives_the_same_rows_and_no_byte_order_mark(name: str, tmp_path: Path) -> None:
    assert read_rows(write(tmp_path, name, ROWS)) == ROWS
    assert read_rows(str(tmp_path / name)) == ROWS


def test_data_sets_give_the_rows_and_leave_out_what_is_null() -> None:
    datasets = pytest.importorskip("datasets")
    made = datasets.Dataset.from_list([*ROWS, {"prompt": "p", "chosen": None}])
    assert read_rows(made) == [*ROWS, {"prompt": "p"}]
    assert read_rows(made.to_iterable_dataset()) == [*ROWS, {"prompt": "p"}]
    with pytest.raises(DataError, match="rows: must be one split of a data set, got train, test; choose one by name"):
        read_rows(datasets.DatasetDict(train=made, test=made))
    frame = made.to_pandas()
    with pytest.raises(DataError, match=r"got DataFrame; put rows into a list .*to_dict\('records'\)"):
        read_rows(frame)


def test_lists_of_rows_are_read_and_what_is_no_row_is_named() -> None:
    assert read_rows(ROWS) == ROWS
    with pytest.raises(DataError, match="judgements, row 2: must be an object with keys, got str"):
        read_rows([ROWS[0], "text"], name="judgements")
    for wrong in (3, {"prompt": "p"}, b"x"):
        with pytest.raises(DataError, match=r"must be a file, a datasets\.Dataset or a list of rows"):
            read_rows(wrong)
    with pytest.raises(DataError, match="rows: must hold at least one row, got none"):
        read_rows([])


def test_cells_of_a_table_become_values_column_by_column(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('"",completion,label,stars,note,ranks\n0,4,True,4,7,"[1, 2]"\n1,5,False,,seven,"[2, 1]"\n')
    assert read_rows(path) == [
        {"completion": "4", "label": True, "stars": 4, "note": "7", "ranks": [1, 2]},
        {"completion": "5", "label": False, "note": "seven", "ranks": [2, 1]},
    ]


def test_a_long_cell_is_read(tmp_path: Path) -> None:
    limit = csv.field_size_limit()
    path = tmp_path / "a.csv"
    path.write_text("prompt\n" + "x" * 300_000 + "\n")
    assert len(read_rows(path)[0]["prompt"]) == 300_000
    assert csv.field_size_limit() == limit


ABSURD = {
    "1e400": ('{"prompt": "p", "n": 1e400}', "'n' must hold finite numbers, got infinity"),
    "NaN": ('{"prompt": "p", "n": [NaN]}', "'n' must hold finite numbers, got NaN"),
    "10**5000": ('{"prompt": "p", "n": 1' + "0" * 5000 + "}", "'n' must hold finite numbers, got infinity (or a num"),
    "deep": ('{"prompt": ' + "[" * 100_000 + "]" * 100_000 + "}", f"must nest at most {MAX_DEPTH} deep"),
    "deeper than allowed": ('{"prompt": ' + "[" * 101 + "]" * 101 + "}", f"must nest at most {MAX_DEPTH} deep"),
    "surrogate": ('{"prompt": "\\ud83d"}', "'prompt': must be Unicode text, got half of a surrogate pair"),
    "surrogate in a key": ('{"\\ud83d": 1}', "a key: must be Unicode text"),
    "no object": ("[1]", "must be a JSON object, got list"),
    "half a row": ('{"prompt": ', "must be one JSON object"),
}


@pytest.mark.parametrize("case", ABSURD)
def test_absurd_rows_are_faults_of_one_line_and_reading_goes_on(case: str, tmp_path: Path) -> None:
    line, message = ABSURD[case]
    path = tmp_path / "a.jsonl"
    path.write_text('{"prompt": "first"}\n\n' + line + '\n{"prompt": "last"}\n')
    first, bad, last = source_rows(path)
    assert (first.row, last.row) == ({"prompt": "first"}, {"prompt": "last"})
    assert (bad.where, bad.row) == (f"{path}, line 3", {})
    assert message in (bad.fault or "")
    with pytest.raises(DataError, match=r"a\.jsonl, line 3: "):
        read_rows(path)


def test_absurd_values_in_lists_of_rows_are_refused_too() -> None:
    endless: list[Any] = []
    endless.append(endless)
    for value in (10**5000, -(10**5000), float("nan"), "\ud83d", endless):
        with pytest.raises(DataError, match="rows, row 2: 'n'"):
            read_rows([{"prompt": "p"}, {"n": value}])
    with pytest.raises(DataError, match="every key must be text, got 3"):
        read_rows([{3: "x"}])


BROKEN: dict[str, tuple[str, bytes, str]] = {
    "another ending": ("a.txt", b"x", "must end in .jsonl, .json, .csv, .tsv, .parquet"),
    "no UTF-8": ("a.csv", "prompt\nä".encode("utf-16"), "must be text in UTF-8"),
    "no gzip": ("a.csv.gz", b"prompt\n", "must be text in UTF-8, plain or gzip"),
    "no Parquet": ("a.parquet", b"prompt\n", "must be a Parquet file"),
    "two columns of one name": ("a.csv", b"prompt,prompt\na,b\n", "got 'prompt' twice"),
    "a quote that never ends": ("a.csv", b'prompt\n"a\n', "must be a table with a header and quoted cells"),
    "a row of another length": (
        "a.csv",
        b"prompt,n\na,1\nb\n",
        "row 2: must have a cell for each of the 2 columns, got 1",
    ),
    "a header alone": ("a.csv", b"prompt\n", "must hold at least one row"),
    "an empty file": ("a.json", b"", "must hold at least one row, got an empty file"),
    "no list": ("a.json", b"3", "must be a list of JSON objects, got int"),
    "a list of texts": ("a.json", b'["x"]', "row 1: must be a JSON object, got str"),
    "half a list": ("a.json", b'[{"a": 1}', "must be a list of JSON objects, or one on each line"),
    "a deep list": ("a.json", b"[" * 100_000, "must nest at most"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_file_that_cannot_be_read_is_named(case: str, tmp_path: Path) -> None:
    name, content, message = BROKEN[case]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_rows(tmp_path / name)
    assert message in str(caught.value)
    assert str(tmp_path / name) in str(caught.value)


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    for name in NAMES:
        with pytest.raises(DataError, match="and there is no such file"):
            read_rows(tmp_path / "gone" / name)
    with pytest.raises(DataError, match=r"must be a file of rows, got a folder"):
        read_rows(tmp_path)


def test_parquet_without_its_reader_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
    (tmp_path / "a.parquet").write_bytes(b"x")
    with pytest.raises(MissingExtraError, match=r"lm-gym\[data\]"):
        read_rows(tmp_path / "a.parquet")
