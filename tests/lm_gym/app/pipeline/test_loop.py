"""The whole loop in its short form: every stage is there, a second start finds it done, a killed one goes on."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from lm_gym import reviews
from lm_gym.app.cli import main
from lm_gym.app.pipeline import loop, stages
from lm_gym.app.pipeline.demo import demo_plan
from lm_gym.app.pipeline.measure import matched_length_gain
from lm_gym.app.pipeline.plan import LoopPlan
from lm_gym.app.pipeline.workspace import Workspace
from lm_gym.app.report.report_data import Report
from lm_gym.assets import REVIEWS_LM
from lm_gym.errors import ConfigError, OutputExistsError
from lm_gym.runs.folder import MARKER, RunIdentity
from lm_gym.runs.signals import Interrupted
from lm_gym.tools.files import TEMPORARY, read_jsonl, write_jsonl


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, copied_demo: Callable[[Path], Path]) -> Path:
    return copied_demo(tmp_path_factory.mktemp("demo") / "run")


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


def refuse(*args: Any, **kwargs: Any) -> None:
    raise AssertionError("a finished stage was done again")


STAGES = ("supervised_finetune", "collect_judgements", "fit_reward_model", "load_policy", "run_agent")
STAGES += ("measure", "sample_answers")


def test_resume_of_a_finished_run_does_nothing_again(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*STAGES, "check_prompts", "make_env"):
        monkeypatch.setattr(loop, name, refuse)
    before = (finished / "report.json").read_bytes()
    assert main(["demo", "--smoke", "--out", str(finished), "--resume"]) == 0
    assert (finished / "report.json").read_bytes() == before


def test_resume_with_other_settings_names_them(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (finished / "report.json").read_bytes()
    assert main(["demo", "--out", str(finished), "--resume", "--seed", "1"]) == 2
    told = " ".join(capsys.readouterr().err.split())
    for words in ("smoke (was True, is False)", "seed (was 0, is 1)", "iterations (was 2, is 20)"):
        assert words in told
    assert (finished / "report.json").read_bytes() == before


def short_plan() -> LoopPlan:
    return replace(demo_plan(smoke=True), reference_arms=False, rounds=1, demonstrations=(), iterations=4)


def workspace_of(plan: LoopPlan, folder: Path, **flags: bool) -> Workspace:
    return Workspace(folder, plan.identity(), console=Console(quiet=True), **flags)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("short") / "run"
    with workspace_of(short_plan(), folder) as workspace:
        loop.run_loop(short_plan(), workspace, command="test")
    return folder


def test_an_interrupted_stage_is_not_done_and_is_taken_up_again(
    undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, folder = short_plan(), tmp_path / "run"
    real = loop.truth_metrics

    def metrics(true_score: Any) -> Any:
        inner, calls = real(true_score), []

        def measured(episodes: Any) -> Any:
            calls.append(1)
            if len(calls) == 2:
                os.kill(os.getpid(), signal.SIGTERM)
            assert inner is not None
            return inner(episodes)

        return measured

    monkeypatch.setattr(loop, "truth_metrics", metrics)
    with workspace_of(plan, folder) as workspace, pytest.raises(Interrupted) as error:
        loop.run_loop(plan, workspace, command="test")
    assert error.value.signal == signal.SIGTERM
    assert not (folder / "round-1" / "ppo" / "stage.json").exists()
    assert not (folder / "report.json").exists()
    assert len(read_jsonl(folder / "round-1" / "ppo" / "metrics.jsonl")) == 2
    monkeypatch.undo()
    plan = short_plan()
    with workspace_of(plan, folder, resume=True) as workspace:
        report = loop.run_loop(plan, workspace, command="test")
    assert [row.name for row in report.rows] == ["base", "round 1"]
    assert len(read_jsonl(folder / "round-1" / "ppo" / "metrics.jsonl")) == 4
    policy = "round-1/ppo/policy/model.safetensors"
    assert (folder / policy).read_bytes() == (undisturbed / policy).read_bytes()
    assert [row.score for row in report.rows] == [row.score for row in Report.load(undisturbed).rows]


def test_a_measured_model_is_not_measured_again(
    undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, plan = tmp_path / "run", short_plan()
    shutil.copytree(undisturbed, folder)
    marker = json.loads((folder / MARKER).read_text())
    (folder / MARKER).write_text(json.dumps(marker | {"result": None}))
    shutil.rmtree(folder / "measured" / "round-1")
    real, measured = loop.measure, []

    def measure(*args: Any, **kwargs: Any) -> Any:
        measured.append(kwargs["name"])
        return real(*args, **kwargs)

    for name in STAGES:
        monkeypatch.setattr(loop, name, measure if name == "measure" else refuse)
    with workspace_of(plan, folder, resume=True) as workspace:
        report = loop.run_loop(plan, workspace, command="test")
    assert measured == ["round 1"]
    for ours, theirs in zip(report.rows, Report.load(undisturbed).rows, strict=True):
        assert (ours.name, ours.kl, ours.samples) == (theirs.name, theirs.kl, theirs.samples)


def test_a_second_process_is_refused(tmp_path: Path) -> None:
    with workspace_of(short_plan(), tmp_path):
        for flag in ("resume", "overwrite"):
            with pytest.raises(OutputExistsError, match="another process works in it"):
                workspace_of(short_plan(), tmp_path, **{flag: True})


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


def test_run_leaves_bad_rows_out_when_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"prompt": f"p{number}", "chosen": "a b", "rejected": "c d"} for number in range(4)]
    rankings = write_jsonl(tmp_path / "rankings.jsonl", [*rows, {"prompt": "p", "chosen": 3, "rejected": "c"}])
    arguments = ["run", "--rankings", str(rankings), "--out", str(tmp_path / "run")]
    assert main(arguments) == 2
    assert f"{rankings},line5" in "".join(capsys.readouterr().err.split())  # long paths are broken anywhere
    assert main([*arguments, "--skip-bad"]) == 2
    told = capsys.readouterr()
    assert "skipped 1 rows, kept 4" in told.out
    assert "got neither" in " ".join(told.err.split())  # the files were read, and no model was given


def test_run_loads_the_given_model_once_to_check_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Reached(Exception):
        pass

    def reached(*args: Any, **kwargs: Any) -> None:
        raise Reached

    loads, load = [], stages.load_language_model
    monkeypatch.setattr(stages, "load_language_model", lambda *args, **kw: loads.append(args[0]) or load(*args, **kw))
    monkeypatch.setattr(loop, "supervised_finetune", reached)
    rows = [{"prompt": f"p{number}", "chosen": "a b", "rejected": "c d"} for number in range(4)]
    rankings = write_jsonl(tmp_path / "rankings.jsonl", rows)
    with pytest.raises(Reached):
        main(["run", "--data", str(rankings), "--model", str(REVIEWS_LM), "--out", str(tmp_path / "run")])
    assert loads == [str(REVIEWS_LM)]


def test_plan_refuses_leaking_prompts() -> None:
    plan = demo_plan(smoke=True)
    with pytest.raises(ConfigError, match="held-out prompts must not be among the training prompts"):
        replace(plan, held_out_prompts=plan.train_prompts[:2])


@pytest.mark.parametrize("flags", [{}, {"resume": True}, {"overwrite": True}])
def test_workspace_never_deletes_what_no_run_wrote(flags: dict[str, bool], tmp_path: Path) -> None:
    (tmp_path / "keep.txt").write_text("mine")
    with pytest.raises(OutputExistsError, match=r"holds keep\.txt, which no run wrote"):
        workspace_of(short_plan(), tmp_path, **flags)
    assert [path.name for path in tmp_path.iterdir()] == ["keep.txt"]


def test_a_stage_leaves_nothing_of_a_killed_attempt(tmp_path: Path) -> None:
    """A kill while the mark of a stage is written leaves half of it under another name."""
    identity, quiet = RunIdentity(kind="loop"), Console(quiet=True)
    with Workspace(tmp_path / "run", identity, console=quiet):
        pass
    half = tmp_path / "run" / "sft" / f".stage.json{TEMPORARY}1234"
    half.parent.mkdir()
    half.write_text("{")
    with Workspace(tmp_path / "run", identity, console=quiet, resume=True) as workspace:
        workspace.stage("sft", lambda folder: None, lambda folder: None)
    assert sorted(path.name for path in half.parent.iterdir()) == ["stage.json"]


def test_run_checks_everything_before_the_first_stage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And before it deletes the run that it is to overwrite."""
    rows = [{"prompt": f"p{number}", "chosen": "a b", "rejected": "c d"} for number in range(4)]
    rankings = write_jsonl(tmp_path / "rankings.jsonl", rows)
    long = write_jsonl(tmp_path / "long.jsonl", [*rows, {"prompt": "a " * 600, "chosen": "a", "rejected": "c"}])
    out = tmp_path / "run"
    with Workspace(out, RunIdentity(kind="loop"), console=Console(quiet=True)):
        (out / "report.json").write_text("of an old run")
    broken = (
        (rankings, ["--kl-target", "0"], "--kl-target: must be a finite number > 0"),
        (rankings, ["--kl-coef", "-1"], "--kl-coef: must be a finite number >= 0"),
        (rankings, ["--learning-rate", "-1"], "--learning-rate: must be a finite number > 0"),
        (long, ["--base", str(REVIEWS_LM)], "must have at most max_prompt_tokens"),
        (tmp_path / "missing.jsonl", [], "there is no such file"),
        (rankings, ["--texts", str(tmp_path / "missing.txt")], "must be a text file in UTF-8"),
    )
    for file, wrong, words in broken:
        given = ["run", "--rankings", str(file), "--out", str(out), "--overwrite", *wrong]
        if "--base" not in wrong and "--texts" not in wrong:
            given += ["--texts", str(rankings)]
        assert main(given) == 2, wrong
        assert words in " ".join(capsys.readouterr().err.split())
        assert (out / "report.json").read_text() == "of an old run"


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
