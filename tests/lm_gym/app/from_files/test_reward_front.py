"""``lm-gym reward`` as its user meets it: verdict, probes, other files, flags of another kind, ensembles."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lm_gym import load_reward_model
from lm_gym.app.cli import main
from lm_gym.assets import REVIEWS_LM
from lm_gym.tools.files import write_jsonl

MODEL = str(REVIEWS_LM)


@pytest.fixture
def pairs_file(tmp_path: Path) -> Path:
    """Pairs whose better side is longer."""
    rows = [
        {
            "prompt": f"Write a review {number} :",
            "chosen": f"The film is good {number} . It is great .",
            "rejected": "Bad .",
        }
        for number in range(40)
    ]
    return write_jsonl(tmp_path / "pairs.jsonl", rows)


def flat(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize(
    ("kind", "flag", "words"),
    [
        ("preference", ["--surface"], "--surface: belongs to --kind embedding, got --kind preference"),
        ("cross-encoder", ["--l2", "2"], "--l2: belongs to --kind embedding"),
        ("preference", ["--reads", "interaction"], "--reads: belongs to --kind embedding"),
        (
            "embedding",
            ["--epochs", "2"],
            "--kind preference or cross-encoder, got --kind embedding",
        ),
        ("embedding", ["--lora-rank", "4"], "--lora-rank: belongs to --kind preference"),
    ],
)
def test_flags_of_another_kind_are_refused(
    kind: str, flag: list[str], words: str, tmp_path: Path, pairs_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--model", MODEL, "--data", str(pairs_file), "--out", str(tmp_path / "rm"), "--kind", kind, *flag]
    assert main(["reward", "train", *arguments]) == 2
    assert words in flat(capsys.readouterr().err)
    assert not (tmp_path / "rm").exists()


def test_an_embedding_model_with_every_flag_and_an_ensemble_with_a_second(
    tmp_path: Path, pairs_file: Path, encoder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shared = ["--data", str(pairs_file), "--held-out", "0.4", "--kind", "embedding", "--model", str(encoder)]
    other = write_jsonl(
        tmp_path / "shorter.jsonl", [{"prompt": "p", "chosen": "Good .", "rejected": "Bad . It is very bad ."}] * 2
    )
    first = [*shared, "--surface", "--reads", "interaction", "--hidden", "4", "--l2", "0.1", "--debias", "0.5"]
    assert main(["reward", "train", *first, "--also", str(other), "--out", str(tmp_path / "a")]) == 0
    told = flat(capsys.readouterr().out)
    for words in (
        "Too few pairs to tell",
        "Trained on",
        "made against padded",
        "Texts that must lose",
        "shorter.jsonl",
    ):
        assert words in told, words
    found = json.loads((tmp_path / "a" / "evaluation.json").read_text(encoding="utf-8"))
    assert [one["name"] for one in found["also"]] == ["shorter.jsonl"]
    assert found["also"][0]["evaluation"]["length_rule"] == "fewer words"
    page = (tmp_path / "a" / "card.html").read_text(encoding="utf-8")
    for words in ("Also measured on", "Too few pairs to tell", "the worst first"):
        assert words in page, words
    assert main(["reward", "train", *shared, "--out", str(tmp_path / "b")]) == 0
    assert "it reads the response, not the prompt" in flat(capsys.readouterr().out)

    members, out = [str(tmp_path / "a"), str(tmp_path / "b")], tmp_path / "both"
    assert main(["reward", "ensemble", *members, "--data", str(pairs_file), "--out", str(out)]) == 0
    told = flat(capsys.readouterr().out)
    assert "left out: 24 of 40 judgements" in told
    made: Any = load_reward_model(out)
    assert len(made.weights) == 2
    assert main(["reward", "ensemble", *members, "--data", str(pairs_file), "--out", str(out)]) == 2
    assert "pass --overwrite" in flat(capsys.readouterr().err)
    again = ["--data", str(pairs_file), "--also", str(pairs_file), str(other)]
    assert main(["reward", "eval", "--model", str(out), *again]) == 0
    told = flat(capsys.readouterr().err)
    assert "40 of these groups" in told
    assert told.count("trained on 40 of the groups in") == 1


def test_probes_can_fail_a_pipeline(tmp_path: Path, pairs_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "longer.py").write_text(
        "def score(completions):\n    return [float(len(text)) for text in completions]\n"
    )
    model = f"{tmp_path / 'longer.py'}:score"
    assert main(["reward", "eval", "--model", model, "--data", str(pairs_file)]) == 0
    assert "best answer padded" in capsys.readouterr().out
    assert main(["reward", "eval", "--model", model, "--data", str(pairs_file), "--fail-on-probes"]) == 2
    assert "no probe may fool it (--fail-on-probes), and these do: one word" in flat(capsys.readouterr().err)


def test_a_fit_whose_probes_fail_is_written_and_says_so_again(
    tmp_path: Path, pairs_file: Path, encoder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--data", str(pairs_file), "--held-out", "0.4", "--kind", "embedding", "--model", str(encoder)]
    arguments += ["--surface", "--fail-on-probes", "--out", str(tmp_path / "rm")]
    for again in ([], ["--resume"]):
        assert main(["reward", "train", *arguments, *again]) == 2
        assert "--fail-on-probes" in capsys.readouterr().err
        load_reward_model(tmp_path / "rm")
    (tmp_path / "rm" / "evaluation.json").unlink()
    assert main(["reward", "train", *arguments, "--resume"]) == 2
    assert ": must be whole JSON" in flat(capsys.readouterr().err)


def test_thumbs_alone_are_measured(tmp_path: Path, encoder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        {"prompt": f"p{number}", "completion": "Good ." if number % 2 else "Bad .", "label": bool(number % 2)}
        for number in range(20)
    ]
    data = write_jsonl(tmp_path / "thumbs.jsonl", rows)
    arguments = ["--kind", "embedding", "--model", str(encoder), "--data", str(data), "--held-out", "0.4"]
    assert main(["reward", "train", *arguments, "--out", str(tmp_path / "rm")]) == 0
    assert "area under the ROC of 8 thumbs: 1.000" in flat(capsys.readouterr().out)
    found = json.loads((tmp_path / "rm" / "evaluation.json").read_text(encoding="utf-8"))
    assert found["graded"]["thumbs_auroc"] == 1.0


@pytest.mark.parametrize("option", [["--fail-on-probes"], ["--also", "pairs.jsonl"], ["--page", "card.html"]])
def test_what_needs_comparisons_is_refused_without_any(
    option: list[str],
    tmp_path: Path,
    pairs_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [{"prompt": f"p{number}", "completion": "Good .", "label": bool(number % 2)} for number in range(20)]
    write_jsonl(tmp_path / "thumbs.jsonl", rows)
    data = ["--data", "thumbs.jsonl", *option]
    assert main(["reward", "eval", "--model", "lm_gym.reviews:true_score", *data]) == 2
    assert f"{option[0]}: must have judgements to measure on" in flat(capsys.readouterr().err)
    assert not (tmp_path / "card.html").exists()
    if option[0] != "--page":
        assert main(["reward", "train", "--model", MODEL, *data, "--held-out", "0.4", "--out", "rm"]) == 2
        assert f"{option[0]}: must have judgements to measure on" in flat(capsys.readouterr().err)
        assert not (tmp_path / "rm").exists()  # told before it is paid for


def test_files_measured_beside_are_read_before_the_fit_and_belong_to_the_run(
    tmp_path: Path, pairs_file: Path, encoder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "rm"
    arguments = ["--data", str(pairs_file), "--held-out", "0.4", "--kind", "embedding", "--model", str(encoder)]
    arguments += ["--out", str(out)]
    thumbs = write_jsonl(tmp_path / "thumbs.jsonl", [{"prompt": "p", "completion": "Good .", "label": True}])
    other = write_jsonl(tmp_path / "other.jsonl", [{"prompt": "p", "chosen": "Good .", "rejected": "Bad ."}])
    for path in (tmp_path / "missing.jsonl", thumbs):
        assert main(["reward", "train", *arguments, "--also", str(path)]) == 2
        assert path.stem in flat(capsys.readouterr().err)
        assert not out.exists()
        assert not (tmp_path / "rm.checkpoints").exists()
    assert main(["reward", "train", *arguments]) == 0
    assert main(["reward", "train", *arguments, "--resume", "--also", str(other)]) == 2
    assert "these differ: input also" in flat(capsys.readouterr().err)


def test_reference_samples_are_read_from_any_file_of_rows(
    tmp_path: Path, pairs_file: Path, encoder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--data", str(pairs_file), "--held-out", "0.4", "--kind", "embedding", "--model", str(encoder)]
    texts = ("Good , quite .", "Bad .", "[b]", "😀")
    (tmp_path / "samples.csv").write_text("prompt,response\n" + "".join(f'p,"{text}"\n' for text in texts))
    (tmp_path / "samples.json").write_text(json.dumps([{"prompt": "p", "response": text} for text in texts]))
    write_jsonl(tmp_path / "samples.jsonl", [{"prompt": "p", "response": text} for text in texts])
    normalizers = []
    for name in ("samples.csv", "samples.json", "samples.jsonl"):
        out = tmp_path / name.replace(".", "-")
        given = ["--reference-samples", str(tmp_path / name), "--out", str(out)]
        assert main(["reward", "train", *arguments, *given]) == 0
        normalizers.append(load_reward_model(out).normalizer)  # type: ignore[attr-defined]
    assert normalizers[0] is not None
    assert normalizers[0] == normalizers[1] == normalizers[2]
    bad = write_jsonl(tmp_path / "bad.jsonl", [{"prompt": "p", "response": "a"}, {"prompt": "p", "completion": "a"}])
    given = ["--reference-samples", str(bad), "--out", str(tmp_path / "rm")]
    assert main(["reward", "train", *arguments, *given]) == 2
    assert 'row 2: must have texts under "prompt" and "response"' in flat(capsys.readouterr().err)


def test_probes_without_a_preferred_answer_are_no_success(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    either = [{"prompt": "p", "chosen": a, "rejected": b} for a, b in (("Good .", "Bad ."), ("Bad .", "Good ."))]
    data = write_jsonl(tmp_path / "either.jsonl", either)
    arguments = ["--model", "lm_gym.reviews:true_score", "--data", str(data), "--fail-on-probes"]
    assert main(["reward", "eval", *arguments]) == 2
    assert "no probe was measured" in flat(capsys.readouterr().err)


def test_few_updates_are_warned_of(tmp_path: Path, pairs_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--model", MODEL, "--data", str(pairs_file), "--held-out", "0.4", "--out", str(tmp_path / "rm")]
    assert main(["reward", "train", *arguments]) == 0
    told = flat(capsys.readouterr().out)
    assert "9 updates are few" in told
    assert "9 updates, step size 0.001" in told
