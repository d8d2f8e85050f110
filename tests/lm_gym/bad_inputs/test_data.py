"""Bad judgements, bad files of them, and bad words on the command line."""

import math
from collections.abc import Callable
from typing import Any

import pytest

from lm_gym.app.cli import main
from lm_gym.reward_models import (
    AnnotatorPool,
    BestOf,
    Choice,
    Judgement,
    Question,
    Ranks,
    Rating,
    RecordedAnnotator,
    Response,
    Thumb,
    Value,
    Vote,
    Votes,
    judgement_from_row,
    load_judgements,
    split_by_prompt,
)
from lm_gym.reward_models.judgements.record import Critique

Case = tuple[str, Callable[[Any], Any], tuple[str, ...]]


def pair(**rest: Any) -> Callable[[Any], Any]:
    return lambda world: Judgement.pair("p", "a", "b", **rest)


def one(verdict: Any, **rest: Any) -> Callable[[Any], Any]:
    return lambda world: Judgement.of("p", ["a"], verdict, **rest)


def two(verdict: Any) -> Callable[[Any], Any]:
    return lambda world: Judgement.of("p", ["a", "b"], verdict)


RECORDS: list[Case] = [
    ("a prompt of a number", lambda w: Judgement.pair(3, "a", "b"), ("prompt", "3")),
    ("a prompt of None", lambda w: Judgement.pair(None, "a", "b"), ("prompt", "None")),
    ("a response of a number", lambda w: Judgement.pair("p", 3, "b"), ("response", "3")),
    ("a response of bytes", lambda w: Judgement.pair("p", b"a", "b"), ("response", "b'a'")),
    ("two equal responses", lambda w: Judgement.pair("p", "a", "a"), ("different", "'a'")),
    ("a model of a number", lambda w: Response(text="a", model=3), ("model", "3")),
    ("a comment of a number", pair(comment=3), ("comment", "3")),
    ("an annotator of a number", pair(annotator=3), ("annotator", "3")),
    ("an origin of its own", pair(origin="web"), ("origin", "'web'")),
    ("a margin in text", pair(margin="1"), ("margin", "'1'")),
    ("a margin below 0", pair(margin=-1), ("margin", "-1")),
    ("a margin of nan", pair(margin=math.nan), ("margin", "nan")),
    ("a margin that is a switch", pair(margin=True), ("margin", "True")),
    ("an overall rating of 6", pair(overall_rating=6), ("overall_rating", "6")),
    ("an overall rating between", pair(overall_rating=2.5), ("overall_rating", "2.5")),
    ("another winner", two(Choice("c")), ("winner", "'c'")),
    ("a winner of a number", two(Choice(1)), ("winner", "1")),
    ("a winner of a list", two(Choice(["a"])), ("winner", "['a']")),
    ("no votes", two(Votes(())), ("votes", "none")),
    ("a vote for another", two(Votes((Vote("c"),))), ("winner", "'c'")),
    ("ranks with a gap", two(Ranks((1, 3))), ("ranks", "[1, 3]")),
    ("ranks from 0", two(Ranks((0, 1))), ("ranks", "[0, 1]")),
    ("ranks between", two(Ranks((1.0, 2.0))), ("ranks", "[1.0, 2.0]")),
    ("three ranks for two", two(Ranks((1, 2, 3))), ("ranks", "3")),
    ("the third of two", two(BestOf(2)), ("best", "2")),
    ("the best in text", two(BestOf("0")), ("best", "'0'")),
    ("the best as a switch", two(BestOf(True)), ("best", "True")),
    ("a thumb of 1", one(Thumb(1)), ("thumb", "1")),
    ("a thumb in words", one(Thumb("yes")), ("thumb", "'yes'")),
    ("a thumb for two", two(Thumb(True)), ("thumb", "2")),
    ("six stars", one(Rating(6)), ("rating", "6")),
    ("stars between", one(Rating(3.5)), ("rating", "3.5")),
    ("stars in text", one(Rating("3")), ("rating", "'3'")),
    ("a value of nan", one(Value(math.nan)), ("value", "nan")),
    ("a value in text", one(Value("1")), ("value", "'1'")),
    ("a value as a switch", one(Value(True)), ("value", "True")),
    ("a value past all floats", one(Value(10**400)), ("value", "1000")),
    ("a critique without words", one(Critique()), ("critique", "none")),
    ("a verdict of None", one(None), ("verdict", "None")),
    ("a verdict of a word", one("a"), ("verdict", "'a'")),
    ("no responses", lambda w: Judgement.of("p", [], Thumb(True)), ("thumb", "0")),
    ("a question of a number", lambda w: Question.of(3, ["a"]), ("question", "3")),
    ("a question of no answers", lambda w: Question.of("p", []), ("question", "none")),
    ("a pool of nobody", lambda w: AnnotatorPool([]), ("AnnotatorPool", "none")),
    ("a pool with a seed in text", lambda w: AnnotatorPool([RecordedAnnotator([])], seed="1"), ("seed", "'1'")),
    ("a row of a list", lambda w: judgement_from_row([1]), ("[1]",)),
    ("a row of no form", lambda w: judgement_from_row({"x": 1}), ("x",)),
    ("a row of another kind", lambda w: judgement_from_row({"kind": "smile"}), ("kind", "smile")),
    ("a row of kind 3", lambda w: judgement_from_row({"kind": 3}), ("kind", "3")),
    ("a row of a pair of numbers", lambda w: judgement_from_row({"prompt": "p", "chosen": 1, "rejected": 2}), ("1",)),
    ("shares of more than all", lambda w: split_by_prompt([], held_out=2.0), ("held_out", "0")),
]

