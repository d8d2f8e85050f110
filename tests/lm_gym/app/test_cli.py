"""Every command, from files, in its shortest form."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import types
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest

from lm_gym import load_reward_model, reviews
from lm_gym.app.cli import main
from lm_gym.assets import REVIEWS_LM
from lm_gym.tools.files import read_jsonl, write_jsonl

MODEL = str(REVIEWS_LM)


@pytest.fixture
def prompts_file(tmp_path: Path) -> Path:
    return write_jsonl(tmp_path / "prompts.jsonl", [{"prompt": prompt} for prompt in reviews.prompts("train")[:4]])


@pytest.fixture
def rankings_file(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    rows = []
    for prompt in reviews.prompts("train")[:8]:
        texts = [reviews.sample_review(prompt, rng) for _ in range(3)]
        order = np.argsort(np.argsort([-score for score in reviews.true_score([prompt] * 3, texts)]))
        rows.append({"prompt": prompt, "responses": texts, "ranks": [int(place) + 1 for place in order]})
    return write_jsonl(tmp_path / "rankings.jsonl", rows)


def test_help_names_every_stage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    for command in ("demo", "run", "pretrain", "sft", "reward", "train", "generate", "compare", "report"):
        assert command in text


def test_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"lm-gym {version('lm-gym')}\n"


@pytest.mark.parametrize("command", ["demo", "run", "pretrain", "sft", "train", "generate", "compare", "report"])
def test_every_option_is_explained(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([command, "--help"])
    blocks = re.split(r"^[│ ] --", capsys.readouterr().out, flags=re.MULTILINE)[1:]
    assert blocks
    for block in blocks:
        words = block.replace("│", " ").split("(")[0].split()
        assert len(words) >= 3, block


def test_generate_writes_rows(tmp_path: Path, prompts_file: Path) -> None:
    out = tmp_path / "out.jsonl"
    done = main(["generate", "--model", MODEL, "--prompts", str(prompts_file), "--count", "2", "--out", str(out)])
    assert done == 0
    rows = read_jsonl(out)
    assert len(rows) == 8
    assert all(row["response"].strip() for row in rows)


def test_generate_needs_a_prompt(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "--model", MODEL]) == 2
    assert "got neither" in capsys.readouterr().err


def test_compare_counts_wins(prompts_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    truth = "lm_gym.reviews:true_score"
    assert main(["compare", MODEL, MODEL, "--prompts", str(prompts_file), "--reward-model", truth]) == 0
    assert "wins 50% of 4" in " ".join(capsys.readouterr().out.split())  # the same model, the same draws: all ties


def scores_some(prompts: list[str], completions: list[str]) -> list[float | None]:
    """Abstains on every other row."""
    return [5.0 if row % 2 else None for row in range(len(prompts))]


def test_compare_leaves_abstentions_out(
    prompts_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = types.ModuleType("reward_functions")
    module.some = scores_some  # type: ignore[attr-defined]
    module.none = lambda prompts, completions: [None] * len(prompts)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "reward_functions", module)
    for name, words in (
        ("some", ["mean score 5.000 against 5.000", "50% of 2", "left out: 2 prompts", "(no score)"]),
        ("none", ["no prompt has two scores", "left out: 4 prompts"]),
    ):
        given = ["--prompts", str(prompts_file), "--reward-model", f"reward_functions:{name}"]
        assert main(["compare", MODEL, MODEL, *given]) == 0
        told = " ".join(capsys.readouterr().out.split())
        for text in words:
            assert text in told


def test_reward_train_then_eval(tmp_path: Path, rankings_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "reward"
    arguments = ["--model", MODEL, "--data", str(rankings_file), "--out", str(out), "--held-out", "0.25"]
    assert main(["reward", "train", *arguments]) == 0
    assert main(["reward", "train", *arguments]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert main(["reward", "eval", "--model", str(out), "--data", str(rankings_file), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["n"] == 8 * 3
    assert 0 <= found["accuracy"] <= 1
    assert {"nll", "ece", "length_baseline_accuracy", "by_group"} <= set(found)
    assert found["seen_groups"]  # most of these prompts were trained on, and it says so
    page = tmp_path / "card.html"
    assert main(["reward", "eval", "--model", str(out), "--data", str(rankings_file), "--page", str(page)]) == 0
    assert "was trained on" in page.read_text(encoding="utf-8")
    assert (out / "card.html").is_file()
    record = json.loads((out / "lm_gym_reward_model.json").read_text(encoding="utf-8"))
    on_held_out = json.loads((out / "evaluation.json").read_text(encoding="utf-8"))
    assert record["links"]["temperature"] == on_held_out["temperature"]
    again = ["--model", MODEL, "--data", str(rankings_file), "--eval-data", str(rankings_file)]
    assert main(["reward", "train", *again, "--out", str(tmp_path / "other")]) == 2
    assert "both trained and measured on" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "other").exists()


def test_reward_train_lists_bad_rows_when_asked(
    tmp_path: Path, rankings_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_text(rankings_file.read_text(encoding="utf-8") + '{"prompt": "p", "chosen": "x"}\n', encoding="utf-8")
    arguments = ["--model", MODEL, "--data", str(bad), "--held-out", "0.25", "--out", str(tmp_path / "rm")]
    assert main(["reward", "train", *arguments]) == 2
    assert "bad.jsonl, line" in "".join(capsys.readouterr().err.split("\n"))
    assert main(["reward", "train", *arguments, "--skip-bad"]) == 0
    assert "skipped 1 rows" in capsys.readouterr().out


def train_arguments(prompts_file: Path, out: Path, reward_model: str = "lm_gym.reviews:true_score") -> list[str]:
    short = ["--episodes", "4", "--max-new-tokens", "8", "--out", str(out)]
    return ["train", "--model", MODEL, "--reward-model", reward_model, "--prompts", str(prompts_file), *short]


def test_train_leaves_a_model_and_resumes(
    tmp_path: Path, prompts_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    common = train_arguments(prompts_file, out)
    assert main([*common, "--iterations", "1"]) == 0
    assert main([*common, "--iterations", "1"]) == 2  # the folder holds a run
    assert main([*common, "--iterations", "2", "--learning-rate", "1e-3", "--resume"]) == 2
    told = " ".join(capsys.readouterr().err.split())
    assert "iterations (was 1, is 2), learning_rate (was 1e-05, is 0.001)" in told
    assert main([*common, "--iterations", "1", "--resume"]) == 0
    assert [row["iteration"] for row in read_jsonl(out / "metrics.jsonl")] == [0]
    assert main(["generate", "--model", str(out / "policy"), "--prompt", reviews.prompts("train")[0]]) == 0


@pytest.mark.parametrize("flag", ["--resume", "--overwrite"])
def test_train_never_deletes_what_it_did_not_write(
    flag: str, tmp_path: Path, prompts_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "mine"
    out.mkdir()
    (out / "thesis.tex").write_text("years of work")
    assert main([*train_arguments(prompts_file, out), "--iterations", "1", flag]) == 2
    assert "holds thesis.tex, which no run wrote" in " ".join(capsys.readouterr().err.split())
    assert [path.name for path in out.iterdir()] == ["thesis.tex"]


def test_train_deletes_an_old_run_only_when_the_new_one_can_start(tmp_path: Path, prompts_file: Path) -> None:
    out = tmp_path / "run"
    common = [*train_arguments(prompts_file, out), "--iterations", "1"]
    assert main(common) == 0
    before = (out / "metrics.jsonl").read_bytes()
    long = write_jsonl(tmp_path / "long.jsonl", [{"prompt": "Review " * 300}])
    broken = (
        ["--eval-prompts", str(long)],
        ["--eval-prompts", str(tmp_path / "missing.jsonl")],
        ["--kl-target", "0"],
        ["--reward-model", "no.such:model"],
        ["--learning-rate", "-1"],
    )
    for wrong in broken:
        assert main([*common, "--overwrite", *wrong]) == 2, wrong
        assert (out / "metrics.jsonl").read_bytes() == before
    assert main([*common, "--overwrite"]) == 0


calls: list[int] = []


def stops_the_process(prompts: list[str], completions: list[str]) -> list[float]:
    """A reward function in whose second call the process is asked to stop."""
    calls.append(len(prompts))
    if len(calls) == 2:
        os.kill(os.getpid(), signal.SIGTERM)
    return reviews.true_score(prompts, completions)


def fails(prompts: list[str], completions: list[str]) -> list[float]:
    """A reward function whose third call fails."""
    calls.append(len(prompts))
    if len(calls) == 3:
        raise ValueError("the server is away")
    return reviews.true_score(prompts, completions)


def test_a_stopped_or_failed_train_says_so_by_its_exit_status(
    tmp_path: Path, prompts_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = types.ModuleType("reward_functions")
    module.stops, module.fails = stops_the_process, fails  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "reward_functions", module)
    for name, status in (("stops", 128 + signal.SIGTERM), ("fails", 2)):
        calls.clear()
        out = tmp_path / name
        common = [*train_arguments(prompts_file, out, f"reward_functions:{name}"), "--iterations", "4"]
        assert main(common) == status
        assert [path.name for path in (out / "checkpoints").iterdir()] == ["checkpoint-2"]
        assert main([*common, "--resume"]) == 0
        assert [row["iteration"] for row in read_jsonl(out / "metrics.jsonl")] == [0, 1, 2, 3]


def has_the_answer(prompts: list[str], completions: list[str], answer: list[str]) -> list[float]:
    """1 where the response holds the answer of its own prompt's row."""
    assert [prompt.split()[-1] for prompt in prompts] == [f"{one}:" for one in answer]
    return [float(one in text) for one, text in zip(answer, completions, strict=True)]


