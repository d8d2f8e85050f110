"""Every example runs, in its short form."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from lm_gym.assets import REVIEWS_LM
from lm_gym.reward_models import Ranks, Votes, load_judgements

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = sorted((ROOT / "examples").glob("[0-9][0-9]_*.py"))
TOOLS = ROOT / "scripts"


def test_examples_are_found() -> None:
    assert len(SCRIPTS) >= 7


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_example_runs(script: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(script), "--smoke"], cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.strip()
    assert list(tmp_path.iterdir()) == []  # an example leaves nothing behind


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