GOOD = {"prompt": "p", "chosen": "a", "rejected": "b"}


def lines(text: str | bytes, name: str = "j.jsonl") -> Callable[[Any], Any]:
    return lambda world: load_judgements(world.file(name, text))


def with_row(**changes: Any) -> Callable[[Any], Any]:
    return lambda world: load_judgements(world.rows(GOOD, GOOD | changes, name="j.jsonl"))


FILES: list[Case] = [
    ("no file", lambda w: load_judgements(w.tmp / "nope.jsonl"), ("nope.jsonl",)),
    ("a folder", lambda w: load_judgements(w.tmp), ("test_a_bad",)),
    ("a number", lambda w: load_judgements(3), ("int",)),
    ("none of them", lambda w: load_judgements([]), ("no files",)),
    ("an empty file", lines(""), ("j.jsonl",)),
    ("a cut line", lines('{"prompt": "p", '), ("j.jsonl, line 1",)),
    ("a number on a line", lines("3\n"), ("j.jsonl", "int")),
    ("a list on a line", lines("[]\n"), ("j.jsonl",)),
    ("a deep line", lines("[" * 200_000), ("j.jsonl",)),
    ("a deep value", lines('{"prompt": ' + "[" * 5000 + "]" * 5000 + "}"), ("j.jsonl", "line 1")),
    ("a number of 5000 digits", lines('{"prompt": "p", "response": "a", "rating": ' + "9" * 5000 + "}"), ("line 1",)),
    ("a number past all floats", lines('{"kind": "value", "prompt": "p", "responses": ["a"], "value": 1e400}'), ("1",)),
    ("Latin-1", lines(b'{"prompt": "\xe9"}'), ("j.jsonl", "UTF-8")),
    ("UTF-16", lines('{"prompt": "p"}'.encode("utf-16")), ("j.jsonl", "UTF-8")),
    ("no gzip", lines("{}", "j.jsonl.gz"), ("j.jsonl.gz",)),
    ("half of a surrogate pair", lines('{"prompt": "\\ud800", "chosen": "a", "rejected": "b"}'), ("line 1", "ud800")),
    ("a prompt of a number", with_row(prompt=3), ("line 2", "3")),
    ("a prompt of None", with_row(prompt=None), ("line 2", "prompt")),
    ("a chosen of a number", with_row(chosen=3), ("line 2", "3")),
    ("equal answers", with_row(rejected="a"), ("line 2", "'a'")),
    ("an annotator of a number", with_row(annotator=3), ("line 2", "annotator", "3")),
    ("a comment of a list", with_row(comment=[1]), ("line 2", "comment", "[1]")),
    ("a margin of a word", with_row(margin="big"), ("line 2", "margin", "'big'")),
    ("an overall rating of 9", with_row(overall_rating=9), ("line 2", "overall_rating", "9")),
]

