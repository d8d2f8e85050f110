"""A run that is killed, before any change to the disk or at any time, goes on to the weights of an undisturbed one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

KILLS = """
import json, os, sys, time
from itertools import count
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from killing import forked, killed_after, killed_before, random_moments
from lm_gym.agents import PretrainConfig, SupervisedConfig, pretrain, supervised_finetune

os.fsync = lambda handle: None  # what a killed process has written stays written
kind, root, when, number = sys.argv[2], Path(sys.argv[3]), sys.argv[4], int(sys.argv[5])
STEPS = {"max_steps": 5, "checkpoint_every": 1, "seed": 3}
ROWS = [{"prompt": f"{a}+{b}=", "completion": f"{a + b}"} for a in (1, 4, 7) for b in (2, 5, 8)]
TEXT = chr(10).join(f"line {number} of a short text about nothing at all" for number in range(60))

def work(folder):
    if kind == "sft":
        config = SupervisedConfig(**STEPS, batch_size=2, log_every=1, dropout=True)
        supervised_finetune(root / "base", ROWS, folder, config, resume=True, progress=False)
    else:
        shape = {"n_layer": 1, "n_embd": 16, "n_head": 2, "context": 32, "vocab_size": 260, "dropout": 0.1}
        pretrain(TEXT, folder, PretrainConfig(**STEPS, **shape), resume=True, progress=False)

def steps(folder):
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [line["step"] for line in lines if "loss" in line]

whole = root / "whole" / "run"
assert forked(lambda: work(whole)) == 0
began = time.monotonic()
assert forked(lambda: work(root / "timed" / "run")) == 0
seconds = time.monotonic() - began

def kills():
    if when == "at random times":
        for moment in random_moments(number, seconds):
            folder = root / f"killed-{moment}" / "run"
            if killed_after(moment, lambda: work(folder)):
                yield folder
        return
    for change in count(1, number):
        folder = root / f"killed-{change}" / "run"
        if not killed_before(change, root, lambda: work(folder)):
            return
        yield folder

total = 0
for folder in kills():
    total += 1
    assert forked(lambda: work(folder)) == 0, folder
    assert sorted(path.name for path in folder.iterdir()) == sorted(path.name for path in whole.iterdir()), folder
    assert (folder / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes(), folder
    assert steps(folder) == steps(whole), folder
    assert [path.name for path in folder.parent.iterdir()] == ["run"], folder
print(total)
"""


@pytest.mark.parametrize(
    ("when", "number", "least"),
    [
        pytest.param("every", 23, 3, id="some changes"),
        pytest.param("every", 1, 80, id="every change", marks=pytest.mark.slow),
        pytest.param("at random times", 50, 10, id="random times", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("kind", ["sft", "pretrain"])
def test_kills(make_model, tokenizer, tmp_path, kind, when, number, least):
    make_model(resid_pdrop=0.1).save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    helpers = str(Path(__file__).parents[2] / "helpers")
    command = [sys.executable, "-c", KILLS, helpers, kind, str(tmp_path), when, str(number)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert int(done.stdout.split()[-1]) >= least
