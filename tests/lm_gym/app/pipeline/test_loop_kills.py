"""The whole loop, killed at random and taken up again, ends with the models of an undisturbed run."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import os, random, sys, time
from dataclasses import replace
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import torch
from rich.console import Console
from killing import forked, killed_after, killed_before, random_moments
from lm_gym.app.pipeline.demo import demo_plan
from lm_gym.app.pipeline.loop import run_loop
from lm_gym.app.pipeline.workspace import Workspace

torch.set_num_threads(1)
os.fsync = lambda handle: None  # what a killed process has written stays written
os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # progress bars
root, count = Path(sys.argv[1]), int(sys.argv[3])
MODELS = ("sft/model", "round-1/reward/model", "round-1/ppo/policy")

def work(folder):
    plan = demo_plan(smoke=True)
    plan = replace(plan, reference_arms=False, rounds=1, held_out_prompts=plan.held_out_prompts[:3])
    with Workspace(folder, plan.identity(), console=Console(quiet=True), resume=True) as workspace:
        run_loop(plan, workspace, command="test")

def finished(folder):
    assert forked(lambda: work(folder)) == 0, folder
    assert not list(folder.rglob(".*")), folder  # nothing temporary is left
    return [(folder / model / "model.safetensors").read_bytes() for model in MODELS]

started = time.monotonic()
expected = finished(root / "whole")
longest = time.monotonic() - started
for number, moment in enumerate(random_moments(count, longest)):
    folder = root / f"moment {number}"
    killed_after(moment, lambda: work(folder))
    killed_after(longest - moment, lambda: work(folder))
    assert finished(folder) == expected, moment
for change in random.Random(1).sample(range(1, 180), count):
    folder = root / f"change {change}"
    killed_before(change, folder, lambda: work(folder))
    assert finished(folder) == expected, change
"""


@pytest.mark.slow
def test_a_killed_loop_ends_like_an_undisturbed_one(tmp_path: Path) -> None:
    helpers = Path(__file__).parents[3] / "helpers"
    command = [sys.executable, "-c", SCRIPT, str(tmp_path), str(helpers), "4"]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr[-2000:]
