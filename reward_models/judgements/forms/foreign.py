"""Forms that rows of judgements have in other tools, read and written.

Knows: which keys make which form, both ways. Forms that are read only, of published data sets and of labelling tools,
have files of their own. Every key of a row is read, kept in ``Judgement.columns``, or an error; a judgement that a form
cannot hold is an error.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from lm_gym.errors import ConfigError, DataError
from lm_gym.reward_models.judgements.record import (
    Choice,
    Judgement,
    Ranks,
    Thumb,
    Value,
    Vote,
    Votes,
    require_judgements,
)
from lm_gym.sources.transcripts import is_transcript, messages_of, with_system
from lm_gym.tools.settings import shown

from .labelling_tools import (
    LABEL_STUDIO,
    LABEL_STUDIO_MIN,
    argilla_keys,
    judgements_of_argilla,
    judgements_of_label_studio,
)
from .message_trees import TREE_KEYS, judgements_of_tree
from .published import PUBLISHED
from .sides import Row, as_list, liked, pair_of, prompt_of, require_keys, text_of

__all__ = ["FORMS", "export_rows", "read_foreign", "read_vote"]

SAID = ("comment", "annotator", "overall_rating", "margin")
"""Keys that a row of any form may have beside its own, and every judgement has a field for."""


def read_vote(value: Any, winner: str) -> Vote:
    """A vote; its winner stands under the key ``winner``. Raises: DataError: it is none."""
    if not isinstance(value, Mapping) or winner not in value:
        raise DataError(f"a vote must be an object with {winner!r}, got {str(value)[:60]}")
    return Vote(value[winner], value.get("comment"), value.get("annotator"), value.get("overall_rating"))


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


def read_foreign(row: Row) -> list[Judgement]:
    """Read a row of one of :data:`FORMS`, of a published data set, or of a labelling tool.

    Beside the keys of its form a row may have ``system`` (a system message, which becomes part of the prompt), and
    ``comment``, ``annotator``, ``overall_rating`` and ``margin``; all others are kept in ``Judgement.columns``.

    Returns: one judgement, or several where people or replies in the row were told apart.

    Raises:
        DataError: the keys fit no form or two, or what they hold is no judgement.
    """
    read, used = _reader_of(row)
    rest = {key: value for key, value in row.items() if key not in used}
    system = rest.pop("system", None)
    said = {name: rest.pop(name) for name in SAID if name in rest}
    said = {name: value for name, value in said.items() if value not in (None, "")}
    found = read(row)
    if "overall_rating" in said and len(found) > 1:
        raise DataError(f"overall_rating: rates one judgement, and this row holds {len(found)}; leave it out")
    judgements = []
    for one in found:
        prompt = one.prompt if system in (None, "") else with_system(system, one.prompt)
        judgements.append(replace(one, prompt=prompt, columns={**one.columns, **rest}, **said))
    return judgements


def _reader_of(row: Row) -> tuple[Callable[[Row], list[Judgement]], Collection[str]]:
    """The reader of a row, and the keys that it reads."""
    has = set(row)
    tool = _tool_of(row)
    whole = [name for name, form in FORMS.items() if form.telling and set(form.keys) <= has]
    published = [name for name, form in PUBLISHED.items() if set(form.keys) <= has]
    if len(found := [*([tool[0]] if tool else []), *published, *whole]) > 1:
        raise DataError(f"must have the keys of one form, and has those of {' and '.join(found)}: {sorted(row)}")
    if tool:
        return tool[1:]
    if published:
        form = PUBLISHED[published[0]]
        return (lambda one: [form.read(one)]), {*form.keys, *form.also}
    told = whole or [name for name, form in FORMS.items() if any(key in row for key in form.telling)]
    if not told:
        known = "; ".join(each.text for each in FORMS.values())
        raise DataError(
            f"must have the keys of a known form ({known}; docs/rewards/judgements.md has all), got {sorted(row)}"
        )
    own = FORMS[told[0]]
    return (lambda one: [own.read(one)]), own.keys


def _tool_of(row: Row) -> tuple[str, Callable[[Row], list[Judgement]], Collection[str]] | None:
    """Name, reader and keys of an export of a labelling tool or of a tree of messages."""
    for keys in (LABEL_STUDIO, LABEL_STUDIO_MIN):
        if set(keys) <= set(row):
            return "Label Studio", judgements_of_label_studio, keys
    if read := argilla_keys(row):
        return "Argilla", judgements_of_argilla, read
    if set(TREE_KEYS) <= set(row) and isinstance(row["prompt"], Mapping):
        return "OpenAssistant", judgements_of_tree, TREE_KEYS
    return None


def export_rows(judgements: Iterable[Judgement], form: str) -> list[dict[str, Any]]:
    """Write judgements in the form of another tool, the keys in their ``columns`` beside it.

    Args:
        judgements: to be written.
        form: a key of :data:`FORMS`.

    Raises:
        ConfigError: no such form.
        DataError: the form cannot hold a judgement.
    """
    if not isinstance(form, str) or form not in FORMS:
        raise ConfigError(f"export: form must be one of {', '.join(FORMS)}, got {shown(form)}")
    rows = []
    for number, judgement in enumerate(require_judgements("export", judgements), start=1):
        try:
            rows.append(_with_columns(FORMS[form].write(judgement), judgement))
        except DataError as error:
            raise DataError(f"export as {form}, judgement {number}: {error}") from error
    return rows


def _with_columns(row: dict[str, Any], judgement: Judgement) -> dict[str, Any]:
    row |= {name: getattr(judgement, name) for name in SAID if getattr(judgement, name) is not None}
    twice = sorted(set(row) & set(judgement.columns))
    if twice:
        raise DataError(f"this form has a key {twice[0]!r} of its own, and so have the judgement's columns; rename it")
    return {**row, **judgement.columns}


def _cannot(judgement: Judgement, needed: str) -> DataError:
    return DataError(f"this form holds {needed}, got a judgement of kind {judgement.kind!r}; use save_judgements()")


def _bare(judgement: Judgement) -> Judgement:
    """The judgement. Raises: DataError: it says more than other forms have room for."""
    said = ["origin"] * (judgement.origin != "labelling")
    said += [name for name in ("model", "version") if any(getattr(r, name) for r in judgement.responses)]
    if said:
        raise DataError(f"this form has no room for {said[0]!r}; use save_judgements(), or drop it yourself")
    return judgement


def _read_pair(row: Row) -> Judgement:
    prompt, texts = pair_of(row)
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


def _write_transcripts(judgement: Judgement) -> dict[str, Any]:
    chosen, rejected = _chosen_rejected(judgement)
    if not is_transcript(judgement.prompt):
        raise DataError(f"this form holds transcripts (\\n\\nHuman: ...), got the prompt {judgement.prompt[:60]!r}")
    return {"chosen": f"{judgement.prompt} {chosen}", "rejected": f"{judgement.prompt} {rejected}"}


def _read_thumb(row: Row) -> Judgement:
    require_keys(row, ("prompt", "completion", "label"))
    return Judgement.of(prompt_of(row["prompt"]), (text_of(row["completion"]),), Thumb(liked(row["label"])))


def _write_thumb(judgement: Judgement) -> dict[str, Any]:
    if not isinstance(judgement.verdict, Thumb):
        raise _cannot(judgement, "thumbs")
    return {"prompt": judgement.prompt, "completion": _bare(judgement).texts[0], "label": judgement.verdict.up}


def _read_ranks(row: Row) -> Judgement:
    require_keys(row, ("prompt", "responses", "ranks"))
    texts = [text_of(text) for text in as_list(row["responses"], "responses")]
    return Judgement.of(prompt_of(row["prompt"]), texts, Ranks(tuple(as_list(row["ranks"], "ranks"))))


def _write_ranks(judgement: Judgement) -> dict[str, Any]:
    if not isinstance(judgement.verdict, Ranks):
        raise _cannot(judgement, "rankings")
    texts, ranks = list(_bare(judgement).texts), list(judgement.verdict.ranks)
    return {"prompt": judgement.prompt, "responses": texts, "ranks": ranks}


def _read_votes(row: Row) -> Judgement:
    require_keys(row, ("prompt", "a", "b", "votes"))
    votes = tuple(read_vote(vote, "choice") for vote in as_list(row["votes"], "votes"))
    return Judgement.of(prompt_of(row["prompt"]), (text_of(row["a"]), text_of(row["b"])), Votes(votes))


def _write_votes(judgement: Judgement) -> dict[str, Any]:
    if not isinstance(judgement.verdict, Votes):
        raise _cannot(judgement, "votes")
    first, second = _bare(judgement).texts
    votes = [{"choice": vote.winner} | _vote_rest(vote) for vote in judgement.verdict.votes]
    return {"prompt": judgement.prompt, "a": first, "b": second, "votes": votes}


def _vote_rest(vote: Vote) -> dict[str, Any]:
    said = {"comment": vote.comment, "annotator": vote.annotator, "overall_rating": vote.overall_rating}
    return {name: value for name, value in said.items() if value is not None}


def _read_triplet(row: Row) -> Judgement:
    require_keys(row, ("input", "output", "reward"))
    return Judgement.of(prompt_of(row["input"]), (text_of(row["output"]),), Value(row["reward"]))


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
        _read_pair,
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
