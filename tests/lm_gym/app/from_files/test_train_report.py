"""The report of a run of train: before and after from its metrics, held-out ones where there are some."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lm_gym import reviews
from lm_gym.app.cli import main
from lm_gym.app.from_files.train_report import report_of_training
from lm_gym.app.run_models import SETTINGS
from lm_gym.assets import REVIEWS_LM
from lm_gym.runs.folder import read_result
from lm_gym.tools.files import read_jsonl, write_jsonl


def trained(folder: Path, *more: str) -> Path:
    data = str(write_jsonl(folder / "prompts.jsonl", [{"prompt": one} for one in reviews.prompts("train")[:4]]))
    given = ["--model", str(REVIEWS_LM), "--reward-model", "lm_gym.reviews:true_score", "--data", data]
    short = ["--episodes", "4", "--iterations", "3", "--max-new-tokens", "6", "--lr", "1e-3", "--kl-target", "2"]
    held_out = [data if one == "DATA" else one for one in more]
    assert main(["train", *given, *short, *held_out, "--out", str(folder / "run")]) == 0
    return folder / "run"


def test_a_run_with_held_out_prompts_tells_of_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = trained(tmp_path, "--eval-data", "DATA", "--eval-every", "1")
    metrics = read_jsonl(run / "metrics.jsonl")
    found = report_of_training(run)
    start, *_, end = found.rows
    assert (start.role, end.role, end.name) == ("start", "rl", "end of the run")
    assert start.score == metrics[-1]["eval_reference_score"]
    assert (end.score, end.kl, end.win_rate) == tuple(
        metrics[-1][f"eval_{name}"] for name in ("score", "kl", "win_rate")
    )
    best = [row for row in found.rows if row.name.startswith("best")]
    kept = (read_result(run) or {})["best_iteration"]
    assert [row.score for row in best] == [row["eval_score"] for row in metrics[:-1] if row["iteration"] == kept]
    assert found.curves[0].history == tuple(metrics)
    assert found.curves[0].kl_target == 2.0
    capsys.readouterr()
    assert main(["report", str(run)]) == 0
    page = (run / "report.html").read_text(encoding="utf-8")
    for words in (
        "Results on held-out prompts",
        "PPO with a KL penalty took",
        f"lm-gym compare {run}",
        "3 of 3 iterations",
    ):
        assert words in page
    assert "nan" not in re.findall(r"[\w.]+", page.partition("<main>")[2].partition("<svg")[0])
    assert "Wall time" not in page  # nothing says how long it took
    assert main(["report", str(run), "--form", "table"]) == 0
    assert "end of the run" in capsys.readouterr().out


def test_a_run_without_them_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = trained(tmp_path)
    (run / SETTINGS).unlink()  # as train of Python leaves it
    metrics = read_jsonl(run / "metrics.jsonl")
    rows = report_of_training(run).rows
    assert [row.score for row in rows] == [metrics[0]["score"], metrics[-1]["score"]]
    assert main(["report", str(run)]) == 0
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "Results on training prompts" in page
    assert "Nothing was held out" in page
    assert "Samples, before and after" not in page


def test_a_folder_that_is_no_run_of_train_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(tmp_path)]) == 2
    assert "must be a whole report that a run wrote" in " ".join(capsys.readouterr().err.split())
