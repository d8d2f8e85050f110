"""Bad reward models and bad scores: what is no reward model, what is no score, and handles that lead to neither."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from lm_gym import FunctionRewardModel, Scores, load_reward_model
from lm_gym.reward_models import (
    CachedRewardModel,
    EnsembleRewardModel,
    LengthReward,
    LexiconReward,
    RegexReward,
    RepetitionPenalty,
    WeightedSum,
)
from lm_gym.scoring import as_reward_model
from lm_gym.scoring.protocol import checked_scores

Case = tuple[str, Callable[[Any], Any], tuple[str, ...]]
TWO = ["a", "b"]


def returning(value: Any) -> Callable[[Any], Any]:
    """Score two texts by a function that returns this."""

    def mine(prompts: Any, completions: Any) -> Any:
        return value() if callable(value) else value

    return lambda world: checked_scores(as_reward_model(mine), TWO, TWO)


def scored(value: Any, **parts: Any) -> Callable[[Any], Any]:
    """Score two texts by an object whose Scores are made of this."""

    class Mine:
        def score(self, prompts: Any, responses: Any) -> Scores:
            return Scores(**{"value": value, "valid": np.ones(2, bool)} | parts)

    return lambda world: checked_scores(as_reward_model(Mine()), TWO, TWO)


def failing(error: BaseException) -> Callable[[], Any]:
    def fail() -> Any:
        raise error

    return fail


RETURNED: list[Case] = [
    ("nothing", returning(None), ("mine", "NoneType")),
    ("a number", returning(3.0), ("mine", "3.0")),
    ("text", returning("ab"), ("mine", "'ab'")),
    ("bytes, which are numbers", returning(b"\x01\x02"), ("mine", "bytes")),
    ("a bytearray", returning(bytearray(b"ab")), ("mine", "bytearray")),
    ("a mapping, whose keys are numbers", returning({0.5: "a", 0.7: "b"}), ("mine", "dict")),
    ("a mapping of scores", returning({"a": 1.0, "b": 2.0}), ("mine", "dict")),
    ("a set, which has no order", returning({1.0, 2.0}), ("mine", "set")),
    ("a frozen set", returning(frozenset({1.0, 2.0})), ("mine", "frozenset")),
    ("a generator", returning(lambda: (x for x in (1.0, 2.0))), ("mine", "generator")),
    ("a function", returning(lambda: len), ("mine", "builtin")),
    ("one score", returning([1.0]), ("mine", "1 for 2")),
    ("three scores", returning([1.0, 2.0, 3.0]), ("mine", "3 for 2")),
    ("none", returning([]), ("mine", "0 for 2")),
    ("complex numbers", returning([1j, 2.0]), ("mine", "row 0", "1j")),
    ("a complex array", returning(np.array([1j, 2.0])), ("mine", "row 0", "1j")),
    ("numbers in text", returning(["1", "2"]), ("mine", "row 0", "'1'")),
    ("an array of texts", returning(np.array(["1", "2"])), ("mine", "row 0", "1")),
    ("bytes for a score", returning([1.0, b"2"]), ("mine", "row 1", "b'2'")),
    ("nan", returning([1.0, math.nan]), ("mine", "row 1", "nan")),
    ("inf", returning([math.inf, 1.0]), ("mine", "row 0", "inf")),
    ("past float32", returning([1e39, 1.0]), ("mine", "row 0", "1e+39")),
    ("past all floats", returning([10**400, 1.0]), ("mine", "row 0", "1000")),
    ("a list for a score", returning([[1.0], [2.0]]), ("mine", "row 0", "[1.0]")),
    ("pairs for scores", returning(np.ones((2, 2))), ("mine", "row 0", "1.")),
    ("one column", returning(np.ones((2, 1))), ("mine", "row 0", "1.")),
    ("a matrix of torch", returning(torch.ones(2, 2)), ("mine", "row 0", "1.")),
    ("a scalar of torch", returning(torch.tensor(1.0)), ("mine", "tensor(1.)")),
    ("an object for a score", returning([object(), 1.0]), ("mine", "row 0", "object")),
    ("a date for a score", returning(np.array(["2020-01-01", "2020-01-02"], "datetime64[D]")), ("mine", "row 0")),
    ("an error", returning(failing(ValueError("no such judge"))), ("mine", "ValueError", "no such judge")),
    ("a missing key", returning(failing(KeyError("answer"))), ("mine", "KeyError", "answer")),
    ("an end of iteration", returning(failing(StopIteration())), ("mine", "StopIteration")),
]

MADE: list[Case] = [
    ("value None", scored(None), ("Scores.value", "None")),
    ("value text", scored("ab"), ("Scores.value", "'ab'")),
    ("value a mapping", scored({0: 1.0, 1: 2.0}), ("Scores.value", "{0: 1.0")),
    ("value a set", scored({1.0, 2.0}), ("Scores.value", "{1.0")),
    ("value bytes", scored(b"ab"), ("Scores.value", "b'ab'")),
    ("value complex", scored(np.array([1j, 2.0])), ("Scores.value", "1.j")),
    ("value of texts", scored(np.array(["1", "2"])), ("Scores.value", "'1'")),
    ("value of objects", scored(np.array([None, 1.0])), ("Scores.value", "None")),
    ("value ragged", scored([[1.0], [1.0, 2.0]]), ("Scores.value", "[[1.0]")),
    ("value a scalar", scored(np.float32(1)), ("Scores.value", "1.0")),
    ("value of two dimensions", scored(np.ones((2, 1))), ("Scores.value", "(2, 1)")),
    ("value of one", scored(np.ones(1, np.float32)), ("Mine", "1")),
    ("value nan", scored(np.array([1.0, math.nan])), ("Mine", "row 1", "nan")),
    ("value inf", scored(np.array([1.0, math.inf])), ("Mine", "row 1", "inf")),
    ("valid None", scored(np.ones(2), valid=None), ("Scores.valid", "None")),
    ("valid in words", scored(np.ones(2), valid=["no", "no"]), ("Scores.valid", "'no'")),
    ("valid one word", scored(np.ones(2), valid=["no"]), ("Scores.valid", "'no'")),
    ("valid in numbers", scored(np.ones(2), valid=[0.5, 1.0]), ("Scores.valid", "0.5")),
    ("valid of three", scored(np.ones(2), valid=np.ones(3, bool)), ("Mine", "3")),
    ("valid a switch", scored(np.ones(2), valid=True), ("Scores.valid", "True")),
    ("std in words", scored(np.ones(2), std=["a", "b"]), ("Scores.std", "'a'")),
    ("std complex", scored(np.ones(2), std=np.array([1j, 1])), ("Scores.std", "1.j")),
    ("std of one", scored(np.ones(2), std=np.ones(1)), ("Scores.std", "1")),
    ("std below 0", scored(np.ones(2), std=np.array([1.0, -1.0])), ("Scores.std", "-1.0")),
    ("std nan", scored(np.ones(2), std=np.array([1.0, math.nan])), ("Scores.std", "nan")),
    ("Scores.of None", lambda w: Scores.of(None), ("Scores.value", "None")),
    ("Scores.of text", lambda w: Scores.of("12"), ("Scores.value", "'12'")),
    ("Scores.of texts", lambda w: Scores.of(["1", "2"]), ("Scores.value", "'1'")),
    ("Scores.of a mapping", lambda w: Scores.of({1: 2}), ("Scores.value", "{1: 2}")),
    ("Scores.of a set", lambda w: Scores.of({1.0}), ("Scores.value", "{1.0}")),
    ("Scores.of complex", lambda w: Scores.of([1j]), ("Scores.value", "1j")),
    ("Scores.of a number", lambda w: Scores.of(3), ("Scores.value", "3")),
    ("Scores.of std in words", lambda w: Scores.of([1.0], std="x"), ("Scores.std", "'x'")),
]


class OfOne:
    def score(self, prompts: Any) -> Any: ...


class OfThree:
    def score(self, prompts: Any, responses: Any, answers: Any) -> Any: ...


class Named:
    columns = "answer"

    def score(self, prompts: Any, responses: Any, answer: Any) -> Any: ...


class Scaled:
    normalizer = (1.0, 0.0)

    def score(self, prompts: Any, responses: Any) -> Any: ...


class Listing:
    def score(self, prompts: Any, responses: Any) -> Any:
        return [1.0, 2.0]


class Void:
    def score(self, prompts: Any, responses: Any) -> Any:
        return None


async def later(prompts: Any, completions: Any) -> Any: ...


def of_others(question: Any, answer: Any) -> Any: ...


def of_nothing() -> Any: ...


def by_place(prompts: Any, completions: Any, /) -> Any: ...


SUBJECTS: list[Case] = [
    ("nothing", lambda w: as_reward_model(None), ("reward model", "None")),
    ("a number", lambda w: as_reward_model(3), ("reward model", "3")),
    ("text", lambda w: as_reward_model("f"), ("reward model", "'f'")),
    ("a mapping", lambda w: as_reward_model({}), ("reward model", "{}")),
    ("a list", lambda w: as_reward_model([len]), ("reward model", "[<built-in")),
    ("a class", lambda w: as_reward_model(LengthReward), ("reward model", "LengthReward", "instance")),
    ("a module of torch", lambda w: as_reward_model(torch.nn.Linear(1, 1)), ("reward model", "Linear")),
    ("an asynchronous function", lambda w: as_reward_model(later), ("later", "asynchronous")),
    ("a function of other names", lambda w: as_reward_model(of_others), ("of_others", "question")),
    ("a function of nothing", lambda w: as_reward_model(of_nothing), ("of_nothing", "[]")),
    ("a function by place", lambda w: as_reward_model(by_place), ("by_place", "prompts")),
    ("a function of one other name", lambda w: as_reward_model(lambda x: [1.0]), ("<lambda>", "'x'")),
    ("score() of one", lambda w: as_reward_model(OfOne()), ("OfOne", "prompts")),
    ("score() of three", lambda w: as_reward_model(OfThree()), ("OfThree", "answers")),
    ("columns in one text", lambda w: as_reward_model(Named()), ("Named", "'answer'")),
    ("a normaliser that is a pair", lambda w: as_reward_model(Scaled()), ("Scaled", "(1.0, 0.0)")),
    ("a list for Scores", lambda w: checked_scores(as_reward_model(Listing()), TWO, TWO), ("Listing", "list")),
    ("None for Scores", lambda w: checked_scores(as_reward_model(Void()), TWO, TWO), ("Void", "NoneType")),
    ("FunctionRewardModel(3)", lambda w: FunctionRewardModel(3), ("reward model", "3")),
    ("FunctionRewardModel(None)", lambda w: FunctionRewardModel(None), ("reward model", "None")),
    ("load 3", lambda w: load_reward_model(3), ("reward model", "3")),
    ("load nothing", lambda w: load_reward_model(None), ("reward model", "None")),
    ("load an array", lambda w: load_reward_model(np.array([1, 2])), ("reward model", "array([1, 2])")),
    ("load an empty name", lambda w: load_reward_model(""), ("reward model", "''")),
    ("load a name", lambda w: load_reward_model("nope"), ("reward model", "'nope'")),
    ("load no module", lambda w: load_reward_model("no_such:score"), ("no_such",)),
    ("load no attribute", lambda w: load_reward_model("os:no_such"), ("os", "no_such")),
    ("load a text of a module", lambda w: load_reward_model("os:sep"), ("reward model", "'/'")),
    ("load an empty folder", lambda w: load_reward_model(w.tmp), ("kind",)),
    ("load a name that needs arguments", lambda w: load_reward_model("ensemble"), ("ensemble", "members")),
    ("a record that is cut", lambda w: load_record(w, "{"), ("lm_gym_reward_model.json",)),
    ("a record that is a list", lambda w: load_record(w, "[]"), ("lm_gym_reward_model.json",)),
    ("a record without a kind", lambda w: load_record(w, "{}"), ("lm_gym_reward_model.json", "kind")),
    ("a record of kind 3", lambda w: load_record(w, '{"kind": 3}'), ("lm_gym_reward_model.json", "3")),
    ("a record of another kind", lambda w: load_record(w, '{"kind": "nope"}'), ("'nope'",)),
    ("a deep record", lambda w: load_record(w, "[" * 200_000), ("lm_gym_reward_model.json",)),
    ("a record in Latin-1", lambda w: load_record(w, b'{"kind": "\xe9"}'), ("lm_gym_reward_model.json",)),
    ("a preference of nothing else", lambda w: load_record(w, '{"kind": "preference"}'), ("folder",)),
    ("an embedding of nothing else", lambda w: load_record(w, '{"kind": "embedding"}'), ("folder",)),
    ("an oracle of nothing else", lambda w: load_record(w, '{"kind": "oracle"}'), ("folder",)),
    ("an ensemble of nothing else", lambda w: load_record(w, '{"kind": "ensemble"}'), ("folder",)),
    ("a cross-encoder of nothing else", lambda w: load_record(w, '{"kind": "cross-encoder"}'), ("folder",)),
]


def load_record(world: Any, text: str | bytes) -> Any:
    return load_reward_model(world.file("folder/lm_gym_reward_model.json", text).parent)


def mine(prompts: Any, completions: Any) -> list[float]:
    return [0.0 for _ in completions]


PARTS: list[Case] = [
    ("an ensemble of none", lambda w: EnsembleRewardModel([]), ("EnsembleRewardModel", "0")),
    ("an ensemble of one", lambda w: EnsembleRewardModel([mine]), ("EnsembleRewardModel", "1")),
    ("an ensemble of a number", lambda w: EnsembleRewardModel(3), ("EnsembleRewardModel", "3")),
    ("an ensemble of numbers", lambda w: EnsembleRewardModel([1, 2]), ("reward model", "1")),
    ("another rule", lambda w: EnsembleRewardModel([mine, mine], rule="best"), ("rule", "'best'")),
    ("a rule that is a list", lambda w: EnsembleRewardModel([mine, mine], rule=["mean"]), ("rule", "['mean']")),
    ("a penalty below 0", lambda w: EnsembleRewardModel([mine, mine], penalty=-1), ("penalty", "-1")),
    ("a penalty in text", lambda w: EnsembleRewardModel([mine, mine], penalty="1"), ("penalty", "'1'")),
    ("a sum of nothing", lambda w: WeightedSum({}), ("WeightedSum", "none")),
    ("a sum of a list", lambda w: WeightedSum([mine]), ("WeightedSum", "[<function")),
    ("a sum without weights", lambda w: WeightedSum({"a": mine}), ("WeightedSum", "'a'")),
    ("a weight in text", lambda w: WeightedSum({"a": ("1", mine)}), ("'a'", "'1'")),
    ("a weight that is nan", lambda w: WeightedSum({"a": (math.nan, mine)}), ("'a'", "nan")),
    ("a term that is a number", lambda w: WeightedSum({"a": (1.0, 3)}), ("reward model", "3")),
    ("no regular expression", lambda w: RegexReward("("), ("RegexReward", "'('")),
    ("a number for a regular expression", lambda w: RegexReward(3), ("RegexReward", "3")),
    ("no matches", lambda w: RegexReward("a", most=0), ("RegexReward", "0")),
    ("half a match", lambda w: RegexReward("a", most=1.5), ("RegexReward", "1.5")),
    ("flags in text", lambda w: RegexReward("a", flags="i"), ("RegexReward", "'i'")),
    ("no words in an n-gram", lambda w: RepetitionPenalty(ngram=0), ("RepetitionPenalty", "0")),
    ("an n-gram in text", lambda w: RepetitionPenalty(ngram="3"), ("RepetitionPenalty", "'3'")),
    ("half a word in an n-gram", lambda w: RepetitionPenalty(ngram=2.5), ("RepetitionPenalty", "2.5")),
    ("no lexicon", lambda w: LexiconReward([]), ("LexiconReward", "[]")),
    ("a lexicon of numbers", lambda w: LexiconReward([3]), ("LexiconReward", "3")),
    ("a lexicon that is a number", lambda w: LexiconReward(3), ("LexiconReward", "3")),
    ("a weight of inf", lambda w: LexiconReward(["a"], weight=math.inf), ("LexiconReward", "inf")),
    ("a weight in text", lambda w: LexiconReward(["a"], weight="1"), ("LexiconReward", "'1'")),
    ("a cache of nothing", lambda w: CachedRewardModel(3), ("reward model", "3")),
    ("a cache that is no SQLite", lambda w: cached(w, w.file("c.db", "x" * 5000)), ("c.db", "SQLite")),
    ("a cache that is a folder", lambda w: cached(w, w.tmp), ("cache", "SQLite")),
    ("a cache below a file", lambda w: cached(w, w.file("f", "") / "c.db"), ("c.db",)),
    ("a cache of another table", lambda w: cached(w, other_table(w)), ("t.db",)),
    ("chunks of no rows", lambda w: CachedRewardModel(mine, chunk_rows=0), ("chunk_rows", "0")),
    ("a cache of no size", lambda w: CachedRewardModel(mine, size=0), ("size", "0")),
    ("a lambda kept in a file", lambda w: CachedRewardModel(lambda prompts: [], path=w.tmp / "x.db"), ("identity",)),
]


def cached(world: Any, path: Any) -> Any:
    return CachedRewardModel(mine, path=path, identity="x").score(TWO, TWO)


def other_table(world: Any) -> Any:
    import sqlite3

    with sqlite3.connect(world.tmp / "t.db") as store:
        store.execute("CREATE TABLE texts (name TEXT)")
    store.close()
    return world.tmp / "t.db"


ALL = [
    pytest.param(call, words, id=f"{group}: {name}")
    for group, cases in (("returned", RETURNED), ("made", MADE), ("subjects", SUBJECTS), ("parts", PARTS))
    for name, call, words in cases
]


@pytest.mark.parametrize(("call", "words"), ALL)
def test_a_bad_score_or_reward_model_is_named(world: Any, refuses: Any, call: Any, words: tuple[str, ...]) -> None:
    refuses(world, call, words)
