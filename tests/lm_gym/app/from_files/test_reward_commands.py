"""``lm-gym reward``: adapters, learning curves, the page, and runs that are killed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lm_gym import load_reward_model, reviews
from lm_gym.app.cli import main
from lm_gym.app.from_files import reward_files
from lm_gym.assets import REVIEWS_LM
from lm_gym.errors import RewardModelError
from lm_gym.reward_models import SentenceFeatures
from lm_gym.reward_models.scalar import trainer
from lm_gym.runs.folder import LOCK, MARKER, RunIdentity, open_run, read_result
from lm_gym.tools.files import TEMPORARY, write_jsonl

MODEL = str(REVIEWS_LM)


@pytest.fixture
def votes_file(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    rows = []
    for prompt in reviews.prompts("train")[:12]:
        for _ in range(2):
            texts = [reviews.sample_review(prompt, rng) for _ in range(2)]
            first, second = reviews.true_score([prompt] * 2, texts)
            winner = "a" if first > second else "b" if second > first else "tie"
            votes = [
                {"choice": winner, "comment": f"{winner} is nicer", "annotator": "first person"},
                {"choice": "a", "comment": "", "annotator": "always a"},
                {"choice": winner, "comment": "", "annotator": "third person"},
            ]
            rows.append({"prompt": prompt, "a": texts[0], "b": texts[1], "votes": votes})
    return write_jsonl(tmp_path / "votes.jsonl", rows)


def test_an_adapter_with_a_learning_curve_and_a_page(
    tmp_path: Path, votes_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "rm"
    arguments = ["--model", MODEL, "--data", str(votes_file), "--out", str(out), "--held-out", "0.25"]
    extra = ["--lora-rank", "2", "--learning-curve", "--tie-model", "davidson", "--max-length", "12"]
    assert main(["reward", "train", *arguments, *extra]) == 0
    told = capsys.readouterr().out
    assert "pairs of responses were judged both ways" in told
    assert "texts were too long" in told
    assert (out / "adapter_model.safetensors").is_file()
    found = json.loads((out / "evaluation.json").read_text(encoding="utf-8"))
    assert [point["judgements"] for point in found["learning_curve"]][-1] == 18
    assert len(found["learning_curve"]) >= 3
    assert found["learning_curve"][-1]["accuracy"] == found["accuracy"]
    assert found["texts_cut"] > 0
    assert sum(part["pairs"] for part in found["by_margin"]) == found["n"]
    assert {one["annotator"] for one in found["agreement"]["annotators"]} == {
        "first person",
        "always a",
        "third person",
    }
    page = (out / "card.html").read_text(encoding="utf-8")
    for words in ("By annotator", "always a", "Accuracy by number of judgements", "lost their beg"):
        assert words in page, words
    assert "nicer" in page or "Where it is surest" not in page
    assert "tie" in load_reward_model(out).links  # type: ignore[attr-defined]
    assert (out / "README.md").is_file()


def test_a_killed_run_goes_on_by_the_same_command(
    tmp_path: Path, votes_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--model", MODEL, "--data", str(votes_file), "--held-out", "0.25", "--items-per-step", "1"]
    arguments += ["--epochs", "1"]
    arguments += ["--checkpoint-every-steps", "2", "--learning-rate", "1e-3", "--out"]
    assert main(["reward", "train", *arguments, str(tmp_path / "whole")]) == 0
    calls: list[int] = []
    real = trainer.JudgementTrainer.compute_loss

    def compute_loss(self: Any, *args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return real(self, *args, **kwargs)

    out = tmp_path / "killed"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer.JudgementTrainer, "compute_loss", compute_loss)
        assert main(["reward", "train", *arguments, str(out)]) == 130
        assert not out.exists()  # nothing half-written
        assert (tmp_path / "killed.checkpoints" / "checkpoints" / "checkpoint-4").is_dir()
        assert main(["reward", "train", *arguments, str(out)]) == 2
        assert "--resume" in capsys.readouterr().err
        calls.clear()
        calls.extend([1] * 10)  # no second kill
        before = len(calls)
        assert main(["reward", "train", *arguments, str(out), "--resume"]) == 0
        assert len(calls) - before == 9 - 4
    whole, resumed = (json.loads((folder / "evaluation.json").read_text()) for folder in (tmp_path / "whole", out))
    assert resumed == whole
    assert not (tmp_path / "killed.checkpoints").exists()


def test_a_finished_run_says_so_and_is_left_as_it_is(
    tmp_path: Path, votes_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, beside = tmp_path / "rm", tmp_path / "rm.checkpoints"
    arguments = ["--model", MODEL, "--data", str(votes_file), "--held-out", "0.25", "--out", str(out)]
    assert main(["reward", "train", *arguments]) == 0
    before = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    graves = [beside, tmp_path / f".rm.checkpoints{TEMPORARY}x"]  # what a kill after the mark leaves
    for folder in graves:
        (folder / "checkpoints").mkdir(parents=True)
        (folder / MARKER).write_text("{}")
    capsys.readouterr()
    assert main(["reward", "train", *arguments, "--resume"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "is finished; nothing was left to do" in told
    assert "fitted to" not in told
    assert {path.name: path.stat().st_mtime_ns for path in out.iterdir()} == before
    assert not [folder for folder in graves if folder.exists()]
    assert main(["reward", "train", *arguments]) == 2
    assert "pass --overwrite" in " ".join(capsys.readouterr().err.split())
    assert main(["reward", "train", *arguments, "--epochs", "2", "--resume"]) == 2
    assert "epochs (was None, is 2)" in " ".join(capsys.readouterr().err.split())
    votes_file.write_text("\n".join(votes_file.read_text().splitlines()[:-1]))
    assert main(["reward", "train", *arguments, "--resume"]) == 2
    assert "these differ: input" in " ".join(capsys.readouterr().err.split())
    load_reward_model(out)


@pytest.mark.parametrize("left", [(), (LOCK,), (LOCK, f".{MARKER}{TEMPORARY}x")])
def test_a_run_killed_before_its_marker_was_written_goes_on(
    left: tuple[str, ...], tmp_path: Path, votes_file: Path
) -> None:
    (tmp_path / "rm.checkpoints").mkdir()
    for name in left:
        (tmp_path / "rm.checkpoints" / name).touch()
    arguments = ["--model", MODEL, "--data", str(votes_file), "--held-out", "0.25", "--out", str(tmp_path / "rm")]
    assert main(["reward", "train", *arguments, "--resume"]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rm", "votes.jsonl"]


def test_a_killed_overwriting_run_goes_on_though_a_finished_one_is_there(tmp_path: Path, votes_file: Path) -> None:
    out = tmp_path / "rm"
    arguments = ["--model", MODEL, "--data", str(votes_file), "--held-out", "0.25", "--out", str(out)]
    assert main(["reward", "train", *arguments]) == 0

    def interrupts(*args: Any, **kwargs: Any) -> Any:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer.JudgementTrainer, "compute_loss", interrupts)
        assert main(["reward", "train", *arguments, "--epochs", "2", "--overwrite"]) == 130
    load_reward_model(out)
    assert main(["reward", "train", *arguments, "--epochs", "2", "--resume"]) == 0
    assert load_reward_model(out).training["config"]["epochs"] == 2  # type: ignore[attr-defined]
    assert not (tmp_path / "rm.checkpoints").exists()


def test_a_fit_that_diverges_exits_with_an_error_and_keeps_its_checkpoints(
    tmp_path: Path, votes_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    real, calls = trainer.JudgementTrainer.compute_loss, list[int]()

    def compute_loss(self: Any, *args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        return real(self, *args, **kwargs) * (float("nan") if len(calls) == 4 else 1.0)

    out = tmp_path / "rm"
    arguments = ["--model", MODEL, "--data", str(votes_file), "--held-out", "0.25", "--items-per-step", "1"]
    arguments += ["--epochs", "1"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer.JudgementTrainer, "compute_loss", compute_loss)
        assert main(["reward", "train", *arguments, "--checkpoint-every-steps", "1", "--out", str(out)]) != 0
    assert "the loss of step 4 must be finite, got nan" in " ".join(capsys.readouterr().err.split())
    assert not out.exists()
    assert (tmp_path / "rm.checkpoints" / "checkpoints" / "checkpoint-3" / "lm_gym_manifest.json").is_file()


def test_a_folder_that_no_reward_model_is_in_is_never_replaced(
    tmp_path: Path, votes_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("rm", "rm.checkpoints"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "thesis.txt").write_text("mine")
        arguments = ["--model", MODEL, "--data", str(votes_file), "--out", str(tmp_path / "rm"), "--overwrite"]
        assert main(["reward", "train", *arguments]) == 2
        assert "which nothing here deletes" in " ".join(capsys.readouterr().err.split())
        assert (folder / "thesis.txt").read_text() == "mine"
        (folder / "thesis.txt").unlink()


def test_a_model_outlives_a_failure_to_measure_it(
    tmp_path: Path, votes_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "rm"
    arguments = ["--model", MODEL, "--data", str(votes_file), "--held-out", "0.25", "--out", str(out)]

    def fails(*args: Any, **kwargs: Any) -> Any:
        raise RewardModelError("no memory left")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lm_gym.app.from_files.reward_files.reward_card", fails)
        assert main(["reward", "train", *arguments]) == 2
    load_reward_model(out)
    assert main(["reward", "train", *arguments]) == 2
    assert "--resume" in capsys.readouterr().err
    assert main(["reward", "train", *arguments, "--resume"]) == 0
    assert (out / "card.html").is_file()
    assert not (tmp_path / "rm.checkpoints").exists()


def test_an_interrupted_embedding_goes_on_too(
    tmp_path: Path, votes_file: Path, encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lm_gym.reward_models.embedding.sentence_features.CHUNK_TEXTS", 8)
    arguments = ["--kind", "embedding", "--model", str(encoder), "--data", str(votes_file), "--held-out", "0.25"]
    out, embedded, plain = tmp_path / "rm", list[str](), SentenceFeatures.__call__

    def embed(self: SentenceFeatures, texts: list[str]) -> np.ndarray:
        if len(embedded) == 16 and not out.with_name("go").exists():
            raise KeyboardInterrupt
        embedded.extend(texts)
        return plain(self, texts)

    monkeypatch.setattr(SentenceFeatures, "__call__", embed)
    assert main(["reward", "train", *arguments, "--out", str(out)]) == 130
    first = set(embedded[:16])
    embedded.clear()
    (tmp_path / "go").touch()
    assert main(["reward", "train", *arguments, "--out", str(out), "--resume", "--learning-curve"]) == 0
    assert not first & set(embedded)
    assert len(embedded) == len(set(embedded))  # the points of the curve embed nothing again
    assert (out / "card.html").is_file()
    assert not (tmp_path / "rm.checkpoints").exists()


def test_resume_and_overwrite_together_are_refused(
    tmp_path: Path, votes_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "rm"
    arguments = ["--model", MODEL, "--data", str(votes_file), "--held-out", "0.25", "--out", str(out)]
    assert main(["reward", "train", *arguments, "--resume", "--overwrite"]) == 2
    assert "resume and overwrite must not both be asked for" in " ".join(capsys.readouterr().err.split())
    assert not out.exists()


@pytest.mark.parametrize("moment", ["embedding", "measuring"])
def test_no_second_process_makes_the_same_reward_model(
    moment: str, tmp_path: Path, votes_file: Path, encoder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, ended = tmp_path / "rm", list[int]()
    options = ["--kind", "embedding", "--model", str(encoder), "--data", str(votes_file), "--held-out", "0.25"]
    plain = {"embedding": SentenceFeatures.__call__, "measuring": reward_files.reward_card}[moment]

    def meanwhile(*args: Any, **kwargs: Any) -> Any:
        if not ended:
            for flags in ([], ["--overwrite"], ["--resume"]):
                ended.append(main(["reward", "train", *options, "--out", str(out), *flags]))
            others = ["lm_gym.reviews:true_score"] * 2
            ended.append(main(["reward", "ensemble", *others, "--data", str(votes_file), "--out", str(out)]))
        return plain(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        if moment == "embedding":
            patch.setattr(SentenceFeatures, "__call__", meanwhile)
        else:
            patch.setattr(reward_files, "reward_card", meanwhile)
        assert main(["reward", "train", *options, "--out", str(out)]) == 0
    assert ended == [2, 2, 2, 2]
    told = " ".join(capsys.readouterr().err.split())
    assert told.count("another process works in it") == 4
    assert sorted(path.name for path in tmp_path.iterdir() if "rm" in path.name) == ["rm"]
    assert load_reward_model(out).training["evaluation"] is not None


def test_what_another_process_fits_is_not_overwritten(
    tmp_path: Path, votes_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, beside = tmp_path / "rm", tmp_path / "rm.checkpoints"
    arguments = ["--model", MODEL, "--data", str(votes_file), "--held-out", "0.25", "--out", str(out)]
    assert main(["reward", "train", *arguments]) == 0
    capsys.readouterr()
    with open_run(beside, RunIdentity(kind="reward-model")):  # as the fit of the other one has it
        (beside / "its own").touch()
        assert main(["reward", "train", *arguments, "--overwrite"]) == 2
        assert "another process works in it" in " ".join(capsys.readouterr().err.split())
        assert (beside / "its own").is_file()
        assert read_result(out) is not None  # what was there is as it was
        assert main(["reward", "train", *arguments, "--resume"]) == 0  # has nothing to do, and deletes nothing
        assert (beside / "its own").is_file()
    assert main(["reward", "train", *arguments, "--overwrite"]) == 0
    assert not beside.exists()
