"""A fit that is killed at any of its writes, renames and deletions goes on to the weights of an undisturbed one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

KILLS = """
import os, sys
from itertools import count
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from killing import forked, killed_before
from lm_gym.reward_models import Judgement, PreferenceRewardModel, RewardTrainingConfig
from lm_gym.reward_models.scalar import trainer

os.fsync = lambda handle: None  # what a killed process has written stays written
root, stride = Path(sys.argv[2]), int(sys.argv[3])
WORDS = ["good", "great", "bad", "awful"]
SAID = [Judgement.pair("the film was", f"{a} film", f"{b} film") for a in WORDS[:2] for b in WORDS[2:]]
CONFIG = RewardTrainingConfig(
    epochs=2, items_per_step=1, max_responses=2, learning_rate=1e-2, checkpoint_every_steps=2, progress=False
)

def work(folder):
    PreferenceRewardModel.train(SAID, root / "base", CONFIG, output_dir=folder / "rm", device="cpu")

whole = root / "whole"
assert forked(lambda: work(whole)) == 0
kills = 0
for change in count(1, stride):
    folder = root / f"killed-{change}"
    if not killed_before(change, root, lambda: work(folder)):
        break
    kills += 1
    assert forked(lambda: work(folder)) == 0, change
    assert (folder / "rm/model.safetensors").read_bytes() == (whole / "rm/model.safetensors").read_bytes(), change
    assert [path.name for path in folder.iterdir()] == ["rm"], change
print(kills)
"""


@pytest.mark.parametrize(
    ("stride", "least"),
    [pytest.param(29, 2, id="some"), pytest.param(1, 60, id="every", marks=pytest.mark.slow)],
)
def test_kills(save_base, tmp_path: Path, stride: int, least: int) -> None:
    save_base("gpt2", tmp_path / "base")
    command = [sys.executable, "-c", KILLS, str(Path(__file__).parents[2] / "helpers"), str(tmp_path), str(stride)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert int(done.stdout.split()[-1]) >= least
