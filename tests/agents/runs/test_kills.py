"""A training run that is killed anywhere and taken up again ends with the weights of an undisturbed one, to the bit."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import json, os, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import torch
from killing import forked, killed_after, killed_before, random_moments
from lm_gym import AdaptiveKL, Reference, TextGenerationVectorEnv, TextTask
from lm_gym.agents import PPO, LanguageModelPolicy, PPOConfig, train
from lm_gym.agents.policy import own_copy
from lm_gym.tools.digests import digest_tensors
from lm_gym.testing import tiny_language_model

torch.set_num_threads(1)
os.fsync = lambda handle: None  # what a killed process has written stays written
root, stride, moments = Path(sys.argv[1]), int(sys.argv[3]), int(sys.argv[4])
ITERATIONS = 3

def score(prompts, completions):
    return [sum(1.0 if word[0] < "h" else -1.0 for word in text.split()) / 4 for text in completions]

def work(folder):
    task = TextTask.of(Reference(tiny_language_model("gpt2")), ["a b", "c"], max_new_tokens=4)
    env = TextGenerationVectorEnv(task, score, num_envs=2)
    config = PPOConfig(episodes_per_iteration=4, minibatches=2, epochs=1, learning_rate=1e-2)
    agent = PPO(LanguageModelPolicy(own_copy(env.reference.language_model)), config)
    settings = {"eval_prompts": ["d"], "eval_every": 2, "checkpoint_every": 1, "tensorboard": False, "resume": True}
    controller = AdaptiveKL(target=0.1, horizon=10)
    train(agent, env, iterations=ITERATIONS, run_dir=folder / "run", adaptive_kl=controller, **settings)
    digest = digest_tensors(agent.policy.model.state_dict().items())
    (folder / "result").write_text(digest)

def finished(folder):
    folder.mkdir(exist_ok=True)
    assert forked(lambda: work(folder)) == 0, folder
    rows = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    found = sorted(path.name for path in (folder / "run").iterdir())
    assert found == ["best", "lm_gym_run.json", "metrics.jsonl", "policy"], (folder, found)
    clocks = ("tokens_per_second", "peak_memory")
    kept = [{name: value for name, value in row.items() if not name.startswith(clocks)} for row in rows]
    return (folder / "result").read_text(), kept

started = time.monotonic()
expected = finished(root / "whole")
assert [row["iteration"] for row in expected[1]] == list(range(ITERATIONS))
longest = time.monotonic() - started
change = 1
while True:
    folder = root / str(change)
    folder.mkdir()
    killed = killed_before(change, folder / "run", lambda: work(folder))
    (folder / "result").unlink(missing_ok=True)
    if not killed:
        break
    assert finished(folder) == expected, change
    change += stride
for number, moment in enumerate(random_moments(moments, longest)):
    folder = root / f"at {number}"
    folder.mkdir()
    killed_after(moment, lambda: work(folder))
    killed_after(moment / 2, lambda: work(folder))
    assert finished(folder) == expected, moment
print(change)
"""


@pytest.mark.parametrize(
    ("stride", "moments"), [pytest.param(12, 3, id="some"), pytest.param(1, 20, id="all", marks=pytest.mark.slow)]
)
def test_a_killed_run_ends_like_an_undisturbed_one(stride: int, moments: int, tmp_path: Path) -> None:
    helpers = Path(__file__).parents[2] / "helpers"
    command = [sys.executable, "-c", SCRIPT, str(tmp_path), str(helpers), str(stride), str(moments)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-1]) > 60
