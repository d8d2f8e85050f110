"""A run folder in the place of a model, in every command; which of its models was taken is said."""

from __future__ import annotations

import shutil
import sys
import types
from collections.abc import Callable
from pathlib import Path

import pytest

from lm_gym import reviews
from lm_gym.app.cli import main
from lm_gym.app.run_models import SETTINGS, language_model_of, models_of_run, reward_model_of
from lm_gym.assets import REVIEWS_LM
from lm_gym.errors import ArtifactError, ConfigError
from lm_gym.runs.folder import MARKER
from lm_gym.tools.files import read_jsonl, write_jsonl

MODEL = str(REVIEWS_LM)
SHORT = ["--max-new-tokens", "4"]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("work")
    write_jsonl(folder / "prompts.jsonl", [{"prompt": one} for one in reviews.prompts("train")[:4]])
    return folder


def train(work: Path, out: Path, *more: str, model: str = MODEL) -> int:
    given = ["--model", model, "--reward-model", "lm_gym.reviews:true_score", "--data", str(work / "prompts.jsonl")]
    return main(["train", *given, "--episodes", "4", "--iterations", "1", "--out", str(out), *SHORT, *more])


@pytest.fixture(scope="module")
def trained(work: Path) -> Path:
    assert train(work, work / "run", "--lr", "1e-3") == 0
    return work / "run"


@pytest.fixture(scope="module")
def looped(work: Path, copied_demo: Callable[[Path], Path]) -> Path:
    return copied_demo(work / "demo")


def told(capsys: pytest.CaptureFixture[str]) -> str:
    return " ".join(capsys.readouterr().err.split())


