"""Judgements as rows of JSON: the project's own form, and the forms that such data has elsewhere.

Knows: which keys make which form, both ways. A row that cannot be read is an error with its file and line, or is
counted and listed; a judgement that a form cannot hold is an error. Nothing is dropped in silence.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

from lm_gym.errors import ConfigError, DataError
from lm_gym.files import jsonl_lines, write_jsonl

from .judgements import KINDS, Choice, Judgement, Ranks, Response, Thumb, Value, Verdict, Vote, Votes
from .transcripts import answer_of, is_transcript, messages_of, split_transcript, transcript_of

__all__ = [
    "FORMS",
    "JudgementFile",
    "SkippedRow",
    "export_rows",
    "judgement_from_row",
    "load_judgements",
    "save_judgements",
    "to_row",
]

Row = Mapping[str, Any]
FIELDS = {kind: tuple(field.name for field in fields(verdict)) for kind, verdict in KINDS.items()}
"""Keys of each kind of verdict in a row of the project's own form."""
OPTIONAL = ("comment", "overall_rating", "annotator", "origin")


class SkippedRow(NamedTuple):
    """A row that could not be read."""

    where: str
    """File and line."""
    reason: str
    """The error."""


class JudgementFile(NamedTuple):
    """What some files held."""

    judgements: list[Judgement]
    """Every row that could be read, in order."""
    skipped: list[SkippedRow]
    """Every other row; empty unless bad rows were to be skipped."""


def load_judgements(paths: str | Path | Sequence[str | Path], *, skip_bad: bool = False) -> JudgementFile:
    """Read ``.jsonl`` or ``.jsonl.gz`` files whose rows have any of the known forms, mixed at will.

    Args:
        paths: one file or several.
        skip_bad: list bad rows instead of raising.

    Raises:
        DataError: a row cannot be read (the message gives file and line), or no row can.
    """
    files = [paths] if isinstance(paths, str | Path) else list(paths)
    judgements: list[Judgement] = []
    skipped: list[SkippedRow] = []
    for path in files:
        for number, line in jsonl_lines(path):
            where = f"{path}, line {number}"
            try:
                judgements.append(judgement_from_row(_object(line)))
            except DataError as error:
                if not skip_bad:
                    raise DataError(f"{where}: {error}") from error
                skipped.append(SkippedRow(where, str(error)))
    if not judgements:
        raise DataError(
            f"judgements: must hold at least one usable row, got {len(skipped)} bad rows in "
            f"{', '.join(map(str, files)) or 'no files'}" + (f"; the first: {skipped[0].reason}" if skipped else "")
        )
    return JudgementFile(judgements, skipped)


def _object(line: str) -> Row:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"must be one JSON object, got {line.strip()[:60]!r} ({error})") from error
    if not isinstance(row, dict):
        raise DataError(f"must be a JSON object, got {type(row).__name__}")
    return row


def save_judgements(path: str | Path, judgements: Iterable[Judgement]) -> Path:
    """Write judgements as JSON Lines in the project's own form, whole or not at all."""
    return write_jsonl(path, map(to_row, judgements))


def to_row(judgement: Judgement) -> dict[str, Any]:
    """A judgement in the project's own form; what is unset is left out."""
    row: dict[str, Any] = {
        "kind": judgement.kind,
        "prompt": judgement.prompt,
        "responses": [_response_row(response) for response in judgement.responses],
    }
    if isinstance(judgement.verdict, Votes):
        row["votes"] = [_set(vote, ("winner", "comment", "annotator")) for vote in judgement.verdict.votes]
    else:
        row |= {name: _plain(getattr(judgement.verdict, name)) for name in FIELDS[judgement.kind]}
    row |= _set(judgement, OPTIONAL)
    if judgement.origin == "labelling":
        del row["origin"]
    return row


def _response_row(response: Response) -> str | dict[str, Any]:
    found = _set(response, ("text", "model", "version"))
    return response.text if len(found) == 1 else found


def _set(subject: Any, names: Sequence[str]) -> dict[str, Any]:
    return {name: getattr(subject, name) for name in names if getattr(subject, name) is not None}


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def judgement_from_row(row: Row) -> Judgement:
    """Read one row of any known form; a row with ``kind`` is in the project's own.

    Raises:
        DataError: the keys fit no form, or what they hold is no judgement.
    """
    if "kind" in row:
        return _own(row)
    for form in FORMS.values():
        if form.fits(row):
            return form.read(row)
    raise DataError(
        f"must have the keys of a known form ({'; '.join(form.keys for form in FORMS.values())}), got {sorted(row)}"
    )


