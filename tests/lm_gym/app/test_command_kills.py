"""``lm-gym run``, the real command, killed in one stage after another, ends with the weights of an undisturbed run."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from lm_gym import reviews
from lm_gym.app.report.report_data import Report
from lm_gym.assets import REVIEWS_LM
from lm_gym.tools.files import write_jsonl

KILLS = (
    ("sft", signal.SIGKILL, -signal.SIGKILL),
    ("round-1/reward/*", signal.SIGKILL, -signal.SIGKILL),
    ("round-1/ppo/metrics.jsonl", signal.SIGTERM, 128 + signal.SIGTERM),
    ("without-kl/checkpoints/checkpoint-*", signal.SIGKILL, -signal.SIGKILL),
    ("measured/round-1", signal.SIGKILL, -signal.SIGKILL),
)
"""What has just appeared in the run folder, the signal that is sent then, and the exit status it must end with."""
OPTIONS = ["--iterations", "12", "--episodes", "4", "--reward-epochs", "2", "--max-new-tokens", "12"]


def pairs_file(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    rows = []
    for prompt in reviews.prompts("train")[:8]:
        texts = [reviews.sample_review(prompt, rng) for _ in range(2)]
        first, second = reviews.true_score([prompt] * 2, texts)
        chosen, rejected = texts if first >= second else texts[::-1]
        rows.append({"prompt": prompt, "chosen": chosen, "rejected": rejected})
    return write_jsonl(folder / "pairs.jsonl", rows)


def started(folder: Path, pairs: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "lm_gym.app.cli", "run", "--base", str(REVIEWS_LM), "--rankings", str(pairs)]
    return subprocess.Popen(
        [*command, *OPTIONS, "--out", str(folder), "--resume"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def finished(folder: Path, pairs: Path) -> tuple[dict[str, bytes], Report]:
    """Weights by path, and the report."""
    process = started(folder, pairs)
    _, told = process.communicate(timeout=120)
    assert process.returncode == 0, told
    assert not list(folder.rglob(".*"))  # nothing temporary is left
    weights = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.safetensors")}
    return weights, Report.load(folder)


def status_after_signal(folder: Path, pairs: Path, appears: str, number: int) -> int:
    """Send the signal when a path appears that was not there. Returns: the exit status."""
    process = started(folder, pairs)
    try:
        while process.poll() is None and not list(folder.glob(appears)):
            time.sleep(0.002)
        process.send_signal(number)
        process.communicate(timeout=60)
    finally:
        process.kill()
    return process.returncode


@pytest.mark.slow
def test_a_killed_command_ends_like_an_undisturbed_one(tmp_path: Path) -> None:
    pairs, killed = pairs_file(tmp_path), tmp_path / "killed"
    weights, report = finished(tmp_path / "whole", pairs)
    assert len(weights) >= 8
    for appears, number, status in KILLS:
        assert not list(killed.glob(appears)), appears
        assert status_after_signal(killed, pairs, appears, number) == status, appears
    found, told = finished(killed, pairs)
    assert found.keys() == weights.keys()
    assert [name for name in found if found[name] != weights[name]] == []
    assert told.rows == report.rows
