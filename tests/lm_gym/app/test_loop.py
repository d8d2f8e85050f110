"""The whole loop in its short form: every stage is there, a second start finds it done, a killed one goes on."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from lm_gym import reviews
from lm_gym.app import loop
from lm_gym.app.cli import main
from lm_gym.app.demo import demo_plan
from lm_gym.app.measure import matched_length_gain
from lm_gym.app.report_data import Report
from lm_gym.app.workspace import Workspace
from lm_gym.errors import ConfigError, OutputExistsError
from lm_gym.files import write_jsonl


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "run"
    assert main(["demo", "--smoke", "--out", str(folder)]) == 0
    return folder


def test_demo_tells_of_every_model(finished: Path) -> None:
    report = Report.load(finished)
    names = [row.name for row in report.rows]
    assert names == ["base", "before RL (SFT)", "round 1", "round 2", "without KL", "SFT on winners"]
    for row in report.rows:
        assert len(row.samples) == 5
        assert row.true_score is not None
        assert row.grammatical is not None
        assert row.kl is not None
    assert report.rows[1].kl == pytest.approx(0.0, abs=1e-3)  # the reference itself
    assert [curve.name for curve in report.curves] == ["round 1", "round 2", "without KL"]
    assert all("true_score" in point for curve in report.curves for point in curve.history)
    assert len(report.reward_models) == 2
    assert report.reward_models[1].trained_on > report.reward_models[0].trained_on
    assert (finished / "report.html").is_file()


def test_true_score_in_the_table_is_that_of_the_texts(finished: Path) -> None:
    row = Report.load(finished).rows[2]
    for sample in row.samples:
        assert sample.true_score == pytest.approx(reviews.true_score([sample.prompt], [sample.response])[0])


def test_a_second_start_needs_a_word(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--smoke", "--out", str(finished)]) == 2
    assert "--resume" in " ".join(capsys.readouterr().err.split())


def test_resume_does_no_stage_again(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("a finished stage was done again")

    for stage in ("supervised_finetune", "collect_judgements", "fit_reward_model", "run_ppo"):
        monkeypatch.setattr(loop, stage, refuse)
    before = json.loads((finished / "report.json").read_text())
    assert main(["demo", "--smoke", "--out", str(finished), "--resume"]) == 0
    after = json.loads((finished / "report.json").read_text())
    assert [row["score"] for row in after["rows"]] == [row["score"] for row in before["rows"]]


def test_a_killed_stage_is_taken_up_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = replace(demo_plan(smoke=True), reference_arms=False, rounds=1, demonstrations=())
    real = loop.run_ppo

    def killed(folder: Path, *args: Any, **kwargs: Any) -> None:
        folder.mkdir(parents=True)
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "run_ppo", killed)
    with pytest.raises(KeyboardInterrupt):
        loop.run_loop(plan, Workspace(tmp_path / "run", console=Console(quiet=True)), command="test")
    monkeypatch.setattr(loop, "run_ppo", real)
    workspace = Workspace(tmp_path / "run", console=Console(quiet=True), resume=True)
    report = loop.run_loop(plan, workspace, command="test")
    assert [row.name for row in report.rows] == ["base", "round 1"]


def test_run_from_files(tmp_path: Path) -> None:
    prompts = [f"Debate: topic {number}. Argue for: {side}." for number in range(4) for side in ("yes", "no")]
    answers = ["because it is so and always was", "no", "it helps people every day", "I think that it is fair to all"]
    rows = [{"prompt": prompt, "responses": answers, "ranks": [2, 4, 1, 3]} for prompt in prompts]
    rankings = write_jsonl(tmp_path / "rankings.jsonl", rows)
    texts = tmp_path / "text.txt"
    texts.write_text("\n\n".join(f"A line of plain text, number {number}, and some more." for number in range(200)))
    out = tmp_path / "run"
    arguments = ["run", "--rankings", str(rankings), "--texts", str(texts), "--out", str(out)]
    arguments += ["--group-separator", ". Argue for", "--pretrain-steps", "4", "--iterations", "1"]
    assert main([*arguments, "--episodes", "4", "--max-new-tokens", "8"]) == 0
    report = Report.load(out)
    assert [row.name for row in report.rows] == ["base", "before RL (SFT)", "round 1", "without KL", "SFT on winners"]
    assert report.rows[2].true_score is None
    groups = {group["group"] for group in report.reward_models[0].evaluation["groups"]}
    assert groups == {group.split(". Argue")[0] for group in groups}


def test_run_needs_a_language_model_or_texts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"prompt": f"p{number}", "chosen": "a b", "rejected": "c d"} for number in range(4)]
    rankings = write_jsonl(tmp_path / "rankings.jsonl", rows)
    assert main(["run", "--rankings", str(rankings), "--out", str(tmp_path / "run")]) == 2
    assert "got neither" in " ".join(capsys.readouterr().err.split())


def test_plan_refuses_leaking_prompts() -> None:
    plan = demo_plan(smoke=True)
    with pytest.raises(ConfigError, match="held-out prompts must not be among the training prompts"):
        replace(plan, held_out_prompts=plan.train_prompts[:2])


def test_workspace_never_overwrites_unasked(tmp_path: Path) -> None:
    (tmp_path / "keep.txt").write_text("mine")
    with pytest.raises(OutputExistsError, match="holds another run"):
        Workspace(tmp_path, console=Console(quiet=True))
    assert (tmp_path / "keep.txt").read_text() == "mine"


def test_matched_length_compares_equal_lengths_only() -> None:
    class Side:
        def __init__(self, responses: list[str], scores: list[float]) -> None:
            import numpy as np

            self.responses, self.scores = tuple(responses), np.array(scores, dtype=np.float32)

        def __len__(self) -> int:
            return len(self.responses)

    ours = Side(["a b", "a b c d e f"], [3.0, 9.0])
    theirs = Side(["x y", "z w", "q"], [1.0, 2.0, 50.0])
    found = matched_length_gain(ours, theirs)  # type: ignore[arg-type]
    assert found.gain == pytest.approx(1.5)  # 3 against the mean of 1 and 2; the six words have no partner
    assert found.share == 0.5
