"""GGUF files on the command line."""

import json
from pathlib import Path

import pytest

pytest.importorskip("gguf")

from lm_gym.app.cli import main
from lm_gym.app.doctor.model import examined

from ...helpers.gguf_files import write_gguf


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LM_GYM_CACHE", str(tmp_path / "cache"))
    (tmp_path / "m").mkdir()
    write_gguf(tmp_path / "m" / "tiny.gguf")
    return tmp_path / "m" / "tiny.gguf"


def test_generate_takes_a_file_and_its_folder_alike(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answers = []
    for handle in (file, file.parent):
        assert main(["generate", "--model", str(handle), "--prompt", "the cat", "--max-new-tokens", "4"]) == 0
        answers.append(capsys.readouterr().out)
    assert answers[0] == answers[1]
    assert answers[0].strip()


def test_a_folder_with_several_is_told_with_their_names(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_gguf(file.parent / "other.gguf", seed=1)
    assert main(["generate", "--model", str(file.parent), "--prompt", "the cat"]) == 2
    assert "holds 2: other.gguf, tiny.gguf" in " ".join(capsys.readouterr().err.split())


def test_a_reward_model_on_it_is_one_run_by_file_or_folder(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = [{"prompt": f"{word} cat", "chosen": " sat", "rejected": " dog"} for word in ("the", "a", "on", "and")]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pairs))
    command = ["reward", "train", "--data", str(tmp_path / "pairs.jsonl"), "--out", str(tmp_path / "rm"), "--model"]
    assert main([*command, str(file)]) == 0
    monkeypatch.setenv("LM_GYM_CACHE", str(tmp_path / "elsewhere"))
    assert main([*command, str(file.parent), "--resume"]) == 0
    assert "is finished; nothing was left to do" in " ".join(capsys.readouterr().out.split())
    write_gguf(file, seed=1)
    assert main([*command, str(file), "--resume"]) == 2


def test_the_doctor_loads_it(file: Path) -> None:
    found = examined(str(file))
    assert (found["loads"], found["class"], found["vocabulary"]) == (True, "LlamaForCausalLM", 278)