LONG = "x" * 300 + ".jsonl"
COMMANDS: list[tuple[str, Callable[[Any], list[str]], tuple[str, ...]]] = [
    (
        "generate, no model",
        lambda w: generate(w, model="./nope"),
        ("./nope",),
    ),
    ("generate, no count", lambda w: generate(w, "--count", "0"), ("--count", "0")),
    ("generate, a count below 0", lambda w: generate(w, "--count", "-1"), ("--count", "-1")),
    ("generate, a count between", lambda w: generate(w, "--count", "1.5"), ("count", "1.5")),
    ("generate, a temperature of 0", lambda w: generate(w, "--temperature", "0"), ("temperature", "0")),
    ("generate, a temperature of nan", lambda w: generate(w, "--temperature", "nan"), ("temperature", "nan")),
    ("generate, a temperature in words", lambda w: generate(w, "--temperature", "hot"), ("temperature", "hot")),
    ("generate, no tokens", lambda w: generate(w, "--max-new-tokens", "0"), ("--max-new-tokens", "0")),
    ("generate, a seed below 0", lambda w: generate(w, "--seed", "-1"), ("seed", "-1")),
    ("train, no reward model", lambda w: train_line(w, reward="nope"), ("nope",)),
    ("train, no prompts", lambda w: train_line(w, prompts="nope.jsonl"), ("nope.jsonl",)),
    ("train, no iterations", lambda w: train_line(w, "--iterations", "0"), ("iterations", "0")),
    ("train, iterations between", lambda w: train_line(w, "--iterations", "1.5"), ("iterations", "1.5")),
    ("train, a rate of inf", lambda w: train_line(w, "--learning-rate", "inf"), ("--learning-rate", "inf")),
    ("train, a rate of nan", lambda w: train_line(w, "--learning-rate", "nan"), ("--learning-rate", "nan")),
    ("train, a coefficient below 0", lambda w: train_line(w, "--kl-coef", "-1"), ("--kl-coef", "-1")),
    ("train, a target of 0", lambda w: train_line(w, "--kl-target", "0"), ("target", "0")),
    ("train, no episodes", lambda w: train_line(w, "--episodes", "0"), ("episodes", "0")),
    ("train, no evaluations", lambda w: train_line(w, "--eval-every", "0"), ("--eval-every", "0")),
    ("train, a limit of nan seconds", lambda w: train_line(w, "--score-timeout", "nan"), ("--score-timeout", "nan")),
    ("train, a seed below 0", lambda w: train_line(w, "--seed", "-1"), ("--seed", "-1")),
    ("train, text in Latin-1", lambda w: train_line(w, "--stop-strings", "\udce9"), ("--stop-strings", "udce9")),
    ("run, a best share of 2", lambda w: run_line(w, "--best-share", "2"), ("--best-share", "2")),
    ("run, a best share of 0", lambda w: run_line(w, "--best-share", "0"), ("--best-share", "0")),
    ("run, no steps", lambda w: run_line(w, "--pretrain-steps", "0"), ("--pretrain-steps", "0")),
    ("run, all held out", lambda w: run_line(w, "--held-out", "1"), ("--held-out", "1")),
    ("reward train, nan held out", lambda w: fit_line(w, "--held-out", "nan"), ("--held-out", "nan")),
    ("reward train, a debias below 0", lambda w: fit_line(w, "--debias", "-1"), ("--debias", "-1")),
    ("reward train, a rank below 0", lambda w: fit_line(w, "--lora-rank", "-1"), ("--lora-rank", "-1")),
    ("generate, a long name of the output", lambda w: generate(w, "--out", LONG), ("--out", "255 bytes")),
    ("generate, a long name of the model", lambda w: generate(w, model=LONG), ("model", "255 bytes")),
    ("train, a long name of the output", lambda w: train_line(w, "--out", LONG), ("run_dir", "255 bytes")),
    ("train, a long name of the data", lambda w: train_line(w, prompts=LONG), ("--data", "255 bytes")),
    ("reward train, a long output", lambda w: fit_line(w, "--out", LONG), ("--out", "255 bytes")),
    ("reward train, an empty separator", lambda w: fit_line(w, "--group-separator", ""), ("--group-separator", "''")),
    ("reward eval, a long data", lambda w: ["reward", "eval", "--model", "oracle", "--data", LONG], ("255 bytes",)),
    ("report, a long name", lambda w: ["report", LONG], ("report: run", "255 bytes")),
    ("report, no folder", lambda w: ["report", str(w.tmp / "nope")], ("nope",)),
    ("report, a damaged report", lambda w: ["report", str(w.file("r/report.json", "{").parent)], ("report.json",)),
    (
        "reward eval, no folder",
        lambda w: eval_line(w),
        ("nope",),
    ),
    ("a command of its own", lambda w: ["tarin"], ("tarin",)),
    ("a flag of its own", lambda w: ["demo", "--smok"], ("--smok",)),
]


