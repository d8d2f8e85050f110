"""What a command says when a signal stops it: only what is true of the files that it leaves."""

from __future__ import annotations

import os
import signal
import sys
import types
from pathlib import Path

import pytest

from lm_gym import reviews
from lm_gym.app.cli import main
from lm_gym.assets import REVIEWS_LM
from lm_gym.tools.files import write_jsonl


@pytest.mark.parametrize("times", [1, 2])
def test_a_checkpoint_is_promised_only_where_there_is_one(
    times: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(prompts: list[str], completions: list[str]) -> list[float]:
        for _ in range(times):
            os.kill(os.getpid(), signal.SIGINT)
        return [0.0] * len(prompts)

    module = types.ModuleType("reward_functions")
    module.interrupted = interrupted  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "reward_functions", module)
    rows = [{"prompt": prompt} for prompt in reviews.prompts("train")[:4]]
    options = ["--model", str(REVIEWS_LM), "--prompts", str(write_jsonl(tmp_path / "prompts.jsonl", rows))]
    options += ["--reward-model", "reward_functions:interrupted", "--iterations", "3", "--episodes", "4"]
    assert main(["train", *options, "--max-new-tokens", "3", "--out", str(tmp_path / "run")]) == 128 + signal.SIGINT
    told = " ".join(capsys.readouterr().err.split())
    assert (tmp_path / "run" / "checkpoints").exists() == (times == 1)
    assert ("what was done is saved, and the same command with --resume goes on" in told) == (times == 1)
    assert ("what was done since the last checkpoint, if there is one, is lost" in told) == (times == 2)