def test_a_run_of_train_is_its_policy(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = []
    for model, name in ((trained, "run"), (trained / "policy", "policy")):
        out = tmp_path / f"{name}.jsonl"
        assert main(["generate", "--model", str(model), "--prompt", "a", *SHORT, "--out", str(out)]) == 0
        rows.append(read_jsonl(out))
    assert rows[0] == rows[1]
    assert f"{trained} is a run; taken: the policy at its end, {trained / 'policy'}" in told(capsys)


def test_a_run_of_the_loop_is_the_policy_of_its_last_round(looped: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert language_model_of(str(looped)) == str(looped / "round-2" / "ppo" / "policy")
    assert "taken: the policy of round 2" in told(capsys)
    assert reward_model_of(str(looped)) == str(looped / "round-2" / "reward" / "model")
    assert "taken: the reward model of round 2" in told(capsys)
    inner = looped / "round-1" / "ppo"
    assert language_model_of(str(inner)) == str(inner / "policy")
    for plain in (looped / "sft" / "model", looped / "round-1" / "reward" / "model", "owner/name", "cross-encoder"):
        assert language_model_of(str(plain)) == reward_model_of(str(plain)) == str(plain)
    capsys.readouterr()


def test_of_a_loop_that_was_stopped_the_newest_whole_model_is_taken(looped: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(looped, run)
    shutil.rmtree(run / "round-2" / "ppo" / "policy")
    assert language_model_of(str(run)) == str(run / "round-1" / "ppo" / "policy")
    shutil.rmtree(run / "round-1" / "ppo")
    assert language_model_of(str(run)) == str(run / "sft" / "model")
    shutil.rmtree(run / "sft")
    with pytest.raises(ArtifactError, match="holds none yet; let it go on with --resume"):
        language_model_of(str(run))


def test_of_a_training_that_was_stopped_the_newest_checkpoint_is_taken(trained: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    for number in (2, 10):
        shutil.copytree(trained / "policy", run / "checkpoints" / f"checkpoint-{number}" / "policy")
    shutil.copy(trained / MARKER, run)
    found = models_of_run(run)
    assert found is not None
    assert found.after == run / "checkpoints" / "checkpoint-10" / "policy"
    assert found.told == "the checkpoint after iteration 10; the run goes on"


def test_training_goes_on_from_a_run_and_by_the_settings_of_one(
    work: Path, trained: Path, looped: Path, tmp_path: Path
) -> None:
    assert train(work, tmp_path / "next", model=str(trained)) == 0
    first = read_jsonl(tmp_path / "next" / "metrics.jsonl")[0]
    assert first["kl"] == pytest.approx(0.0, abs=1e-4)  # the reference is that policy too
    assert main(["train", "--config", str(trained / SETTINGS), "--out", str(tmp_path / "again")]) == 0
    weights = [(run / "policy" / "model.safetensors").read_bytes() for run in (trained, tmp_path / "again")]
    assert weights[0] == weights[1]
    rows = write_jsonl(tmp_path / "rows.jsonl", reviews.demonstrations(4, 0))
    given = ["--model", str(trained), "--data", str(rows), "--epochs", "1", "--out", str(tmp_path / "sft")]
    assert main(["sft", *given]) == 0
    pairs = [{"prompt": f"p{n}:", "chosen": " good", "rejected": " bad"} for n in range(6)]
    data = str(write_jsonl(tmp_path / "pairs.jsonl", pairs))
    out = ["--held-out", "0.4", "--out", str(tmp_path / "rm")]
    assert main(["reward", "train", "--base", str(looped), "--data", data, *out]) == 0
    assert main(["reward", "eval", "--model", str(looped), "--data", data, "--json"]) == 0


def test_train_leaves_its_settings_before_its_first_iteration(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, found = tmp_path / "run", []

    def look(prompts: list[str], completions: list[str]) -> list[float]:
        found.append((out / SETTINGS).read_text())
        raise ValueError("the server is away")

    module = types.ModuleType("reward_functions")
    module.look = look  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "reward_functions", module)
    assert train(work, out, "--reward-model", "reward_functions:look") == 2
    assert train(work, out, "--reward-model", "reward_functions:look", "--save-every", "3", "--resume") == 2
    assert [one.count("reward_model: reward_functions:look") for one in found] == [1, 1]
    assert ["save_every: 3" in one for one in found] == [False, True]


def test_settings_of_a_refused_call_do_not_replace_those_of_the_run(work: Path, trained: Path) -> None:
    before = (trained / SETTINGS).read_text()
    assert train(work, trained, "--seed", "3", "--resume") == 2
    assert train(work, trained, "--seed", "3") == 2
    assert (trained / SETTINGS).read_text() == before


def test_one_run_is_compared_with_its_beginning(
    trained: Path, looped: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for run, count in ((trained, 4), (looped, 6)):
        assert main(["compare", str(run), *SHORT]) == 0
        assert f"of {count} prompts" in " ".join(capsys.readouterr().out.split())  # its own prompts and reward model
    assert main(["compare", MODEL]) == 2
    assert "needs two models, or one run that knows the model it began with" in told(capsys)
    assert main(["compare", MODEL, str(trained)]) == 2
    assert "give them by --data FILE" in told(capsys)


def test_a_loop_does_not_delete_the_model_that_it_starts_from(
    looped: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Path(shutil.copytree(looped, tmp_path / "run"))
    rows = [{"prompt": f"Question {n}?", "chosen": f"Answer {n}, good.", "rejected": "No."} for n in range(12)]
    data = write_jsonl(tmp_path / "pairs.jsonl", rows)
    before = sorted(run.rglob("*"))
    for out in (run, tmp_path / "run" / "." / "sft" / ".."):
        assert main(["run", "--model", str(run), "--data", str(data), "--out", str(out), "--overwrite"]) == 2
        assert "--out: must not hold the model that the run starts from, which --overwrite would del" in told(capsys)
    assert sorted(run.rglob("*")) == before


def test_a_damaged_settings_file_is_told(trained: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    (run / SETTINGS).write_text("a: [")
    with pytest.raises(ConfigError, match=r"settings\.yaml: must be YAML"):
        models_of_run(run)
