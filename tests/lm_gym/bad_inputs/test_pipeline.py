"""Damaged files in the workspace of a run of the loop, and parts of a plan that do not go together."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from lm_gym.app.pipeline.plan import LoopPlan
from lm_gym.app.pipeline.workspace import Workspace
from lm_gym.reward_models import RecordedAnnotator, Split
from lm_gym.runs import RunIdentity

Case = tuple[str, Callable[[Any], Any], tuple[str, ...]]


def read_back(mark: str | bytes) -> Callable[[Any], Any]:
    """Take up a run whose first stage is finished, with this in place of its mark."""

    def call(world: Any) -> str:
        for resume in (False, True):
            identity = RunIdentity(kind="test")
            with Workspace(world.tmp / "run", identity, console=Console(file=io.StringIO()), resume=resume) as space:
                loaded = space.stage("sft", lambda folder: "all of it", lambda folder: folder.name)
            if not resume:
                world.file("run/sft/stage.json", mark)
        return loaded

    return call


NAMES = ("sft/stage.json", "mark of a finished stage", "delete it, and go on with --resume")
STAGES: list[Case] = [
    ("cut short", read_back('{"seconds": 1.5, "fo'), NAMES),
    ("empty", read_back(""), NAMES),
    ("a list", read_back("[]"), (*NAMES, "[]")),
    ("a number", read_back("3"), (*NAMES, "3")),
    ("null", read_back("null"), (*NAMES, "None")),
    ("an object of nothing", read_back("{}"), (*NAMES, "seconds")),
    ("seconds in text", read_back('{"seconds": "1", "found": null}'), (*NAMES, "'seconds' is '1'")),
    ("seconds of null", read_back('{"seconds": null, "found": null}'), (*NAMES, "'seconds' is None")),
    ("seconds of NaN", read_back('{"seconds": NaN, "found": null}'), (*NAMES, "'seconds' is nan")),
    ("seconds past all floats", read_back('{"seconds": 1e400, "found": null}'), (*NAMES, "'seconds' is inf")),
    ("seconds below 0", read_back('{"seconds": -1, "found": null}'), (*NAMES, "'seconds' is -1")),
    ("seconds as a switch", read_back('{"seconds": true, "found": null}'), (*NAMES, "'seconds' is True")),
    ("nothing found", read_back('{"seconds": 1}'), (*NAMES, "found")),
    ("a number found", read_back('{"seconds": 1, "found": 3}'), (*NAMES, "'found' is 3")),
    ("half a surrogate pair found", read_back('{"seconds": 1, "found": "\\ud800"}'), (*NAMES, "surrogates")),
    ("deep", read_back("[" * 200_000), NAMES),
    ("binary", read_back(b"\x80\x00\xff"), NAMES),
    ("Latin-1", read_back(b'{"found": "\xe9"}'), NAMES),
]


def planned(**changes: Any) -> Callable[[Any], Any]:
    good = {"title": "", "summary": "", "base": Path(), "annotator": RecordedAnnotator(())}
    good |= {"train_prompts": ("a",), "held_out_prompts": ("b",)}
    return lambda world: LoopPlan(**good | changes)


PLANS: list[Case] = [
    ("nobody to ask", planned(annotator=None), ("LoopPlan", "annotator", "judgements")),
    ("an annotator and judgements", planned(judgements=Split([], [])), ("LoopPlan", "annotator", "judgements")),
    ("an annotator's class", planned(annotator=RecordedAnnotator), ("LoopPlan.annotator", "RecordedAnnotator")),
    ("an annotator that only asks", planned(annotator=len), ("LoopPlan.annotator", "len")),
    ("judgements in a list", planned(annotator=None, judgements=[]), ("LoopPlan.judgements", "[]")),
    ("judgements in a pair", planned(annotator=None, judgements=([], [])), ("LoopPlan.judgements", "([], [])")),
    ("no prompts", planned(train_prompts=()), ("LoopPlan", "training prompts")),
    ("prompts on both sides", planned(held_out_prompts=("a", "b")), ("LoopPlan", "held-out")),
    ("no field", planned(rouds=1), ("LoopPlan", "rouds", "rounds")),
]
ALL = [
    pytest.param(call, words, id=f"{group}: {name}")
    for group, cases in (("stages", STAGES), ("plans", PLANS))
    for name, call, words in cases
]


@pytest.mark.parametrize(("call", "words"), ALL)
def test_a_bad_input_of_the_loop_is_named(world: Any, refuses: Any, call: Any, words: tuple[str, ...]) -> None:
    refuses(world, call, words)


def test_a_whole_mark_of_a_stage_is_read_back(world: Any) -> None:
    assert read_back('{"seconds": 1, "found": "all"}')(world) == "sft"
