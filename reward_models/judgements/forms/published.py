"""Rows of published data sets, read as they are.

Columns and their meanings are those of the data sets' cards:

- SHP (hf.co/datasets/stanfordnlp/SHP): ``labels`` is 1 if A is preferred, 0 if B is.
- PKU-SafeRLHF (hf.co/datasets/PKU-Alignment/PKU-SafeRLHF): ``better_response_id`` is the more helpful response, 0 or 1;
  ``safer_response_id`` and all that is said about harm stay columns.
- Nectar (hf.co/datasets/berkeley-nest/Nectar): ``answers`` with ``rank``, 1 the best.
- HelpSteer2 (hf.co/datasets/nvidia/HelpSteer2): five ratings of one response from 0 to 4, of which ``helpfulness`` is
  the value that is learned (Wang et al. 2024, arXiv:2406.08673, train a regression); its preferences
  (arXiv:2410.01257): ``preference_strength`` from -3 (response 1 is much better) to 3.
- HelpSteer3 (hf.co/datasets/nvidia/HelpSteer3): ``overall_preference`` on the same scale. How strong a preference is
  stays a column: it is no difference of scores.
- Chatbot Arena (hf.co/datasets/lmsys/chatbot_arena_conversations, and its later sets): ``winner`` is ``model_a``,
  ``model_b``, ``tie`` or ``tie (bothbad)`` (later ``both_bad``); ``judge`` is the annotator. The table of its Kaggle
  competition (lmsys/lmsys-arena-human-preference-55k) has the turns as lists of texts.

Knows: these columns. Every other key of a row is kept in ``Judgement.columns``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from lm_gym.errors import DataError
from lm_gym.reward_models.judgements.record import Choice, Judgement, Ranks, Response, Value, Winner
from lm_gym.sources.transcripts import conversation_of, split_alike
from lm_gym.tools.json_values import is_finite, parse_json

from .sides import Row, as_list, prompt_of

__all__ = ["PUBLISHED", "Published", "places_of"]


class Published(NamedTuple):
    """The form of a published data set."""

    text: str
    """The form of a row, for messages."""
    keys: tuple[str, ...]
    """Keys that every row has."""
    also: tuple[str, ...]
    """Further keys that are read where a row has them."""
    read: Callable[[Row], Judgement]
    """Raises: DataError: the row is not of this form."""


def _chosen_of(row: Row, key: str, values: Mapping[Any, Winner]) -> Choice:
    found = row[key]
    given = found.strip() if isinstance(found, str) else str(found).removesuffix(".0")
    if isinstance(found, bool) or given not in values:
        raise DataError(f"{key} must be one of {', '.join(map(str, values))}, got {found!r}")
    return Choice(values[given])


def _preferred(row: Row, key: str) -> Choice:
    """A choice by a strength below 0 for the first response, above 0 for the second."""
    strength = row[key]
    if isinstance(strength, bool) or not isinstance(strength, int | float) or not -3 <= strength <= 3:
        raise DataError(f"{key} must be a number from -3 to 3, got {strength!r}")
    return Choice("tie" if strength == 0 else ("a" if strength < 0 else "b"))


def _shp(row: Row) -> Judgement:
    verdict = _chosen_of(row, "labels", {"1": "a", "0": "b"})
    return Judgement.of(row["history"], (row["human_ref_A"], row["human_ref_B"]), verdict)


def _pku(row: Row) -> Judgement:
    responses = tuple(
        Response(text=row[f"response_{side}"], model=row.get(f"response_{side}_source")) for side in (0, 1)
    )
    verdict = _chosen_of(row, "better_response_id", {"0": "a", "1": "b"})
    return Judgement(prompt=prompt_of(row["prompt"]), responses=responses, verdict=verdict)


def _nectar(row: Row) -> Judgement:
    answers = as_list(row["answers"], "answers")
    if not all(isinstance(answer, Mapping) and {"answer", "rank"} <= set(answer) for answer in answers):
        raise DataError(f"answers must be objects with answer and rank, got {str(answers)[:80]}")
    responses = tuple(Response(text=answer["answer"], model=answer.get("model")) for answer in answers)
    prompt = row["prompt"].rstrip(" ") if isinstance(row["prompt"], str) else prompt_of(row["prompt"])
    ranks = places_of([answer["rank"] for answer in answers])
    return Judgement(prompt=prompt, responses=responses, verdict=Ranks(ranks))


def places_of(ranks: Sequence[Any]) -> tuple[int, ...]:
    """Places from 1 on, of ranks that may start anywhere and leave gaps; lower is better.

    Raises:
        DataError: a rank is no finite number.
    """
    for rank in ranks:
        if not is_finite(rank):
            raise DataError(f"rank must be a finite number, got {rank!r}")
    return tuple(1 + sum(other < rank for other in ranks) for rank in ranks)


def _helpsteer2(row: Row) -> Judgement:
    return Judgement.of(prompt_of(row["prompt"]), (row["response"],), Value(row["helpfulness"]))


def _helpsteer2_preference(row: Row) -> Judgement:
    reason = row.get("preference_elaboration")
    return _by_strength(row, "prompt", "preference_strength", ("response_1", "response_2"), comment=reason or None)


def _helpsteer3(row: Row) -> Judgement:
    return _by_strength(row, "context", "overall_preference", ("response1", "response2"))


def _by_strength(row: Row, prompt: str, strength: str, sides: Sequence[str], **rest: Any) -> Judgement:
    texts = [row[side] for side in sides]
    kept = {strength: row[strength]}
    return Judgement.of(prompt_of(row[prompt]), texts, _preferred(row, strength), columns=kept, **rest)


_WINNERS: dict[Any, Winner] = {
    "model_a": "a",
    "model_b": "b",
    "tie": "tie",
    "tie (bothbad)": "both_bad",
    "both_bad": "both_bad",
}


def _arena(row: Row) -> Judgement:
    sides = [conversation_of(as_list(row[key], key)) for key in ("conversation_a", "conversation_b")]
    judge = row.get("judge")
    return _battle(row, sides, _chosen_of(row, "winner", _WINNERS), annotator=judge)


def _arena_table(row: Row) -> Judgement:
    users, *answers = (_turns(row, key) for key in ("prompt", "response_a", "response_b"))
    sides = []
    for side in answers:
        if len(side) != len(users):
            raise DataError(f"a response must have a turn for each of the {len(users)} prompts, got {len(side)}")
        turns = [
            {"role": role, "content": text}
            for pair in zip(users, side, strict=True)
            for role, text in zip(("user", "assistant"), pair, strict=True)
        ]
        sides.append(conversation_of(turns))
    won = [row["winner_model_a"], row["winner_model_b"]]
    verdict = _chosen_of({"winner": f"{won[0]} {won[1]}"}, "winner", {"1 0": "a", "0 1": "b", "0 0": "tie"})
    return _battle(row, sides, verdict)


def _turns(row: Row, key: str) -> list[str]:
    """The texts of all turns, a list of them or one as JSON; a turn that failed (null) is empty."""
    given = parse_json(row[key]) if isinstance(row[key], str) and row[key].lstrip().startswith("[") else row[key]
    return ["" if turn is None else turn for turn in ([given] if isinstance(given, str) else as_list(given, key))]


def _battle(row: Row, sides: Sequence[str], verdict: Choice, **rest: Any) -> Judgement:
    prompt, texts = split_alike(*sides)
    responses = tuple(
        Response(text=text, model=row.get(f"model_{side}")) for text, side in zip(texts, "ab", strict=True)
    )
    return Judgement(prompt=prompt, responses=responses, verdict=verdict, **rest)


PUBLISHED: dict[str, Published] = {
    "SHP": Published(
        '{"history", "human_ref_A", "human_ref_B", "labels"}',
        ("history", "human_ref_A", "human_ref_B", "labels"),
        (),
        _shp,
    ),
    "PKU-SafeRLHF": Published(
        '{"prompt", "response_0", "response_1", "better_response_id"}',
        ("prompt", "response_0", "response_1", "better_response_id"),
        ("response_0_source", "response_1_source"),
        _pku,
    ),
    "Nectar": Published('{"prompt", "answers": [{"answer", "rank"}]}', ("prompt", "answers"), (), _nectar),
    "HelpSteer2": Published(
        '{"prompt", "response", "helpfulness"}', ("prompt", "response", "helpfulness"), (), _helpsteer2
    ),
    "HelpSteer2 preferences": Published(
        '{"prompt", "response_1", "response_2", "preference_strength"}',
        ("prompt", "response_1", "response_2", "preference_strength"),
        ("preference_elaboration",),
        _helpsteer2_preference,
    ),
    "HelpSteer3": Published(
        '{"context", "response1", "response2", "overall_preference"}',
        ("context", "response1", "response2", "overall_preference"),
        (),
        _helpsteer3,
    ),
    "Chatbot Arena": Published(
        '{"conversation_a", "conversation_b", "winner"}',
        ("conversation_a", "conversation_b", "winner"),
        ("model_a", "model_b", "judge"),
        _arena,
    ),
    "Chatbot Arena, as a table": Published(
        '{"prompt", "response_a", "response_b", "winner_model_a", "winner_model_b"}',
        ("prompt", "response_a", "response_b", "winner_model_a", "winner_model_b"),
        ("winner_tie", "model_a", "model_b"),
        _arena_table,
    ),
}
"""The forms of published data sets, by name."""
