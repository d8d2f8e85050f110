"""Every example runs, in its short form; the notebook from its first cell to its last."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from lm_gym.assets import REVIEWS_LM
from lm_gym.reward_models import Ranks, Votes, load_judgements

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = sorted((ROOT / "examples").rglob("[0-9][0-9]_*.py"))
TOOLS = ROOT / "scripts"


LONG = {"06_your_own_reward_model", "07_ensemble_with_uncertainty", "08_your_own_files", "11_resume"}
"""Scripts that take the longest, among the slow tests so that the fast ones stay so."""
NOTEBOOKS = sorted((ROOT / "examples").rglob("*.ipynb"))


def test_examples_are_found() -> None:
    assert 10 <= len(SCRIPTS) <= 18
    assert {path.stem for path in SCRIPTS} > LONG
    assert NOTEBOOKS


def run(script: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(script), "--smoke"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=240, check=False)


def by_length(script: Path) -> Any:
    return pytest.param(script, id=script.stem, marks=[pytest.mark.slow] if script.stem in LONG else [])


@pytest.mark.parametrize("script", [by_length(script) for script in SCRIPTS])
def test_example_runs(script: Path, tmp_path: Path) -> None:
    done = run(script, tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.strip()
    assert list(tmp_path.iterdir()) == []  # an example leaves nothing behind


def test_without_wandb_the_example_says_so_and_goes_on(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.util\nfound = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *rest: None if name == 'wandb' else found(name, *rest)\n"
    )
    command = [sys.executable, str(ROOT / "examples" / "10_callbacks_and_wandb.py"), "--smoke"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=True)
    assert "wandb is not installed: no W&B run is written" in done.stdout
    assert "stopped: at the end" in done.stdout


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs_from_top_to_bottom(notebook: Path, tmp_path: Path) -> None:
    copy = tmp_path / notebook.name
    shutil.copy(notebook, copy)
    command = [str(Path(sys.executable).parent / "jupyter-execute"), "--inplace", "--timeout=240", str(copy)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    cells = [cell for cell in json.loads(copy.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    assert all(cell["execution_count"] for cell in cells)
    assert any("after: score" in "".join(output.get("text", "")) for cell in cells for output in cell["outputs"])


def test_notebook_is_kept_without_outputs() -> None:
    for notebook in NOTEBOOKS:
        cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
        assert all(not cell.get("outputs") for cell in cells), notebook


def test_the_built_in_model_can_be_built_again(tmp_path: Path) -> None:
    """Of the same kind as the one that ships, down to the special tokens; only smaller."""
    script = TOOLS / "build_reviews_lm.py"
    out = tmp_path / "lm"
    command = [sys.executable, str(script), "--smoke", "--out", str(out)]
    subprocess.run(command, capture_output=True, timeout=240, check=True)
    built, shipped = (AutoModelForCausalLM.from_pretrained(folder) for folder in (out, REVIEWS_LM))
    words, shipped_words = (AutoTokenizer.from_pretrained(folder) for folder in (out, REVIEWS_LM))
    assert type(built) is type(shipped)
    assert (built.config.n_embd, len(words)) == (16, 600)
    same = ("n_positions", "eos_token_id", "bos_token_id", "pad_token_id", "tie_word_embeddings", "resid_pdrop")
    for name in same:
        assert getattr(built.config, name) == getattr(shipped.config, name), name
    assert words.special_tokens_map == shipped_words.special_tokens_map
    assert words.model_max_length == shipped_words.model_max_length


def test_the_public_download_is_converted_faithfully(tmp_path: Path) -> None:
    script = TOOLS / "convert_ukpconvarg1.py"
    command = [sys.executable, str(script), "--smoke", "--out", str(tmp_path)]
    subprocess.run(command, capture_output=True, timeout=240, check=True)
    pair, ranking, votes = (
        load_judgements(tmp_path / name).judgements[0] for name in ("pairs.jsonl", "rankings.jsonl", "votes.jsonl.gz")
    )
    long, short = 'Tea is "milder", and it keeps.', "because tea"
    assert {one.prompt for one in (pair, ranking, votes)} == {"Debate: tea or coffee. Argue for: tea."}
    assert pair.texts == ranking.texts == (long, short)
    assert ranking.verdict == Ranks((1, 2))
    assert votes.texts == (short, long)
    assert isinstance(votes.verdict, Votes)
    assert [vote.winner for vote in votes.verdict.votes] == ["b", "tie", "a"]
    assert {vote.comment for vote in votes.verdict.votes} == {"so it is"}
    assert len({vote.annotator for vote in votes.verdict.votes}) == 3
