"""Files of judgements: rows in the project's own form, which holds everything, or in the form of another tool.

Knows: the keys of the own form, both ways; ``forms`` knows the others. A row that cannot be read is an error
with its file and line, or is counted and listed. No key of a row is dropped: what no field holds is kept in
``Judgement.columns`` and counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

from lm_gym.errors import DataError
from lm_gym.sources.rows import source_rows
from lm_gym.tools.files import write_jsonl

from .forms.foreign import read_foreign, read_vote
from .forms.message_trees import MessageRows
from .forms.sides import Row, as_list, require_keys
from .record import KINDS, Judgement, Ranks, Response, Verdict, Votes, require_judgements

__all__ = [
    "JudgementFile",
    "SkippedRow",
    "judgement_from_row",
    "load_judgements",
    "response_from_row",
    "response_row",
    "save_judgements",
    "to_row",
]

FIELDS = {kind: tuple(field.name for field in fields(verdict)) for kind, verdict in KINDS.items()}
"""Keys of each kind of verdict in a row of the project's own form."""
OPTIONAL = ("comment", "overall_rating", "margin", "annotator", "origin", "columns")


HOW_TO_SKIP = " (--skip-bad of lm-gym reward, or skip_bad=True, lists bad rows and goes on)"


class SkippedRow(NamedTuple):
    """A row that could not be read."""

    where: str
    """File and line."""
    reason: str
    """The error."""


class JudgementFile(NamedTuple):
    """The contents of some files of judgements."""

    judgements: list[Judgement]
    """Every row that could be read, in order."""
    skipped: list[SkippedRow]
    """Every other row; empty unless bad rows were to be skipped."""
    columns: dict[str, int]
    """Keys that no field of a judgement holds, and how many rows have them: kept in ``Judgement.columns``, read by no
    loss."""
    without_text: int
    """Judgements with a response without text, such as an empty ``rejected`` or ``completion``. They are used: a policy
    can emit nothing."""


def load_judgements(source: Any, *, skip_bad: bool = False) -> JudgementFile:
    """Read judgements whose rows have any of the known forms, mixed at will.

    Args:
        source: a file or several (:mod:`lm_gym.sources.rows` says of which kinds), a ``datasets.Dataset``, or a list of
            rows.
        skip_bad: list bad rows instead of raising.

    Raises:
        DataError: a row cannot be read (the message gives file and line), or no row can; or a file cannot as a whole.
    """
    files: list[Any] = [source]
    if isinstance(source, list | tuple) and all(isinstance(each, str | Path) for each in source):
        files = list(source)
    judgements: list[Judgement] = []
    skipped: list[SkippedRow] = []
    for where, found in (each for file in files for each in _read(file)):
        if not isinstance(found, DataError):
            judgements += found
        elif skip_bad:
            skipped.append(SkippedRow(where, str(found)))
        else:
            raise DataError(f"{where}: {found}{HOW_TO_SKIP}") from found
    if not judgements:
        names = ", ".join(str(file) if isinstance(file, str | Path) else "the rows given" for file in files)
        raise DataError(
            f"judgements: must hold at least one usable row, got {len(skipped)} bad rows in {names or 'no files'}"
            + (f"; the first: {skipped[0].reason}" if skipped else "")
        )
    columns = Counter(key for one in judgements for key in one.columns)
    without_text = sum(not all(text.strip() for text in one.texts) for one in judgements)
    return JudgementFile(judgements, skipped, dict(columns), without_text)


def _read(source: Any) -> Iterator[tuple[str, list[Judgement] | DataError]]:
    """The judgements of every row, or what is wrong with it; rows of single messages are told at the end."""
    messages = MessageRows()
    for where, row, fault in source_rows(source, name="judgements", plain=True):
        try:
            if fault is not None:
                raise DataError(fault)
            if messages.take(row):
                messages.add(where, row)
                continue
            found = _judgements_from_row(row)
        except DataError as error:
            yield where, error
        else:
            yield where, found
    for where, ranking in messages.judgements():
        yield where, ranking if isinstance(ranking, DataError) else [ranking]


def save_judgements(path: str | Path, judgements: Iterable[Judgement]) -> Path:
    """Write judgements as JSON Lines in the project's own form, whole or not at all.

    Raises:
        DataError: they are no judgements.
    """
    return write_jsonl(path, map(to_row, require_judgements("save_judgements", judgements)))


def to_row(judgement: Judgement) -> dict[str, Any]:
    """A judgement in the project's own form; what is unset is left out."""
    row: dict[str, Any] = {
        "kind": judgement.kind,
        "prompt": judgement.prompt,
        "responses": [response_row(response) for response in judgement.responses],
    }
    if isinstance(judgement.verdict, Votes):
        row["votes"] = [
            _set(vote, ("winner", "comment", "annotator", "overall_rating")) for vote in judgement.verdict.votes
        ]
    else:
        row |= {name: _plain(getattr(judgement.verdict, name)) for name in FIELDS[judgement.kind]}
    row |= _set(judgement, OPTIONAL)
    return {key: value for key, value in row.items() if (key, value) not in (("origin", "labelling"), ("columns", {}))}


def response_row(response: Response) -> str | dict[str, Any]:
    """A response in the project's own form: its text, or an object where more is known of it."""
    found = _set(response, ("text", "model", "version"))
    return response.text if len(found) == 1 else found


def _set(subject: Any, names: Sequence[str]) -> dict[str, Any]:
    return {name: getattr(subject, name) for name in names if getattr(subject, name) is not None}


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def judgement_from_row(row: Row) -> Judgement:
    """Read one row of any known form; a row with ``kind`` is in the project's own.

    Raises:
        DataError: the keys fit no form, or what they hold is no judgement, or more than one.
    """
    if not isinstance(row, Mapping):
        raise DataError(f"a row must be an object with keys, got {row!r}")
    found = _judgements_from_row(row)
    if len(found) != 1:
        raise DataError(f"must hold one judgement, got {len(found)}; read it with load_judgements([row])")
    return found[0]


def _judgements_from_row(row: Row) -> list[Judgement]:
    return [_own(row)] if "kind" in row else read_foreign(row)


def _own(row: Row) -> Judgement:
    kind = row["kind"]
    if not isinstance(kind, str) or kind not in KINDS:
        raise DataError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}")
    require_keys(row, ("prompt", "responses", *FIELDS[kind]))
    known = {"kind", "prompt", "responses", *FIELDS[kind], *OPTIONAL}
    extra = sorted(set(row) - known)
    if extra:
        raise DataError(f"a row of kind {kind!r} has no key {extra[0]!r}; it has {', '.join(sorted(known))}")
    responses = tuple(response_from_row(one) for one in as_list(row["responses"], "responses"))
    rest = {name: row[name] for name in OPTIONAL if name in row}
    return Judgement(prompt=row["prompt"], responses=responses, verdict=_verdict(kind, row), **rest)


def response_from_row(value: Any) -> Response:
    """Read :func:`response_row`. Raises: DataError: it is none."""
    if isinstance(value, Mapping):
        unknown = sorted(set(value) - {"text", "model", "version"})
        if unknown or "text" not in value:
            raise DataError(f"a response has the keys text, model and version, got {sorted(value)}")
        return Response(**value)
    return Response(text=value)


def _verdict(kind: str, row: Row) -> Verdict:
    if kind == "votes":
        return Votes(tuple(read_vote(vote, "winner") for vote in as_list(row["votes"], "votes")))
    if kind == "ranks":
        return Ranks(tuple(as_list(row["ranks"], "ranks")))
    return KINDS[kind](*(row[name] for name in FIELDS[kind]))