def generate(world: Any, *flags: str, model: str | None = None) -> list[str]:
    prompts = world.rows({"prompt": "a"}, name="p.jsonl")
    return ["generate", "--model", model or str(world.saved_policy()), "--prompts", str(prompts), *flags]


def eval_line(world: Any) -> list[str]:
    return ["reward", "eval", "--model", "./nope", "--data", str(world.rows(GOOD))]


def run_line(world: Any, *flags: str) -> list[str]:
    return ["run", "--data", str(world.rows(GOOD)), "--model", "./nope", "--out", str(world.tmp / "out"), *flags]


def fit_line(world: Any, *flags: str) -> list[str]:
    files = ["--data", str(world.rows(GOOD)), "--out", str(world.tmp / "out")]
    return ["reward", "train", "--model", "./nope", *files, *flags]


def train_line(world: Any, *flags: str, reward: str = "oracle", prompts: str | None = None) -> list[str]:
    given = prompts or str(world.rows({"prompt": "a"}, name="p.jsonl"))
    parts = ["--model", str(world.saved_policy()), "--reward-model", reward, "--prompts", given]
    return ["train", *parts, "--out", str(world.tmp / "out"), "--max-new-tokens", "3", *flags]


ALL = [
    pytest.param(call, words, id=f"{group}: {name}")
    for group, cases in (("records", RECORDS), ("files", FILES))
    for name, call, words in cases
]


@pytest.mark.parametrize(("call", "words"), ALL)
def test_a_bad_judgement_is_named(world: Any, refuses: Any, call: Any, words: tuple[str, ...]) -> None:
    refuses(world, call, words)


@pytest.mark.parametrize(("call", "words"), [case[1:] for case in COMMANDS], ids=[case[0] for case in COMMANDS])
def test_a_bad_command_ends_with_a_line_that_names_it(
    world: Any, capsys: pytest.CaptureFixture[str], call: Any, words: tuple[str, ...]
) -> None:
    try:
        status = main(call(world))
    except SystemExit as ended:  # the parser of the command line
        status = ended.code
    err = "".join(capsys.readouterr().err.split())  # a line is broken anywhere
    assert status in (1, 2)
    assert "Traceback" not in err
    for word in words:
        assert "".join(word.split()) in err
