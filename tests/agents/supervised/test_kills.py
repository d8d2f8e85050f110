"""A run that is killed at any of its writes, renames and deletions goes on to the weights of an undisturbed one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

KILLS = """
import json, os, sys
from itertools import count
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from killing import forked, killed_before
from lm_gym.agents import PretrainConfig, SupervisedConfig, pretrain, supervised_finetune

os.fsync = lambda handle: None  # what a killed process has written stays written
kind, root, stride = sys.argv[2], Path(sys.argv[3]), int(sys.argv[4])
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
kills = 0
for change in count(1, stride):
    folder = root / f"killed-{change}" / "run"
    if not killed_before(change, root, lambda: work(folder)):
        break
    kills += 1
    assert forked(lambda: work(folder)) == 0, change
    assert sorted(path.name for path in folder.iterdir()) == sorted(path.name for path in whole.iterdir()), change
    assert (folder / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes(), change
    assert steps(folder) == steps(whole), change
    assert [path.name for path in folder.parent.iterdir()] == ["run"], change
print(kills)
"""


@pytest.mark.parametrize(
    ("stride", "least"),
    [pytest.param(23, 3, id="some"), pytest.param(1, 80, id="every", marks=pytest.mark.slow)],
)
@pytest.mark.parametrize("kind", ["sft", "pretrain"])
def test_kills(make_model, tokenizer, tmp_path, kind, stride, least):
    make_model(resid_pdrop=0.1).save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    command = [sys.executable, "-c", KILLS, str(Path(__file__).parents[2]), kind, str(tmp_path), str(stride)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert int(done.stdout.split()[-1]) >= least
