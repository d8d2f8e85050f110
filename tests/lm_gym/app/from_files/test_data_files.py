"""Data of every container at the command line, and what is said of rows that cannot be used."""

from __future__ import annotations

from pathlib import Path

import pytest

from lm_gym.app.cli import main
from lm_gym.assets import REVIEWS_LM
from lm_gym.tools.files import read_jsonl

SCORE = "lm_gym.reviews:true_score"
GOOD = '{"prompt": "Review of a lamp:", "chosen": "It is great.", "rejected": ""}'
BAD = {
    2: '{"prompt": "p", "chosen": "x", "rejected": "y", "margin": 1e400}',
    3: '{"prompt": ' + "[" * 100_000,
    4: '{"prompt": "\\ud83d", "chosen": "x", "rejected": "y"}',
    5: '{"prompt": "p", "chosen": "x", "rejected": "y", "annotator": 7}',
    6: '{"prompt": "p", "chosen": "x", "rejected": "y", "n": 1' + "0" * 5000 + "}",
}


def test_absurd_rows_are_named_listed_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("\ufeff" + "\n".join([GOOD, *BAD.values()]), encoding="utf-8")
    command = ["reward", "eval", "--model", SCORE, "--data", str(path)]
    assert main(command) == 2
    told = " ".join(capsys.readouterr().err.split())
    assert "line 2: 'margin' must hold finite numbers" in told
    assert "--skip-bad" in told
    assert main([*command, "--skip-bad"]) == 0
    told = " ".join(capsys.readouterr().err.split())
    assert "skipped 5 rows, kept 1" in told
    for line in BAD:
        assert f"line {line}: " in told
    assert "judgement: annotator must be a string, got 7" in told
    assert "responses without text: in 1 of 1 judgements" in told


def test_tables_are_prompts_and_judgements(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "prompts.csv").write_text("prompt,topic\nReview of a lamp:,lamps\nReview of a chair:,chairs\n")
    out = tmp_path / "out.jsonl"
    command = ["generate", "--model", str(REVIEWS_LM), "--prompts", str(tmp_path / "prompts.csv"), "--out", str(out)]
    assert main([*command, "--max-new-tokens", "2"]) == 0
    assert {row["prompt"] for row in read_jsonl(out)} == {"Review of a lamp:", "Review of a chair:"}
    (tmp_path / "pairs.csv").write_text(
        'prompt,chosen,rejected,margin\nReview of a lamp:,"It is great, really.",Bad.,0.5\n'
    )
    capsys.readouterr()
    assert main(["reward", "eval", "--model", SCORE, "--data", str(tmp_path / "pairs.csv"), "--json"]) == 0
    assert '"n": 1' in capsys.readouterr().out


def test_thumbs_alone_are_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = "prompt,completion,label\nReview of a lamp:,It is great.,1\nReview of a lamp:,It is awful.,0\n"
    (tmp_path / "thumbs.csv").write_text(rows)
    command = ["reward", "eval", "--model", SCORE, "--data", str(tmp_path / "thumbs.csv")]
    assert main(command) == 0
    assert "nothing compares two responses" in capsys.readouterr().out
    assert main([*command, "--json"]) == 0
    assert '"thumbs_auroc"' in capsys.readouterr().out
