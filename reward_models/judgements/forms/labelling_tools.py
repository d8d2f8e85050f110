"""Exports of labelling tools: Label Studio and Argilla.

Label Studio's JSON export (its docs: task format; tags Pairwise, Ranker, Rating, TextArea) has a row per task,
``{"data", "annotations": [{"result": [{"type", "value"}], "completed_by"}]}``. A pairwise value selects ``left`` or
``right``, a ranker lists ids in order, a rating counts stars; a text beside it is the comment. JSON-MIN of its template
"Human Preference collection for RLHF" is ``{"prompt", "answer1", "answer2", "comparison"}``.

Argilla's records (``argilla/src/argilla/records/_io/_generic.py``) have fields, then ``<question>.responses`` with
``.users`` and ``.status`` after it (``to_list(flatten=True)``), or ``fields`` and ``responses`` nested; version 1 has
``<question>: [{"user_id", "value", "status"}]``. A label names a field or a tie, a ranking lists fields, a number rates
the one response, a text is the comment. Only submitted answers count.

Knows: these exports. Who said something is the annotator; two people on one pair are votes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from lm_gym.errors import DataError
from lm_gym.reward_models.judgements.record import Choice, Judgement, Ranks, Rating, Thumb, Verdict, Vote, Votes

from .published import places_of
from .sides import Row, as_list, prompt_of, text_of

__all__ = [
    "ARGILLA",
    "LABEL_STUDIO",
    "LABEL_STUDIO_MIN",
    "argilla_keys",
    "judgements_of_argilla",
    "judgements_of_label_studio",
]

LABEL_STUDIO = ("data", "annotations")
LABEL_STUDIO_MIN = ("prompt", "answer1", "answer2", "comparison")
ARGILLA = ".responses"
"""End of the keys of an Argilla export."""
_PROMPT = re.compile(r"prompt|instruction|question|input|query|history|conversation", re.IGNORECASE)
_ANSWER = re.compile(
    r"(?:response|answer|completion|generation|output|text|option|chosen)s?[-_ ]?(\d+|[ab])?", re.IGNORECASE
)
_SIDES = {"left": "a", "right": "b", "a": "a", "b": "b", "tie": "tie", "equal": "tie", "both_bad": "both_bad"}


class _Said(NamedTuple):
    """What one person said about the responses."""

    verdict: Verdict
    comment: str | None
    annotator: str | None


def _of_one(verdicts: Sequence[Verdict], comments: Sequence[str], annotator: str | None) -> list[_Said]:
    """What one person said of the responses, if anything.

    Raises:
        DataError: several things, none of which may be left out, and which the record cannot tell apart.
    """
    if len(verdicts) > 1:
        who = "of an annotator without a name" if annotator is None else f"of annotator {annotator!r}"
        raise DataError(
            f"must hold one verdict per person, got {len(verdicts)} {who}; export the answers to one question at a "
            "time, with who gave them"
        )
    return [_Said(verdict, "\n".join(comments) or None, annotator) for verdict in verdicts]


def _judgements(
    prompt: str, texts: Sequence[Any], said: Sequence[_Said], columns: Mapping[str, Any] | None = None
) -> list[Judgement]:
    """One judgement per person; choices of several people are votes."""
    if not said:
        raise DataError("must hold an answer of an annotator that says something about the responses, got none")
    if len(said) > 1 and all(isinstance(one.verdict, Choice) for one in said):
        votes = tuple(Vote(one.verdict.winner, one.comment, one.annotator) for one in said)  # type: ignore[union-attr]
        return [Judgement.of(prompt, texts, Votes(votes), columns=columns or {})]
    return [
        Judgement.of(prompt, texts, verdict, comment=comment, annotator=annotator, columns=columns or {})
        for verdict, comment, annotator in said
    ]


def _fields(fields: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The prompt and the answers by name, from the fields that were shown."""
    prompts = [name for name in fields if _PROMPT.fullmatch(name)]
    answers = {name: text_of(value) for name, value in fields.items() if _ANSWER.fullmatch(name) and value is not None}
    if len(prompts) != 1 or not answers:
        raise DataError(
            "must show one prompt (prompt, instruction, question, ...) and answers (response1, answer2, ...), got the "
            f"fields {sorted(fields)}; rename them"
        )
    return prompt_of(fields[prompts[0]]), answers