def test_train_pays_by_a_column_of_the_prompts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    module = types.ModuleType("answers_of_a_user")
    module.reward = has_the_answer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    rows = [{"prompt": f"Write the word {word}:", "answer": word} for word in ("is", "the", "and", "it")]
    prompts = write_jsonl(tmp_path / "rows.jsonl", [*rows, rows[0]])
    common = ["train", "--model", MODEL, "--reward-model", "answers_of_a_user:reward", "--iterations", "1"]
    short = ["--episodes", "8", "--max-new-tokens", "24", "--out", str(tmp_path / "run")]
    held_out = ["--eval-prompts", str(prompts)]
    assert main([*common, *short, "--prompts", str(prompts), *held_out]) == 0, capsys.readouterr().err
    [row] = read_jsonl(tmp_path / "run" / "metrics.jsonl")
    assert 0 < row["score"] < 1
    assert 0 <= row["eval_score"] <= 1
    assert main(["compare", MODEL, MODEL, "--prompts", str(prompts), "--reward-model", common[4]]) == 0
    plain = write_jsonl(tmp_path / "plain.jsonl", [{"prompt": row["prompt"]} for row in rows])
    assert main([*common, *short, "--prompts", str(plain), "--overwrite"]) == 2
    assert "reward model has_the_answer: needs the column 'answer'" in " ".join(capsys.readouterr().err.split())


