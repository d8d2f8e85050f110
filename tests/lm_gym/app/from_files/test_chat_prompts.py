"""Chats as prompts of every command: rendered by the model's own template, once."""

from __future__ import annotations

import shutil
import sys
import types
from pathlib import Path

import pytest

from lm_gym import load_language_model
from lm_gym.app.cli import main
from lm_gym.app.from_files.file_run import read_human_judgements
from lm_gym.assets import REVIEWS_LM
from lm_gym.models.language_model import load_tokenizer
from lm_gym.prompts import load_prompts
from lm_gym.tools.console.terminal import plain_console
from lm_gym.tools.files import read_jsonl, write_jsonl

TEMPLATE = (
    "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
CHATS = [[{"role": "user", "content": f"Review the {what}."}] for what in ("lamp", "kettle", "chair")]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The built-in model with a chat template."""
    folder = tmp_path_factory.mktemp("chat") / "model"
    shutil.copytree(REVIEWS_LM, folder)
    tokenizer = load_tokenizer(folder)
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def chats(tmp_path: Path) -> str:
    rows = [{"messages": turns, "answer": turns[0]["content"][11:-1]} for turns in CHATS]
    return str(write_jsonl(tmp_path / "chats.jsonl", rows))


def test_generate_answers_chats_and_its_rows_are_prompts_again(model: str, chats: str, tmp_path: Path) -> None:
    out, again = tmp_path / "out.jsonl", tmp_path / "again.jsonl"
    short = ["--max-new-tokens", "6", "--count", "2"]
    assert main(["generate", "--model", model, "--prompts", chats, "--out", str(out), *short]) == 0
    rows = read_jsonl(out)
    assert [row["messages"] for row in rows] == [turns for turns in CHATS for _ in range(2)]
    assert rows[0]["prompt"] == "[user] Review the lamp.\n[assistant]"
    assert main(["generate", "--model", model, "--prompts", str(out), "--out", str(again), *short]) == 0
    assert read_jsonl(again) == rows


def test_compare_scores_chats_with_their_columns(
    model: str, chats: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, str]] = []

    def reward(prompts: list[str], completions: list[str], answer: list[str], **others: object) -> list[float]:
        assert not others  # as in an environment
        seen.extend(zip(prompts, answer, strict=True))
        return [1.0] * len(prompts)

    module = types.ModuleType("reward_of_chats")
    module.reward = reward  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    given = ["--prompts", chats, "--reward-model", "reward_of_chats:reward", "--max-new-tokens", "4"]
    assert main(["compare", model, model, *given]) == 0
    assert seen[:3] == [(f"[user] Review the {one}.\n[assistant]", one) for one in ("lamp", "kettle", "chair")]
    assert "[user] Review the lamp." in capsys.readouterr().out


def test_train_learns_on_chats(model: str, chats: str, tmp_path: Path) -> None:
    truth = ["--reward-model", "lm_gym.reviews:true_score", "--eval-prompts", chats]
    short = ["--iterations", "1", "--episodes", "4", "--max-new-tokens", "6", "--out", str(tmp_path / "run")]
    assert main(["train", "--model", model, "--prompts", chats, *truth, *short]) == 0
    assert (tmp_path / "run" / "policy" / "model.safetensors").is_file()


def test_a_model_without_a_template_refuses_chats(
    chats: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["generate", "--model", str(REVIEWS_LM), "--prompts", chats]) == 2
    assert "need a tokenizer with a chat template" in " ".join(capsys.readouterr().err.split())
    nothing = write_jsonl(tmp_path / "rows.jsonl", [{"question": "?"}])
    assert main(["generate", "--model", str(REVIEWS_LM), "--prompts", str(nothing)]) == 2
    told = " ".join(capsys.readouterr().err.split())
    assert "row 1: must have a text under 'prompt' or a chat under 'messages', got the keys ['question']" in told


@pytest.mark.parametrize("begins", [False, True], ids=["plain", "bos"])
def test_run_writes_judged_chats_by_the_template_of_its_model(begins: bool, model: str, tmp_path: Path) -> None:
    folder = shutil.copytree(model, tmp_path / "model")
    if begins:  # as Llama's: the tokenizer begins every text with BOS, and so does the template
        from tokenizers.processors import TemplateProcessing

        tokenizer = load_tokenizer(folder)
        tokenizer.bos_token = tokenizer.eos_token
        bos = (tokenizer.bos_token, tokenizer.bos_token_id)
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single=f"{bos[0]} $A", special_tokens=[bos])
        tokenizer.chat_template = "{{ bos_token }}" + TEMPLATE
        tokenizer.save_pretrained(folder)
    rows = [
        {"prompt": turns, "chosen": [{"role": "assistant", "content": "Good."}], "rejected": [_said("Bad.")]}
        for turns in CHATS
    ]
    file = write_jsonl(tmp_path / "pairs.jsonl", [*rows, {"prompt": "No chat:", "chosen": "a", "rejected": "b"}])
    how = {"separator": "\n", "group_separator": None, "held_out": 0.25, "seed": 0, "console": plain_console()}
    found = read_human_judgements([file], model=str(folder), **how)  # type: ignore[arg-type]
    prompts = {*found.train_prompts, *found.held_out_prompts}
    assert prompts == {"No chat:\n", *(f"[user] {turns[0]['content']}\n[assistant]" for turns in CHATS)}
    tokenizer = load_language_model(folder).tokenizer
    as_text = load_prompts(["[user] Review the lamp.\n[assistant]"], tokenizer)[0].ids
    as_chat = load_prompts([{"messages": CHATS[0]}], tokenizer)[0].ids
    assert as_text.tolist() == as_chat.tolist()
    plain = read_human_judgements([file], **how)  # type: ignore[arg-type]
    assert "\n\nHuman: Review the lamp.\n\nAssistant:" in {*plain.train_prompts, *plain.held_out_prompts}


def _said(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def test_a_system_message_is_told_to_the_model_and_scored_in_the_form_of_choice(
    model: str, chats: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    def reward(prompts: list[str], completions: list[str]) -> list[float]:
        seen.extend(prompts)
        return [1.0] * len(prompts)

    module = types.ModuleType("reward_of_transcripts")
    module.reward = reward  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    given = ["--system", "Be brief.", "--max-new-tokens", "4"]
    scored = ["--reward-model", "reward_of_transcripts:reward", "--scored-chat", "transcript"]
    short = ["--iterations", "1", "--episodes", "4", "--eval-data", chats, "--out", str(tmp_path / "run")]
    assert main(["train", "--model", model, "--data", chats, *given, *scored, *short]) == 0
    assert main(["compare", model, model, "--data", chats, *given, *scored]) == 0
    lamp = "\n\nSystem: Be brief.\n\nHuman: Review the lamp.\n\nAssistant:"
    assert {prompt.replace("kettle", "lamp").replace("chair", "lamp") for prompt in seen} == {lamp}
    out = tmp_path / "out.jsonl"
    assert main(["generate", "--model", model, "--data", chats, *given, "--out", str(out)]) == 0
    assert read_jsonl(out)[0]["messages"] == [{"role": "system", "content": "Be brief."}, *CHATS[0]]
    assert read_jsonl(out)[0]["prompt"].startswith("[system] Be brief.")
    rescored = tmp_path / "as_scored.jsonl"
    asked = ["--data", chats, *given, "--scored-chat", "last_message"]
    assert main(["generate", "--model", model, *asked, "--out", str(rescored)]) == 0
    rows = read_jsonl(rescored)
    assert [row["prompt"] for row in rows] == [turns[-1]["content"] for turns in CHATS]  # what a reward model reads
    assert [row["response"] for row in rows] == [row["response"] for row in read_jsonl(out)]