def _own(row: Row) -> Judgement:
    kind = row["kind"]
    if kind not in KINDS:
        raise DataError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}")
    _need(row, ("prompt", "responses", *FIELDS[kind]))
    known = {"kind", "prompt", "responses", *FIELDS[kind], *OPTIONAL}
    extra = sorted(set(row) - known)
    if extra:
        raise DataError(f"a row of kind {kind!r} has no key {extra[0]!r}; it has {', '.join(sorted(known))}")
    if isinstance(row["responses"], str) or not isinstance(row["responses"], Sequence):
        raise DataError(f"responses must be a list, got {row['responses']!r}")
    responses = tuple(_response(one) for one in row["responses"])
    rest = {name: row[name] for name in OPTIONAL if name in row}
    return Judgement(prompt=row["prompt"], responses=responses, verdict=_verdict(kind, row), **rest)


def _response(value: Any) -> Response:
    if isinstance(value, Mapping):
        unknown = sorted(set(value) - {"text", "model", "version"})
        if unknown or "text" not in value:
            raise DataError(f"a response has the keys text, model and version, got {sorted(value)}")
        return Response(**value)
    return Response(text=value)


def _verdict(kind: str, row: Row) -> Verdict:
    if kind == "votes":
        return Votes(tuple(_vote(vote, "winner") for vote in _list(row["votes"], "votes")))
    if kind == "ranks":
        return Ranks(tuple(_list(row["ranks"], "ranks")))
    return KINDS[kind](*(row[name] for name in FIELDS[kind]))


def _vote(value: Any, winner: str) -> Vote:
    if not isinstance(value, Mapping) or winner not in value:
        raise DataError(f"a vote must be an object with {winner!r}, got {str(value)[:60]}")
    return Vote(value[winner], value.get("comment"), value.get("annotator"))


def _list(value: Any, name: str) -> Sequence[Any]:
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise DataError(f"{name} must be a list, got {value!r}")
    return value


def _need(row: Row, keys: Sequence[str]) -> None:
    missing = [key for key in keys if key not in row]
    if missing:
        raise DataError(f"has no {missing[0]!r}, got the keys {sorted(row)}")


class Form(NamedTuple):
    """A form of rows that is used elsewhere."""

    keys: str
    """How a row looks, for messages."""
    fits: Callable[[Row], bool]
    """Whether a row is meant to be of this form."""
    read: Callable[[Row], Judgement]
    """Raises: DataError: it is not."""
    write: Callable[[Judgement], dict[str, Any]]
    """Raises: DataError: the form cannot hold this judgement."""


def export_rows(judgements: Iterable[Judgement], form: str) -> list[dict[str, Any]]:
    """Write judgements in the form of another tool.

    Args:
        judgements: what to write.
        form: a key of :data:`FORMS`.

    Raises:
        ConfigError: no such form.
        DataError: the form cannot hold a judgement.
    """
    if form not in FORMS:
        raise ConfigError(f"export: form must be one of {', '.join(FORMS)}, got {form!r}")
    rows = []
    for number, judgement in enumerate(judgements, start=1):
        try:
            rows.append(FORMS[form].write(judgement))
        except DataError as error:
            raise DataError(f"export as {form}, judgement {number}: {error}") from error
    return rows


def _cannot(judgement: Judgement, needed: str) -> DataError:
    return DataError(f"this form holds {needed}, got a judgement of kind {judgement.kind!r}; use save_judgements()")


def _bare(judgement: Judgement) -> Judgement:
    """Raises: DataError: it says more than a form without room for it can hold."""
    said = [name for name in OPTIONAL if getattr(judgement, name) not in (None, "labelling")]
    said += [name for name in ("model", "version") if any(getattr(r, name) for r in judgement.responses)]
    if said:
        raise DataError(f"this form has no room for {said[0]!r}; use save_judgements(), or drop it yourself")
    return judgement


def _prompt_and(texts: Sequence[Any], prompt: Any) -> tuple[str, list[str]]:
    if isinstance(prompt, str):
        return prompt, list(texts)
    return transcript_of(_list(prompt, "prompt")), [answer_of(text) for text in texts]


def _read_pair(row: Row) -> Judgement:
    _need(row, ("prompt", "chosen", "rejected"))
    prompt, texts = _prompt_and((row["chosen"], row["rejected"]), row["prompt"])
    return Judgement.of(prompt, texts, Choice("a"))


def _chosen_rejected(judgement: Judgement) -> tuple[str, str]:
    if not isinstance(judgement.verdict, Choice) or judgement.verdict.winner not in ("a", "b"):
        raise _cannot(judgement, "a choice with a winner")
    first, second = _bare(judgement).texts
    return (first, second) if judgement.verdict.winner == "a" else (second, first)


def _write_pair(judgement: Judgement) -> dict[str, Any]:
    chosen, rejected = _chosen_rejected(judgement)
    return {"prompt": judgement.prompt, "chosen": chosen, "rejected": rejected}