def test_reward_train_fits_a_normaliser_on_samples_of_the_reference_only(
    tmp_path: Path, rankings_file: Path, prompts_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, samples = tmp_path / "rm", tmp_path / "samples.jsonl"
    common = [
        "reward",
        "train",
        "--model",
        MODEL,
        "--data",
        str(rankings_file),
        "--held-out",
        "0.25",
        "--out",
        str(out),
    ]
    assert main(common) == 0
    assert load_reward_model(out).normalizer is None
    drawn = ["--prompts", str(prompts_file), "--count", "3", "--out", str(samples), "--max-new-tokens", "16"]
    assert main(["generate", "--model", MODEL, *drawn]) == 0
    assert main([*common, "--overwrite", "--reference-samples", str(samples)]) == 0
    loaded = load_reward_model(out)
    assert loaded.normalizer is not None
    assert loaded.normalizer.fitted_on == "12 samples of the reference model"
    rows = read_jsonl(samples)
    scores = loaded.score([row["prompt"] for row in rows], [row["response"] for row in rows]).value
    np.testing.assert_allclose([loaded.normalizer(scores).mean(), loaded.normalizer(scores).std()], [0, 1], atol=1e-4)
    write_jsonl(samples, [{"prompt": "p"}])
    assert main([*common, "--overwrite", "--reference-samples", str(samples)]) == 2
    assert 'must have texts under "prompt" and "response"' in " ".join(capsys.readouterr().err.split())
    assert loaded.normalizer == load_reward_model(out).normalizer  # the old one is still there


def test_sft_from_files(tmp_path: Path) -> None:
    data = write_jsonl(tmp_path / "rows.jsonl", reviews.demonstrations(4, 0))
    out = tmp_path / "sft"
    assert main(["sft", "--model", MODEL, "--data", str(data), "--out", str(out), "--epochs", "1"]) == 0
    assert (out / "model.safetensors").is_file()


def test_an_error_of_the_users_is_told_in_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = str(tmp_path / "nothing.jsonl")
    assert main(["compare", MODEL, MODEL, "--prompts", missing]) == 2
    text = " ".join(capsys.readouterr().err.split())
    assert "DataError" in text
    assert "there is no such file" in text
    assert "Traceback" not in text


def test_reward_train_on_a_sentence_encoder(
    tmp_path: Path, rankings_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    base = Transformer(MODEL, max_seq_length=128)
    base.tokenizer.pad_token = base.tokenizer.pad_token or base.tokenizer.eos_token
    encoder = SentenceTransformer(modules=[base, Pooling(base.get_embedding_dimension())], device="cpu")
    encoder.save(str(tmp_path / "encoder"), create_model_card=False)
    out = tmp_path / "rm"
    arguments = ["--kind", "embedding", "--model", str(tmp_path / "encoder"), "--data", str(rankings_file)]
    assert main(["reward", "train", *arguments, "--held-out", "0.25", "--out", str(out)]) == 0
    assert "length rule" in capsys.readouterr().out
    assert main(["reward", "eval", "--model", str(out), "--data", str(rankings_file), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["name"] == "embedding"


@pytest.mark.parametrize("command", ["train", "demo", "sft", "pretrain", "reward train"])
def test_a_negative_seed_is_an_error_of_the_user(
    command: str, tmp_path: Path, prompts_file: Path, rankings_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = write_jsonl(tmp_path / "rows.jsonl", [{"prompt": "a", "completion": " b"}] * 9)
    given = {
        "train": train_arguments(prompts_file, tmp_path / "out"),
        "demo": ["demo", "--smoke", "--out", str(tmp_path / "out")],
        "sft": ["sft", "--model", MODEL, "--data", str(rows), "--out", str(tmp_path / "out")],
        "pretrain": ["pretrain", "--data", str(rows), "--out", str(tmp_path / "out")],
        "reward train": [
            "reward",
            "train",
            "--model",
            MODEL,
            "--data",
            str(rankings_file),
            "--out",
            str(tmp_path / "o"),
        ],
    }
    assert main([*given[command], "--seed", "-1"]) == 2
    assert "seed: must be" in " ".join(capsys.readouterr().err.split())


def test_counts_below_one_are_refused(prompts_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "--model", MODEL, "--prompt", "a", "--count", "0"]) == 2
    assert "--count must be >= 1, got 0" in capsys.readouterr().err
    assert main(["compare", MODEL, MODEL, "--prompts", str(prompts_file), "--limit", "-3"]) == 2
    assert "--limit must be >= 1, got -3" in capsys.readouterr().err


def test_what_cannot_be_written_is_told_in_a_line(
    tmp_path: Path, prompts_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["generate", "--model", MODEL, "--prompt", "a", "--max-new-tokens", "2", "--out"]
    assert main([*given, str(prompts_file / "rows.jsonl")]) == 1
    assert "WriteError" in capsys.readouterr().err
    assert main([*given, str(tmp_path), "--overwrite"]) == 2
    assert "must be a file, got a folder" in " ".join(capsys.readouterr().err.split())
    assert main(train_arguments(prompts_file, prompts_file / "run")) == 2
    assert "cannot be made" in " ".join(capsys.readouterr().err.split())


def test_generate_does_not_replace_its_prompts(prompts_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = prompts_file.read_bytes()
    assert main(["generate", "--model", MODEL, "--prompts", str(prompts_file), "--out", str(prompts_file)]) == 2
    assert "--out must not be the file of prompts" in " ".join(capsys.readouterr().err.split())
    assert prompts_file.read_bytes() == before


def test_generate_writes_under_no_name_of_another_format(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "rows.csv"
    assert main(["generate", "--model", MODEL, "--prompt", "a", "--max-new-tokens", "2", "--out", str(out)]) == 2
    assert "--out must end in .jsonl" in " ".join(capsys.readouterr().err.split())
    assert not out.exists()


def test_generate_replaces_a_file_on_request_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "rows.jsonl"
    out.write_text("mine")
    given = ["generate", "--model", MODEL, "--prompt", "a", "--max-new-tokens", "2", "--out", str(out)]
    assert main(given) == 2
    assert "must be new, and there is one; replace it: --overwrite" in " ".join(capsys.readouterr().err.split())
    assert out.read_text() == "mine"
    assert main([*given, "--overwrite"]) == 0
    assert [row["prompt"] for row in read_jsonl(out)] == ["a"]
