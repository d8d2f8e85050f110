"""Forms that rows of judgements have in other tools, read and written.

Knows: which keys make which form, both ways. Every key of a row is read, kept in ``Judgement.columns``, or an error; a
judgement that a form cannot hold is an error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from lm_gym.errors import ConfigError, DataError

from .record import Choice, Judgement, Ranks, Thumb, Value, Vote, Votes
from .transcripts import answer_of, is_transcript, messages_of, split_transcript, transcript_of, with_system

__all__ = ["FORMS", "Row", "as_list", "export_rows", "read_foreign", "read_vote", "require_keys"]

Row = Mapping[str, Any]
NOT_IN_OTHER_FORMS = ("comment", "overall_rating", "annotator")
"""Fields of a judgement that no other form has room for."""


def read_vote(value: Any, winner: str) -> Vote:
    """A vote; its winner stands under the key ``winner``. Raises: DataError: it is none."""
    if not isinstance(value, Mapping) or winner not in value:
        raise DataError(f"a vote must be an object with {winner!r}, got {str(value)[:60]}")
    return Vote(value[winner], value.get("comment"), value.get("annotator"))


def as_list(value: Any, name: str) -> Sequence[Any]:
    """The value. Raises: DataError: it is no list."""
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise DataError(f"{name} must be a list, got {value!r}")
    return value


def require_keys(row: Row, keys: Sequence[str]) -> None:
    """Raises: DataError: a key is missing."""
    missing = [key for key in keys if key not in row]
    if missing:
        raise DataError(f"has no {missing[0]!r}, got the keys {sorted(row)}")


class Form(NamedTuple):
    """A form of rows that is used elsewhere."""

    text: str
    """The form of a row, for messages."""
    keys: tuple[str, ...]
    """The keys of a row."""
    telling: tuple[str, ...]
    """Keys of which any one is enough to read a row as one of this form; none for a form that "pairs" reads."""
    read: Callable[[Row], Judgement]
    """Raises: DataError: the row is not of this form."""
    write: Callable[[Judgement], dict[str, Any]]
    """Raises: DataError: the form cannot hold the judgement."""


def read_foreign(row: Row) -> Judgement:
    """Read a row of one of :data:`FORMS`.

    Beside the keys of its form a row may have ``system`` (a system message, which becomes part of the prompt),
    ``margin`` (beside a pair), ``comment`` and ``annotator``; all others are kept in ``Judgement.columns``.

    Raises:
        DataError: the keys fit no form or two, or what they hold is no judgement.
    """
    form = _form_of(row)
    judgement = form.read(row)
    rest = {key: value for key, value in row.items() if key not in form.keys}
    if (system := rest.pop("system", None)) not in (None, ""):
        judgement = replace(judgement, prompt=with_system(system, judgement.prompt))
    said = {key: rest.pop(key) for key in ("comment", "annotator") if isinstance(rest.get(key), str)}
    margin = rest.pop("margin", None)
    return replace(judgement, margin=margin, columns=rest, **said)


def _form_of(row: Row) -> Form:
    whole = [name for name, form in FORMS.items() if form.telling and set(form.keys) <= set(row)]
    if len(whole) > 1:
        raise DataError(f"must have the keys of one form, and has those of {' and '.join(whole)}: {sorted(row)}")
    told = whole or [name for name, form in FORMS.items() if any(key in row for key in form.telling)]
    if not told:
        known = "; ".join(form.text for form in FORMS.values())
        raise DataError(f"must have the keys of a known form ({known}), got {sorted(row)}")
    return FORMS[told[0]]


def export_rows(judgements: Iterable[Judgement], form: str) -> list[dict[str, Any]]:
    """Write judgements in the form of another tool, the keys in their ``columns`` beside it.

    Args:
        judgements: to be written.
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
            rows.append(_with_columns(FORMS[form].write(judgement), judgement))
        except DataError as error:
            raise DataError(f"export as {form}, judgement {number}: {error}") from error
    return rows


