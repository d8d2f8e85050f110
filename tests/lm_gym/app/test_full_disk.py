"""A disk that fills up while a command writes: one line with the path, and what was there before stays whole."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from lm_gym import reviews
from lm_gym.agents import LanguageModelPolicy
from lm_gym.agents.supervised.loop import RunWatcher
from lm_gym.app.cli import main
from lm_gym.assets import REVIEWS_LM
from lm_gym.runs.manifests import check_manifest
from lm_gym.tools.files import write_jsonl

MODEL = str(REVIEWS_LM)
Full = Callable[[int], AbstractContextManager[None]]
LIMIT = 1_000_000  # bytes; below the size of the model's weights


def arguments(command: str, folder: Path) -> list[str]:
    prompts = [{"prompt": prompt} for prompt in reviews.prompts("train")[:4]]
    votes = [{"prompt": row["prompt"], "chosen": "a good film", "rejected": "bad"} for row in prompts]
    data = {"sft": reviews.demonstrations(4, 0), "train": prompts, "reward train": votes}[command]
    file = str(write_jsonl(folder / "rows.jsonl", data))
    short = ["--iterations", "1", "--episodes", "4", "--max-new-tokens", "4"]
    options = {
        "sft": ["--model", MODEL, "--data", file, "--epochs", "4", "--batch-size", "1"],
        "train": ["--model", MODEL, "--prompts", file, "--reward-model", "lm_gym.reviews:true_score", *short],
        "reward train": ["--data", file, "--model", MODEL],
    }
    return [*command.split(), *options[command], "--out", str(folder / "out")]


@pytest.mark.parametrize("command", ["sft", "train", "reward train"])
def test_a_model_that_cannot_be_written_is_told_in_a_line(
    command: str, tmp_path: Path, full_disk: Full, capsys: pytest.CaptureFixture[str]
) -> None:
    given = arguments(command, tmp_path)
    with full_disk(LIMIT):
        assert main(given) == 1
    told = "".join(capsys.readouterr().err.split())
    assert f"WriteError:{tmp_path}/out" in told
    assert "File too large; free space on its disk".replace(" ", "") in told.replace("(oserror27)", "")
    assert main([*given, "--resume"]) == 0


def test_a_checkpoint_of_the_trainer_that_cannot_be_written_leaves_the_one_before(
    tmp_path: Path, full_disk: Full, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    original, limits = RunWatcher.on_step_end, full_disk(LIMIT)

    def fills_the_disk(self: Any, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        original(self, args, state, control, **kwargs)
        control.should_save = state.global_step in (3, 5)
        if state.global_step == 5:
            limits.__enter__()

    monkeypatch.setattr(RunWatcher, "on_step_end", fills_the_disk)
    try:
        assert main(arguments("sft", tmp_path)) == 1
    finally:
        limits.__exit__(None, None, None)
    assert f"WriteError:{tmp_path}/out/checkpoints/checkpoint-5:must" in "".join(capsys.readouterr().err.split())
    check_manifest(tmp_path / "out" / "checkpoints" / "checkpoint-3")


def test_a_policy_that_cannot_be_written_leaves_the_old_one(
    tmp_path: Path, full_disk: Full, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [*arguments("train", tmp_path), "--iterations", "25"]
    saved: list[Path] = []
    original, limits = LanguageModelPolicy.save_pretrained, full_disk(LIMIT)

    def fills_the_disk(self: Any, folder: Path) -> Path:
        saved.append(folder)
        if len(saved) == 2:
            limits.__enter__()
        return original(self, folder)

    monkeypatch.setattr(LanguageModelPolicy, "save_pretrained", fills_the_disk)
    try:
        assert main(given) == 1
    finally:
        limits.__exit__(None, None, None)
    told = "".join(capsys.readouterr().err.split())
    assert f"WriteError:{tmp_path}/out/checkpoints/checkpoint-20:must" in told
    assert "aresaved" not in told
    assert os.listdir(tmp_path / "out" / "checkpoints") == ["checkpoint-10"]
    check_manifest(tmp_path / "out" / "checkpoints" / "checkpoint-10")