def _message(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def _write_conversation(judgement: Judgement) -> dict[str, Any]:
    chosen, rejected = map(_message, _chosen_rejected(judgement))
    return {"prompt": messages_of(judgement.prompt), "chosen": chosen, "rejected": rejected}


def _read_transcripts(row: Row) -> Judgement:
    _need(row, ("chosen", "rejected"))
    sides = [row["chosen"], row["rejected"]]
    if not all(isinstance(side, str) for side in sides):  # the conversational form with the prompt inside
        sides = [transcript_of(_list(side, "chosen")[:-1]) + " " + answer_of(side[-1:]) for side in sides]
    (prompt, chosen), (other, rejected) = map(split_transcript, sides)
    if prompt != other:
        raise DataError("chosen and rejected must be one conversation up to the last answer, and they differ earlier")
    return Judgement.of(prompt, (chosen, rejected), Choice("a"))


def _write_transcripts(judgement: Judgement) -> dict[str, Any]:
    chosen, rejected = _chosen_rejected(judgement)
    if not is_transcript(judgement.prompt):
        raise DataError(f"this form holds transcripts (\\n\\nHuman: ...), got the prompt {judgement.prompt[:60]!r}")
    return {"chosen": f"{judgement.prompt} {chosen}", "rejected": f"{judgement.prompt} {rejected}"}


def _read_thumb(row: Row) -> Judgement:
    _need(row, ("prompt", "completion", "label"))
    prompt, texts = _prompt_and((row["completion"],), row["prompt"])
    return Judgement.of(prompt, texts, Thumb(row["label"]))


def _write_thumb(judgement: Judgement) -> dict[str, Any]:
    if not isinstance(judgement.verdict, Thumb):
        raise _cannot(judgement, "thumbs")
    return {"prompt": judgement.prompt, "completion": _bare(judgement).texts[0], "label": judgement.verdict.up}


def _read_ranks(row: Row) -> Judgement:
    _need(row, ("prompt", "responses", "ranks"))
    return Judgement.of(row["prompt"], _list(row["responses"], "responses"), Ranks(tuple(_list(row["ranks"], "ranks"))))


def _write_ranks(judgement: Judgement) -> dict[str, Any]:
    if not isinstance(judgement.verdict, Ranks):
        raise _cannot(judgement, "rankings")
    texts, ranks = list(_bare(judgement).texts), list(judgement.verdict.ranks)
    return {"prompt": judgement.prompt, "responses": texts, "ranks": ranks}


def _read_votes(row: Row) -> Judgement:
    _need(row, ("prompt", "a", "b", "votes"))
    votes = tuple(_vote(vote, "choice") for vote in _list(row["votes"], "votes"))
    return Judgement.of(row["prompt"], (row["a"], row["b"]), Votes(votes))


def _write_votes(judgement: Judgement) -> dict[str, Any]:
    if not isinstance(judgement.verdict, Votes):
        raise _cannot(judgement, "votes")
    first, second = _bare(judgement).texts
    votes = [{"choice": vote.winner} | _set(vote, ("comment", "annotator")) for vote in judgement.verdict.votes]
    return {"prompt": judgement.prompt, "a": first, "b": second, "votes": votes}


def _read_triplet(row: Row) -> Judgement:
    _need(row, ("input", "output", "reward"))
    return Judgement.of(row["input"], (row["output"],), Value(row["reward"]))


def _write_triplet(judgement: Judgement) -> dict[str, Any]:
    if not isinstance(judgement.verdict, Value):
        raise _cannot(judgement, "real-valued rewards")
    return {"input": judgement.prompt, "output": _bare(judgement).texts[0], "reward": judgement.verdict.reward}


def _has(*keys: str) -> Callable[[Row], bool]:
    return lambda row: any(key in row for key in keys)


FORMS: dict[str, Form] = {
    "pairs": Form(
        '{"prompt", "chosen", "rejected"}',
        lambda row: "prompt" in row and ("chosen" in row or "rejected" in row),
        _read_pair,
        _write_pair,
    ),
    "conversations": Form(
        '{"prompt": [messages], "chosen": [message], "rejected": [message]}',
        lambda row: False,  # read by "pairs"
        _read_pair,
        _write_conversation,
    ),
    "transcripts": Form('{"chosen", "rejected"}', _has("chosen", "rejected"), _read_transcripts, _write_transcripts),
    "unpaired": Form('{"prompt", "completion", "label"}', _has("completion", "label"), _read_thumb, _write_thumb),
    "votes": Form('{"prompt", "a", "b", "votes"}', _has("votes"), _read_votes, _write_votes),
    "rankings": Form('{"prompt", "responses", "ranks"}', _has("responses", "ranks"), _read_ranks, _write_ranks),
    "triplets": Form('{"input", "output", "reward"}', _has("input", "output"), _read_triplet, _write_triplet),
}
"""The forms of other tools, by name, in the order in which a row is tried."""