def judgements_of_label_studio(row: Row) -> list[Judgement]:
    """Read a task with its annotations. Raises: DataError: nobody compared or rated what is in it."""
    if "annotations" not in row:
        verdict = _pairwise(row["comparison"])
        texts = (row["answer1"], row["answer2"])
        return _judgements(prompt_of(row["prompt"]), texts, [_Said(verdict, None, None)])
    data = row["data"]
    if not isinstance(data, Mapping):
        raise DataError(f"data must be an object with what was shown, got {str(data)[:60]!r}")
    lists = [value for value in data.values() if isinstance(value, list) and all(isinstance(x, Mapping) for x in value)]
    if lists:
        items = {str(item.get("id", place)): _item_text(item) for place, item in enumerate(lists[0])}
        if len(items) < len(lists[0]):
            raise DataError(f"items must have ids of their own, got {[item.get('id') for item in lists[0]]}")
        names = [name for name in data if _PROMPT.fullmatch(name)]
        prompt, answers = prompt_of(data[names[0]]) if names else "", items
    else:
        prompt, answers = _fields(data)
    shown = {name for name in data if _PROMPT.fullmatch(name) or name in answers or data[name] in lists}
    columns = {name: value for name, value in data.items() if name not in shown}
    said = []
    for annotation in as_list(row["annotations"], "annotations"):
        if not isinstance(annotation, Mapping):
            raise DataError(f"annotations must be objects, got {str(annotation)[:60]!r}")
        if not annotation.get("was_cancelled"):
            said += _annotation(annotation, list(answers))
    return _judgements(prompt, list(answers.values()), said, columns)


def _item_text(item: Mapping[str, Any]) -> Any:
    return next((item[key] for key in ("text", "body", "html", "title") if key in item), None)


def _annotation(annotation: Mapping[str, Any], names: Sequence[str]) -> list[_Said]:
    verdicts: list[Verdict] = []
    comments: list[str] = []
    for result in as_list(annotation.get("result") or [], "result"):
        value = result.get("value") if isinstance(result, Mapping) else None
        if not isinstance(value, Mapping):
            raise DataError(f"result must hold objects with a value, got {str(result)[:60]!r}")
        if "selected" in value:
            verdicts.append(_pairwise(value))
        elif "ranker" in value:
            verdicts.append(_order(_listed(value["ranker"]), names))
        elif "rating" in value:
            verdicts.append(Rating(value["rating"]))
        elif "text" in value:
            listed = [value["text"]] if isinstance(value["text"], str) else as_list(value["text"], "text")
            comments += map(str, listed)
    who = annotation.get("completed_by")
    who = who.get("email", who.get("id")) if isinstance(who, Mapping) else who
    return _of_one(verdicts, comments, _name(who))


def _pairwise(value: Any) -> Choice:
    selected = value.get("selected") if isinstance(value, Mapping) else value
    if not isinstance(selected, str) or selected not in _SIDES:
        raise DataError(f"a comparison must select left or right, got {selected!r}")
    return Choice(_SIDES[selected])  # type: ignore[arg-type]


def _listed(ranker: Any) -> Sequence[Any]:
    if isinstance(ranker, Mapping):
        if len(ranker) != 1:
            raise DataError(f"a ranking must have one bucket, got {sorted(ranker)}; buckets have no order of their own")
        (ranker,) = ranker.values()
    return as_list(ranker, "ranker")


def _order(order: Iterable[Any], names: Sequence[str]) -> Ranks:
    """A ranking from names in order, the best first."""
    plain = {_same(name): place for place, name in enumerate(names)}
    listed = [_same(name) for name in order]
    if sorted(listed) != sorted(plain):
        raise DataError(f"a ranking must name every response once, got {list(listed)} for {list(names)}")
    return Ranks(tuple(listed.index(name) + 1 for name in plain))


def _same(name: Any) -> str:
    """A name as labels and fields share it: "Response 1", "response-1" and "response1" are one."""
    return re.sub(r"[^a-z0-9]", "", str(name).lower())


