"""What the commands print of the texts, names and paths of models and users."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lm_gym.app.cli import main
from lm_gym.assets import REVIEWS_LM
from lm_gym.tools.files import write_jsonl

MODEL = str(REVIEWS_LM)


def test_texts_and_paths_are_printed_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    prompt = "A [b]lamp[/b], :smile: [/i]" + " and so on" * 10
    assert main(["generate", "--model", MODEL, "--prompt", prompt, "--max-new-tokens", "2"]) == 0
    assert capsys.readouterr().out.startswith(prompt)  # on one line too: a pipe has no width
    prompts = write_jsonl(tmp_path / "prompts.jsonl", [{"prompt": prompt}])
    assert main(["compare", MODEL, MODEL, "--prompts", str(prompts), "--max-new-tokens", "2"]) == 0
    table = capsys.readouterr().out
    assert all(text in table for text in ("[b]lamp[/b],", ":smile:", "[/i]"))
    train = ["train", "--model", MODEL, "--reward-model", "lm_gym.reviews:true_score", "--prompts", str(prompts)]
    train += ["--episodes", "4", "--max-new-tokens", "8", "--iterations", "1", "--out", "r[/b]"]
    assert main(train) == 0
    assert "r[/b]" in capsys.readouterr().out
    assert main(["generate", "--model", "nothing [/here]", "--prompt", "a"]) == 2
    assert "nothing [/here]" in " ".join(capsys.readouterr().err.split())


def test_no_escape_sequence_of_a_text_reaches_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prompt = "[INST] x [/INST]\x1b[2J\x1b]0;title\x07"
    shown = r"[INST] x [/INST]\x1b[2J\x1b]0;title\x07"
    assert main(["generate", "--model", MODEL, "--prompt", prompt, "--max-new-tokens", "2"]) == 0
    assert capsys.readouterr().out.startswith(shown)
    prompts = write_jsonl(tmp_path / "prompts.jsonl", [{"prompt": prompt}])
    assert main(["compare", MODEL, MODEL, "--prompts", str(prompts), "--max-new-tokens", "2"]) == 0
    table = capsys.readouterr().out
    assert "\x1b" not in table
    assert r"\x1b[2J" in table
    assert main(["generate", "--model", "./\x1b[2J", "--prompt", "a"]) == 2
    told = capsys.readouterr().err
    assert "\x1b" not in told
    assert r"\x1b[2J" in told
    bad = write_jsonl(tmp_path / "bad.jsonl", [{"prompt": "p", "chosen": "a", "rejected": 3, "\x1b[2J": "[/b]"}])
    assert main(["reward", "eval", "--model", "lm_gym.reviews:true_score", "--data", str(bad)]) == 2
    assert "\x1b" not in capsys.readouterr().err


@pytest.mark.parametrize(
    "args",
    [
        ["\x1b[2J"],
        ["train", "\x1b[2J"],
        ["train", "--\x1b[2J"],
        ["generate", "--model", "m", "--count", "\x1b[2J"],
        ["report", "run", "--form=\x1b[2J"],
        ["reward", "train", "--data", "--kind", "\x1b[2J"],
    ],
)
def test_no_argument_that_cannot_be_read_reaches_the_terminal_raw(
    args: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        sys.exit(main(args))  # some are refused before they are read, by an exit status
    told = capsys.readouterr().err
    assert "\x1b" not in told
    assert r"\x1b[2J" in told


def test_a_model_that_is_nowhere_is_told_at_once_where_there_is_no_network() -> None:
    """Not after half a minute of retries, each with a warning of its own."""
    command = [sys.executable, "-m", "lm_gym.app.cli", "generate", "--model", "no-such-model", "--prompt", "a"]
    kept = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    env = kept | {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": "https://no-such-host.invalid"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 2
    assert "ModelLoadError: AutoModelForCausalLM 'no-such-model'" in done.stderr
    assert "; give a local folder if there is no network" in " ".join(done.stderr.split())
    assert "Retry" not in done.stderr
