"""Two processes learn what one does with twice the micro-batches."""

import json
import os
import subprocess
import sys

import torch
from transformers import AutoModelForCausalLM

from lm_gym.agents import SupervisedConfig, supervised_finetune

ROWS = [{"prompt": f"{a}+{b}=", "completion": f"{a + b}"} for a in (1, 4, 7) for b in (2, 5, 8)]
SETTINGS = {"max_steps": 7, "batch_size": 2, "learning_rate": 1e-3, "log_every": 1, "checkpoint_every": 3}
PROGRAM = """
import json, os, sys
from pathlib import Path
from lm_gym.agents import SupervisedConfig, supervised_finetune

rows, settings, base, out, results = json.loads(sys.argv[1])
config = SupervisedConfig(**settings, device="cpu")
result = supervised_finetune(base, rows, out, config, eval_rows=rows[:3], resume=True, progress=False)
found = [result.steps, result.epochs, result.eval_loss]
Path(results, os.environ["RANK"]).write_text(json.dumps(found))
"""


def run_two(folder, base):
    """Both processes' results of a run in ``folder/two``."""
    program = folder / "program.py"
    program.write_text(PROGRAM)
    arguments = json.dumps([ROWS, SETTINGS, str(base), str(folder / "two"), str(folder)])
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*launcher, str(program), arguments],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return [json.loads((folder / rank).read_text()) for rank in "01"]


def test_two_processes(make_model, tokenizer, tmp_path):
    """Nine rows in batches of two: the last batch of each pass has one row."""
    base = tmp_path / "base"
    make_model().save_pretrained(base)
    tokenizer.save_pretrained(base)
    alone = supervised_finetune(
        base, ROWS, tmp_path / "one", SupervisedConfig(**SETTINGS, gradient_accumulation=2), eval_rows=ROWS[:3]
    )
    found = run_two(tmp_path, base)
    assert found[0] == found[1]
    steps, epochs, eval_loss = found[0]
    assert (steps, epochs) == (7, 2.8) == (alone.steps, alone.epochs)
    torch.testing.assert_close(eval_loss, alone.eval_loss, rtol=1e-5, atol=0)
    logged = [
        [json.loads(line)["loss"] for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()[:7]]
        for name in ("one", "two")
    ]
    torch.testing.assert_close(*logged, rtol=1e-5, atol=0)
    one, two = (AutoModelForCausalLM.from_pretrained(tmp_path / name) for name in ("one", "two"))
    # Adam divides by sqrt(v): where a gradient is near 0, rounding decides its direction.
    for first, second in zip(one.parameters(), two.parameters(), strict=True):
        torch.testing.assert_close(first, second, atol=2e-4, rtol=0)