def judgements_of_argilla(row: Row) -> list[Judgement]:
    """Read a record. Raises: DataError: nobody answered it, or no question was about the responses."""
    fields, answers = _argilla_parts(row)
    prompt, texts = _fields(fields)
    by_user: dict[str | None, list[Any]] = {}
    for user, value in answers:
        by_user.setdefault(user, []).append(value)
    said = []
    for user, values in by_user.items():
        read = [_argilla_value(value, list(texts)) for value in values]
        verdicts = [one for one in read if not isinstance(one, str)]
        comments = [one for one in read if isinstance(one, str)]
        if user is None and not comments:  # several people, none of whom is named
            said += [_Said(verdict, None, None) for verdict in verdicts]
        else:
            said += _of_one(verdicts, comments, user)
    return _judgements(prompt, list(texts.values()), said)


def argilla_keys(row: Row) -> set[str]:
    """The keys of a record that are read: shown fields and answers; empty for a row that is no record of Argilla."""
    if isinstance(row.get("fields"), Mapping) and isinstance(row.get("responses"), Mapping):
        return {"fields", "responses"}
    answers = {key for key, value in row.items() if key.endswith(ARGILLA) or _are_answers(value)}
    more = {f"{key}.{part}" for key in answers for part in ("users", "status")} & set(row)
    shown = {key for key in row if _PROMPT.fullmatch(key) or _ANSWER.fullmatch(key)}
    return answers | more | shown if answers else set()


def _argilla_parts(row: Row) -> tuple[Mapping[str, Any], list[tuple[str | None, Any]]]:
    """The fields of a record, and every submitted answer with its user."""
    if isinstance(row.get("fields"), Mapping) and isinstance(row.get("responses"), Mapping):
        return row["fields"], [answer for given in row["responses"].values() for answer in _objects(given)]
    answers: list[tuple[str | None, Any]] = []
    for key, given in row.items():
        if key.endswith(ARGILLA) and given is not None:
            values = as_list(given, key)
            rows = zip(values, _beside(row, f"{key}.users", values), _beside(row, f"{key}.status", values), strict=True)
            answers += [(_name(user), value) for value, user, state in rows if state in (None, "submitted")]
        elif _are_answers(given):
            answers += _objects(given)
    return {key: value for key, value in row.items() if not _are_answers(value)}, answers


def _beside(row: Row, key: str, values: Sequence[Any]) -> Sequence[Any]:
    """What a record says of each of some answers; nothing where it does not say."""
    found = as_list(row.get(key) or [None] * len(values), key)
    if len(found) != len(values):
        raise DataError(f"{key} must have an entry for each of the {len(values)} answers, got {len(found)}")
    return found


def _name(user: Any) -> str | None:
    return None if user is None else str(user)


def _are_answers(given: Any) -> bool:
    """True for the answers to a question as Argilla's first version wrote them."""
    return (
        isinstance(given, list)
        and bool(given)
        and all(isinstance(one, Mapping) and {"user_id", "value"} <= set(one) for one in given)
    )


def _objects(given: Any) -> list[tuple[str | None, Any]]:
    listed = as_list(given, "responses")
    if not all(isinstance(one, Mapping) and "value" in one for one in listed):
        raise DataError(f"responses must be objects with a value and a user_id, got {str(given)[:60]!r}")
    return [(_name(one.get("user_id")), one["value"]) for one in listed if one.get("status") in (None, "submitted")]


def _argilla_value(value: Any, names: Sequence[str]) -> Verdict | str:
    """The verdict that an answer to a question is, or its text where it is none."""
    value = value["value"] if isinstance(value, Mapping) and set(value) == {"value"} else value
    if isinstance(value, bool):
        return Thumb(value)
    if isinstance(value, int):
        return Rating(value)
    if isinstance(value, list):
        return _argilla_ranking(value, names)
    if not isinstance(value, str):
        raise DataError(f"an answer must be a label, a number, a ranking or a text, got {str(value)[:60]!r}")
    place = {_same(name): side for name, side in zip(names, ("a", "b"), strict=False)}
    side = place.get(_same(value), _SIDES.get(value.strip().lower()))
    return value if side is None or len(names) != 2 else Choice(side)  # type: ignore[arg-type]


def _argilla_ranking(value: list[Any], names: Sequence[str]) -> Verdict:
    if not all(isinstance(one, Mapping) for one in value):
        return _order(value, names)
    plain = {_same(one.get("value")): one.get("rank") for one in value}
    if set(plain) != {_same(name) for name in names} or not all(isinstance(rank, int) for rank in plain.values()):
        raise DataError(f"a ranking must give every response a rank, got {str(value)[:80]} for {list(names)}")
    ranks = [plain[_same(name)] for name in names]
    return Ranks(places_of(ranks))