def _with_columns(row: dict[str, Any], judgement: Judgement) -> dict[str, Any]:
    twice = sorted(set(row) & set(judgement.columns))
    if twice:
        raise DataError(f"this form has a key {twice[0]!r} of its own, and so have the judgement's columns; rename it")
    return {**row, **judgement.columns}


def _cannot(judgement: Judgement, needed: str) -> DataError:
    return DataError(f"this form holds {needed}, got a judgement of kind {judgement.kind!r}; use save_judgements()")


def _bare(judgement: Judgement) -> Judgement:
    """The judgement. Raises: DataError: it says more than other forms have room for."""
    said = [name for name in NOT_IN_OTHER_FORMS if getattr(judgement, name) is not None]
    said += ["origin"] * (judgement.origin != "labelling")
    said += [name for name in ("model", "version") if any(getattr(r, name) for r in judgement.responses)]
    if said:
        raise DataError(f"this form has no room for {said[0]!r}; use save_judgements(), or drop it yourself")
    return judgement


def _prompt_and(texts: Sequence[Any], prompt: Any) -> tuple[str, list[str]]:
    if isinstance(prompt, str):
        return prompt, list(texts)
    return transcript_of(as_list(prompt, "prompt")), [answer_of(text) for text in texts]


def _read_pair(row: Row) -> Judgement:
    if "prompt" not in row:
        return _read_transcripts(row)
    require_keys(row, ("prompt", "chosen", "rejected"))
    prompt, texts = _prompt_and((row["chosen"], row["rejected"]), row["prompt"])
    return Judgement.of(prompt, texts, Choice("a"))


def _chosen_rejected(judgement: Judgement) -> tuple[str, str]:
    if not isinstance(judgement.verdict, Choice) or judgement.verdict.winner not in ("a", "b"):
        raise _cannot(judgement, "a choice with a winner")
    first, second = _bare(judgement).texts
    return (first, second) if judgement.verdict.winner == "a" else (second, first)


def _write_pair(judgement: Judgement) -> dict[str, Any]:
    chosen, rejected = _chosen_rejected(judgement)
    return {"prompt": judgement.prompt, "chosen": chosen, "rejected": rejected} | _margin(judgement)


