"""Score and KL of an answer while it is written: right, marked as unfinished, seldom where they are slow."""

from __future__ import annotations

import contextlib
import io
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from lm_gym import LanguageModel, Reference, SamplingConfig
from lm_gym.app.cli import main
from lm_gym.app.talk.conversation import Conversation
from lm_gym.app.talk.speaker import Speaker
from lm_gym.app.talk.verdict import Judge
from lm_gym.assets import REVIEWS_LM
from lm_gym.models.language_model import load_language_model
from lm_gym.models.streaming import Streamed
from lm_gym.scoring.adapters import as_reward_model
from lm_gym.tools.console.terminal import plain_console

PROMPT = "Review of a lamp"


def letters(prompts: Sequence[str], completions: Sequence[str]) -> list[float | None]:
    return [float(len(text)) for text in completions]


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return load_language_model(str(REVIEWS_LM), device="cpu")


@pytest.fixture(scope="module")
def reference() -> Reference:
    """Another model of the same vocabulary."""
    other = load_language_model(str(REVIEWS_LM), device="cpu")
    with torch.no_grad():
        other.model.base_model.h[-1].mlp.c_proj.weight.mul_(0.5)
    return Reference(other)


def speaker(model: LanguageModel, **settings: Any) -> Speaker:
    return Speaker("it", model, SamplingConfig(**{"max_new_tokens": 12, "seed": 0} | settings))


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_an_unfinished_answer_is_measured_as_far_as_it_goes(model: LanguageModel, reference: Reference) -> None:
    it, clock = speaker(model), Clock()
    heard = it.hear(PROMPT)
    so_far = Judge(it, as_reward_model(letters), reference, clock=clock).follow(heard)
    told = []
    for answer in it.answer(heard):
        clock.now += 1
        told.append((so_far(answer), answer))
    ids = torch.tensor([[*heard.prompt.ids, *told[-1][1].generation.ids[0]]])
    with torch.inference_mode():
        one, other = (
            torch.log_softmax(each.model(input_ids=ids).logits[0, :-1], dim=-1).gather(-1, ids[0, 1:, None]).flatten()
            for each in (model, reference.language_model)
        )
    kl = (one - other)[len(heard.prompt.ids) - 1 :].cumsum(0)
    assert len(told) == 12
    for size, (words, answer) in enumerate(told[:-1], start=1):
        assert answer.whole
        found = re.fullmatch(r"so far: score ([\d.]+), KL (-?[\d.]+) nats, (\d+) tokens", words)
        assert found is not None, words
        assert float(found[1]) == len(answer.text)
        assert float(found[2]) == pytest.approx(float(kl[size - 1]), abs=0.006)
        assert int(found[3]) == size
    assert told[-1][0] == told[-2][0]  # it has ended: the verdict is about to come


def test_what_is_held_back_is_not_scored(model: LanguageModel) -> None:
    it, clock = speaker(model), Clock()
    heard = it.hear(PROMPT)
    first = next(iter(it.answer(heard)))
    so_far = Judge(it, as_reward_model(letters), None, clock=clock).follow(heard)
    clock.now += 1
    assert so_far(first._replace(whole=False)) == ""
    assert so_far(first).startswith("so far: score ")


def test_a_stop_string_that_may_be_beginning_is_held_back(model: LanguageModel) -> None:
    plain = speaker(model)
    *_, last = plain.answer(plain.hear(PROMPT))
    begun = last.text[len(last.text) // 2]
    it = speaker(model, stop_strings=(f"{begun}\x00",))
    answers = list(it.answer(it.hear(PROMPT)))
    assert [one.text for one in answers if not one.whole] != []
    for one in answers[:-1]:
        whole = model.tokenizer.decode(one.generation.ids[0])
        assert one.whole == (one.text == whole) == (not whole.endswith(begun))


def test_measuring_takes_a_fifth_of_the_time_at_most(model: LanguageModel) -> None:
    clock, asked = Clock(), []

    def slow(prompts: Sequence[str], completions: Sequence[str]) -> list[float | None]:
        asked.append(clock.now)
        clock.now += 3.0
        return [1.0 for _ in completions]

    it = speaker(model)
    heard = it.hear(PROMPT)
    judge = Judge(it, as_reward_model(slow), None, clock=clock)
    first: Streamed = next(iter(it.answer(heard)))
    for _ in range(2):
        so_far = judge.follow(heard)
        for _ in range(200):
            clock.now += 0.1
            so_far(first)
    # From 100: after .1 s at once; then 3 s of measuring and 12 s of rest; 20 s of writing an answer, the second one
    # begins with a rest too.
    assert asked == pytest.approx([100.1, 115.1, 138.1], abs=0.15)


def test_an_error_of_unfinished_text_does_not_end_the_answer(model: LanguageModel) -> None:
    def needs_an_end(prompts: Sequence[str], completions: Sequence[str]) -> list[float | None]:
        return [float(text.index(".")) for text in completions]

    it, clock = speaker(model), Clock()
    heard = it.hear(PROMPT)
    so_far = Judge(it, as_reward_model(needs_an_end), None, clock=clock).follow(heard)
    clock.now += 1
    assert so_far(next(iter(it.answer(heard)))) == "so far: no score (RewardModelError)"


def test_the_answer_is_the_same_with_and_without(model: LanguageModel, reference: Reference, tmp_path: Path) -> None:
    texts = []
    for options in ({}, {"reward_model": as_reward_model(letters), "reference": reference}):
        it = speaker(model, max_new_tokens=40)
        with (tmp_path / "out").open("w", encoding="utf-8") as file:
            Conversation([it], plain_console(file=file, width=40, force_terminal=True), **options).run(iter([PROMPT]))
        texts.append(it.hear("").kept[-1].answer)
    assert texts[0] == texts[1]


COMMAND = ["chat", str(REVIEWS_LM), "--max-new-tokens", "40", "--reward-model", "lm_gym.reviews:true_score"]
LINES = f"{PROMPT}\n{PROMPT}\x1b[2J\n"
FINAL = r"\(score [\d.]+, \d+ tokens, ended by \w+\)"


def test_without_a_terminal_there_is_the_final_line_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(LINES))
    assert main(COMMAND) == 0
    told = capsys.readouterr().out
    assert len(re.findall(FINAL, told)) == 2
    assert "so far" not in told
    assert "\x1b" not in told


@pytest.mark.skipif(sys.platform == "win32", reason="a pseudo-terminal")
def test_on_a_terminal_the_line_stands_under_the_text() -> None:
    at_every_token = "import sys; from lm_gym.app.talk import verdict; verdict.LEAST_SECONDS = verdict.REST = 0; "
    run = "from lm_gym.app.cli import main; sys.exit(main(sys.argv[1:]))"
    told = in_a_terminal([sys.executable, "-c", at_every_token + run, *COMMAND])
    assert len(re.findall(FINAL, told)) == 2
    assert len(re.findall(r"\(so far: score [\d.]+, \d+ tokens\)", told)) > 10
    assert "\\x1b[2J" in told
    assert "\x1b[2J" not in told


def in_a_terminal(command: list[str]) -> str:
    """Whatever a command prints to a pseudo-terminal while it takes ``LINES``."""
    import pty

    end, other = pty.openpty()
    told = b""
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=other, stderr=other) as process:
        os.close(other)
        assert process.stdin is not None
        process.stdin.write(LINES.encode())
        process.stdin.close()
        with contextlib.suppress(OSError):  # nobody holds the other end any more
            while part := os.read(end, 65536):
                told += part
    os.close(end)
    return told.decode()
