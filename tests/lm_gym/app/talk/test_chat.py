"""``lm-gym chat``: a line is a turn, tokens appear as they come, and nothing typed ends the conversation but /quit."""

from __future__ import annotations

import io
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from lm_gym import LanguageModel, Reference, SamplingConfig, load_reward_model
from lm_gym.app.cli import main
from lm_gym.app.talk.conversation import Conversation
from lm_gym.app.talk.speaker import Speaker
from lm_gym.assets import REVIEWS_LM
from lm_gym.errors import ConfigError
from lm_gym.models.language_model import load_language_model
from lm_gym.tools.console.terminal import plain_console

MODEL = str(REVIEWS_LM)
PROMPT = "Review of a lamp"
TEMPLATE = (
    "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}a:{% endif %}"
)
Say = Callable[..., int]


@pytest.fixture(scope="module")
def chat_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The built-in model with other weights in its last layer, and a chat template."""
    folder = tmp_path_factory.mktemp("chat")
    model, tokenizer = AutoModelForCausalLM.from_pretrained(MODEL), AutoTokenizer.from_pretrained(MODEL)
    with torch.no_grad():
        model.base_model.h[-1].mlp.c_proj.weight.mul_(0.5)
    tokenizer.chat_template = TEMPLATE
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def say(monkeypatch: pytest.MonkeyPatch) -> Say:
    """Run the command over some lines of standard input."""

    def run(lines: str, *arguments: str) -> int:
        monkeypatch.setattr("sys.stdin", io.StringIO(lines))
        return main(["chat", *arguments])

    return run


def speaker(model: str, **settings: Any) -> Speaker:
    sampling = SamplingConfig(**{"max_new_tokens": 8} | settings)
    return Speaker("it", load_language_model(model, device="cpu"), sampling)


def talk(speakers: list[Speaker], lines: list[str], file: io.StringIO | None = None, **options: Any) -> str:
    file = file or io.StringIO()
    console = plain_console(file=file, width=100, force_terminal=options.pop("terminal", False))
    Conversation(speakers, console, **options).run(iter(lines))
    return file.getvalue()


def test_a_line_is_a_turn_and_its_answer_that_of_generate(say: Say, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "--model", MODEL, "--prompt", PROMPT, "--max-new-tokens", "12"]) == 0
    answer = capsys.readouterr().out.removeprefix(PROMPT)
    assert say(f"{PROMPT}\n/quit\nnever read\n", MODEL, "--max-new-tokens", "12") == 0
    told = capsys.readouterr().out
    assert "it continues each text" in told
    assert f"> {PROMPT}\n{answer}(" in told
    assert "never read" not in told


def test_scores_and_kl_are_shown_after_the_answer(
    say: Say, chat_model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--reward-model", "lm_gym.reviews:true_score", "--reference", MODEL, "--max-new-tokens", "12"]
    assert say(f"{PROMPT}\n", chat_model, *given) == 0
    told = capsys.readouterr().out
    assert "has a chat template" in told
    found = re.search(r"\(score (-?[\d.]+), KL (-?[\d.]+) nats, (\d+) tokens, ended by (\w+)\)", told)
    assert found is not None, told
    assert float(found[2]) == pytest.approx(plain_kl(chat_model, MODEL, 12), abs=0.006)
    assert float(found[2]) != 0
    assert say(f"{PROMPT}\n", MODEL, *given) == 0
    assert "KL 0.00 nats" in capsys.readouterr().out  # to itself


def plain_kl(model: str, reference: str, tokens: int) -> float:
    """Summed log-ratio of the first answer, from plain forward passes."""
    one, other = (load_language_model(each, device="cpu") for each in (model, reference))
    heard = speaker(model, max_new_tokens=tokens, seed=0).hear(PROMPT)
    *_, last = speaker(model, max_new_tokens=tokens, seed=0).answer(heard)
    ids = torch.tensor([[*heard.prompt.ids, *last.generation.ids[0]]])
    start = len(heard.prompt.ids)

    def log_probs(each: LanguageModel) -> torch.Tensor:
        found = torch.log_softmax(each.model(input_ids=ids).logits[0, start - 1 : -1], dim=-1)
        return found.gather(-1, ids[0, start:, None])

    return float((log_probs(one) - log_probs(other)).sum())


def test_a_chat_model_is_told_the_turns_in_its_template(chat_model: str) -> None:
    it = speaker(chat_model)
    talk([it], ["first"])
    [answer] = [one.answer for one in it.hear("second").kept]
    assert it.hear("second").prompt.text == f"user: first\nassistant: {answer}\nuser: second\na:"
    talk([it], ["/system Be brief."])
    assert it.hear("second").prompt.text.startswith("system: Be brief.\nuser: first\n")
    talk([it], ["/reset"])
    assert it.hear("second").prompt.text == "system: Be brief.\nuser: second\na:"
    talk([it], ["/system", "//literally"])
    assert it.hear("second").prompt.text.startswith("user: /literally\n")


def test_a_model_without_a_template_continues_texts() -> None:
    it = speaker(MODEL)
    it = Speaker("it", it.model, it.sampling, separator=":")
    talk([it], ["A lamp"])
    [one] = it.hear("").kept
    assert it.hear("").prompt.text == f"A lamp:{one.answer}"
    talk([it], [""])
    assert it.hear("").prompt.text.startswith(f"A lamp:{one.answer}")
    assert it.hear("A desk").prompt.text == "A desk:"
    assert "begin a text with it" in talk([it], ["/system Be brief."])


def test_the_oldest_turns_that_do_not_fit_are_left_out_whole(chat_model: str) -> None:
    it = speaker(chat_model, max_new_tokens=60)
    told = talk([it], [f"message {number}" for number in range(8)])
    assert "the oldest 1 of its turns no longer fit and were left out" in told
    heard = it.hear("last")
    assert heard.prompt.text.startswith("user: message ")
    assert heard.prompt.text.endswith("\nuser: last\na:")
    limit = it.model.max_length
    assert limit is not None
    assert len(heard.prompt.ids) + 60 <= limit
    assert "shorten the message, or lower --max-new-tokens" in talk([it], ["very long " * 200])
    assert it.hear("last").prompt.text == heard.prompt.text


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("/temperature hot", "must be followed by a number, got 'hot'"),
        ("/temperature 0", "temperature: must be"),
        ("/volume 3", "there is none of this name"),
        ("", "nothing yet to go on with"),
    ],
)
def test_a_mistake_is_told_and_the_conversation_goes_on(line: str, words: str) -> None:
    told = talk([speaker(MODEL)], [line, "/temperature 0.5", PROMPT])
    assert words in told
    assert "temperature 0.5" in told
    assert "8 tokens, ended by length" in told
    with pytest.raises(ConfigError if line else ValueError, match=re.escape(words)):
        talk([speaker(MODEL)], [line], attended=False)


def test_without_a_terminal_a_mistake_is_the_exit_status(say: Say, capsys: pytest.CaptureFixture[str]) -> None:
    assert say("/system Be brief.\n", MODEL) == 2
    assert "needs a chat template" in capsys.readouterr().err
    assert say("a\n", MODEL, "--system", "Be brief.") == 2
    assert say("a\n", str(REVIEWS_LM / "nothing")) == 2


def test_two_models_answer_one_after_another_or_side_by_side(
    say: Say, chat_model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert say(f"{PROMPT}\n", MODEL, chat_model, "--max-new-tokens", "4") == 0
    told = capsys.readouterr().out
    assert told.index(f"\n{MODEL}:\n") < told.index(f"\n{chat_model}:\n")
    assert told.count("4 tokens, ended by length") == 2
    one, other = speaker(MODEL), speaker(chat_model)
    shown = talk([one, other], [PROMPT], terminal=True)
    answers = [each.hear("").kept[-1].answer.split()[0] for each in (one, other)]
    lines = [line for line in re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown).splitlines() if "│ │" in line]
    assert any(all(word in line for word in answers) for line in lines), shown


def test_no_escape_sequence_of_a_message_reaches_the_terminal(say: Say, capsys: pytest.CaptureFixture[str]) -> None:
    assert say("[INST] x [/INST]\x1b[2J\x1b]0;title\x07\n", MODEL, "--max-new-tokens", "4") == 0
    assert r"> [INST] x [/INST]\x1b[2J\x1b]0;title\x07" in (told := capsys.readouterr().out)
    assert "\x1b" not in told


class Signalling(io.StringIO):
    """Sends this process a signal when a number of tokens has been written."""

    def __init__(self, number: int, after: int) -> None:
        super().__init__()
        self._number, self._left = number, after

    def write(self, text: str) -> int:
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), self._number)
        return super().write(text)


def test_ctrl_c_stops_the_answer_and_not_the_program(chat_model: str) -> None:
    it = speaker(chat_model, max_new_tokens=30, min_new_tokens=30)
    told = talk([it], ["one", "two"], file=Signalling(signal.SIGINT, after=6), reward_model=true_score())
    assert "(stopped)" in told
    assert told.count("30 tokens, ended by") == 1  # the answer to the second
    first, _ = it.hear("three").kept
    assert 0 < len(it.model.tokenizer(first.answer)["input_ids"]) < 30


def test_sigterm_ends_the_program() -> None:
    with pytest.raises(SystemExit) as stop:
        talk([speaker(MODEL, min_new_tokens=8)], ["one", "two"], file=Signalling(signal.SIGTERM, after=6))
    assert stop.value.code == 128 + signal.SIGTERM


def true_score() -> Any:
    return load_reward_model("lm_gym.reviews:true_score")


def test_a_reference_of_another_vocabulary_is_told(chat_model: str, tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(chat_model)
    model.resize_token_embeddings(model.config.vocab_size + 8, mean_resizing=False)
    other = Reference(LanguageModel(model, AutoTokenizer.from_pretrained(chat_model)))
    assert "must share the reference's vocabulary" in talk([speaker(MODEL)], [PROMPT], reference=other)