def _message(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def _write_conversation(judgement: Judgement) -> dict[str, Any]:
    chosen, rejected = map(_message, _chosen_rejected(judgement))
    return {"prompt": messages_of(judgement.prompt), "chosen": chosen, "rejected": rejected} | _margin(judgement)


def _margin(judgement: Judgement) -> dict[str, float]:
    return {} if judgement.margin is None else {"margin": judgement.margin}


def _read_transcripts(row: Row) -> Judgement:
    require_keys(row, ("chosen", "rejected"))
    sides = [row["chosen"], row["rejected"]]
    if not all(isinstance(side, str) for side in sides):  # the conversational form with the prompt inside
        sides = [transcript_of(as_list(side, "chosen")[:-1]) + " " + answer_of(side[-1:]) for side in sides]
    (prompt, chosen), (other, rejected) = map(split_transcript, sides)
    if prompt != other:
        raise DataError("chosen and rejected must be one conversation up to the last answer, and they differ earlier")
    return Judgement.of(prompt, (chosen, rejected), Choice("a"))


def _write_transcripts(judgement: Judgement) -> dict[str, Any]:
    chosen, rejected = _chosen_rejected(judgement)
    if not is_transcript(judgement.prompt):
        raise DataError(f"this form holds transcripts (\\n\\nHuman: ...), got the prompt {judgement.prompt[:60]!r}")
    texts = {"chosen": f"{judgement.prompt} {chosen}", "rejected": f"{judgement.prompt} {rejected}"}
    return texts | _margin(judgement)


def _read_thumb(row: Row) -> Judgement:
    require_keys(row, ("prompt", "completion", "label"))
    prompt, texts = _prompt_and((row["completion"],), row["prompt"])
    return Judgement.of(prompt, texts, Thumb(row["label"]))


def _write_thumb(judgement: Judgement) -> dict[str, Any]:
    if not isinstance(judgement.verdict, Thumb):
        raise _cannot(judgement, "thumbs")
    return {"prompt": judgement.prompt, "completion": _bare(judgement).texts[0], "label": judgement.verdict.up}


def _read_ranks(row: Row) -> Judgement:
    require_keys(row, ("prompt", "responses", "ranks"))
    return Judgement.of(
        row["prompt"], as_list(row["responses"], "responses"), Ranks(tuple(as_list(row["ranks"], "ranks")))
    )


def _write_ranks(judgement: Judgement) -> dict[str, Any]:
    if not isinstance(judgement.verdict, Ranks):
        raise _cannot(judgement, "rankings")
    texts, ranks = list(_bare(judgement).texts), list(judgement.verdict.ranks)
    return {"prompt": judgement.prompt, "responses": texts, "ranks": ranks}


def _read_votes(row: Row) -> Judgement:
    require_keys(row, ("prompt", "a", "b", "votes"))
    votes = tuple(read_vote(vote, "choice") for vote in as_list(row["votes"], "votes"))
    return Judgement.of(row["prompt"], (row["a"], row["b"]), Votes(votes))


def _write_votes(judgement: Judgement) -> dict[str, Any]:
    if not isinstance(judgement.verdict, Votes):
        raise _cannot(judgement, "votes")
    first, second = _bare(judgement).texts
    votes = [{"choice": vote.winner} | _vote_rest(vote) for vote in judgement.verdict.votes]
    return {"prompt": judgement.prompt, "a": first, "b": second, "votes": votes}


def _vote_rest(vote: Vote) -> dict[str, str]:
    said = {"comment": vote.comment, "annotator": vote.annotator}
    return {name: value for name, value in said.items() if value is not None}


def _read_triplet(row: Row) -> Judgement:
    require_keys(row, ("input", "output", "reward"))
    return Judgement.of(row["input"], (row["output"],), Value(row["reward"]))


def _write_triplet(judgement: Judgement) -> dict[str, Any]:
    if not isinstance(judgement.verdict, Value):
        raise _cannot(judgement, "real-valued rewards")
    return {"input": judgement.prompt, "output": _bare(judgement).texts[0], "reward": judgement.verdict.reward}


FORMS: dict[str, Form] = {
    "pairs": Form(
        '{"prompt", "chosen", "rejected"}',
        ("prompt", "chosen", "rejected"),
        ("chosen", "rejected"),
        _read_pair,
        _write_pair,
    ),
    "conversations": Form(
        '{"prompt": [messages], "chosen": [message], "rejected": [message]}',
        ("prompt", "chosen", "rejected"),
        (),  # read by "pairs"
        _read_pair,
        _write_conversation,
    ),
    "transcripts": Form(
        '{"chosen", "rejected"}',
        ("chosen", "rejected"),
        (),
        _read_transcripts,
        _write_transcripts,  # read by "pairs"
    ),
    "unpaired": Form(
        '{"prompt", "completion", "label"}',
        ("prompt", "completion", "label"),
        ("completion", "label"),
        _read_thumb,
        _write_thumb,
    ),
    "votes": Form(
        '{"prompt", "a", "b", "votes"}', ("prompt", "a", "b", "votes"), ("votes",), _read_votes, _write_votes
    ),
    "rankings": Form(
        '{"prompt", "responses", "ranks"}',
        ("prompt", "responses", "ranks"),
        ("responses", "ranks"),
        _read_ranks,
        _write_ranks,
    ),
    "triplets": Form(
        '{"input", "output", "reward"}',
        ("input", "output", "reward"),
        ("input", "output"),
        _read_triplet,
        _write_triplet,
    ),
}
"""The forms of other tools, by name, in the order in which a row is tried."""
