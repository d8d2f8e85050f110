"""Settings by other names, from files, and printed: whatever way they come, the run is the same."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
import yaml

from lm_gym import reviews
from lm_gym.app.cli import main
from lm_gym.app.commands import commands
from lm_gym.app.setting_names import FOREIGN, OTHER_NAMES
from lm_gym.app.settings import expanded
from lm_gym.assets import REVIEWS_LM
from lm_gym.errors import ConfigError
from lm_gym.tools.files import read_jsonl, write_jsonl

MODEL = str(REVIEWS_LM)
COMMANDS = commands()
POSITIONAL = {
    "compare": ["a", "b"],
    "chat": ["a", "b"],
    "reward ensemble": ["a", "b"],
    "report": ["run"],
    "label": ["labels.db"],
}
CHANGED = {
    "reward eval": {"skip_bad": True},
    "reward ensemble": {"rule": "worst"},
    "report": {"form": "table"},
    "doctor": {"model": "a"},
    "label": {"port": 8000},
}
"""A setting of each command that has no seed."""
OTHER_VALUES = {
    "episodes": 6,
    "minibatches": 3,
    "epochs": 2,
    "clip": 0.1,
    "gamma": 0.99,
    "gae_lambda": 0.9,
    "entropy_coef": 0.01,
    "learning_rate": "3e-4",
    "kl_coef": 0.2,
    "kl_target": 3.0,
    "max_new_tokens": 7,
    "temperature": 0.9,
    "top_k": 50,
    "top_p": 0.95,
    "min_p": 0.01,
    "stop_strings": ["!", "?"],
    "iterations": 2,
    "eval_every": 1,
    "save_every": 1,
    "tracker": "none",
    "device": "cpu",
    "dtype": "float32",
    "separate_critic": True,
    "seed": 5,
}


@pytest.fixture
def prompts(tmp_path: Path) -> str:
    return str(write_jsonl(tmp_path / "prompts.jsonl", [{"prompt": one} for one in reviews.prompts("train")[:4]]))


def needed(prompts: str) -> dict[str, str]:
    return {"model": MODEL, "reward_model": "lm_gym.reviews:true_score", "data": prompts, "eval_data": prompts}


def as_options(values: dict[str, object]) -> list[str]:
    found = []
    for name, value in values.items():
        flag = "--" + name.replace("_", "-")
        found += [flag] if value is True else [flag, *map(str, value if isinstance(value, list) else [value])]
    return found


def read_settings(command: str, args: list[str], capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    assert main([*command.split(), *args, "--print-config"]) == 0
    found: dict[str, object] = yaml.safe_load(capsys.readouterr().out)
    return found


def told(capsys: pytest.CaptureFixture[str]) -> str:
    return " ".join(capsys.readouterr().err.split())


def test_a_file_gives_the_run_that_its_values_give_as_options(tmp_path: Path, prompts: str) -> None:
    file = tmp_path / "train.yaml"
    file.write_text(yaml.safe_dump(needed(prompts) | OTHER_VALUES))
    by_options = as_options(needed(prompts) | OTHER_VALUES)
    assert main(["train", *by_options, "--out", str(tmp_path / "a")]) == 0
    assert main(["train", "--config", str(file), "--out", str(tmp_path / "b")]) == 0
    assert main(["train", "--config", str(file), "--out", str(tmp_path / "a"), "--resume"]) == 0  # the same run
    one, two = (read_jsonl(tmp_path / name / "metrics.jsonl") for name in ("a", "b"))
    measured = {"tokens_per_second_rollout", "tokens_per_second_score", "tokens_per_second_update", "peak_memory_mb"}
    strip = [{name: value for name, value in row.items() if name not in measured} for row in [*one, *two]]
    assert strip[:2] == strip[2:]
    assert "eval_score" in one[0]
    weights = [(tmp_path / name / "policy" / "model.safetensors").read_bytes() for name in ("a", "b")]
    assert weights[0] == weights[1]
    assert not (tmp_path / "a" / "tensorboard").exists()  # --tracker none


def test_every_setting_of_train_reaches_the_run(
    tmp_path: Path, prompts: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "run")
    base = as_options(needed(prompts) | {"episodes": 4, "max_new_tokens": 4, "iterations": 1, "out": out})
    assert main(["train", *base]) == 0
    same = {"device", "dtype", "tracker", "save_every"}  # make no other run
    capsys.readouterr()
    changed = {name: value for name, value in OTHER_VALUES.items() if name not in same}
    assert main(["train", *base, *as_options(changed), "--resume"]) == 2
    refused = told(capsys)
    for name in (
        *("episodes_per_iteration", "minibatches", "epochs", "clip", "gamma", "gae_lambda", "entropy_coef"),
        *("learning_rate", "kl_coef", "adaptive_kl", "max_new_tokens", "temperature", "top_k", "top_p", "min_p"),
        *("stop_strings", "iterations", "eval_every", "seed", "seed_of_env", "input policy"),
    ):
        assert f"{name} (was" in refused or f".{name} (was" in refused or f"{name}." in refused, name


@pytest.mark.parametrize("command", COMMANDS)
def test_what_is_printed_is_taken_again(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    positional = POSITIONAL.get(command, [])
    first = read_settings(command, positional, capsys)
    assert not {"resume", "overwrite", "config", "print_config"} & set(first)
    other = CHANGED.get(command, {"seed": 7})
    changed = read_settings(command, [*positional, *as_options(other)], capsys)
    assert changed == {**first, **other} != first
    file = tmp_path / "settings.yaml"
    file.write_text(yaml.safe_dump(changed))
    assert read_settings(command, [*positional, "--config", str(file)], capsys) == changed


def test_a_file_reaches_the_commands_of_few_settings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"prompt": f"p{number}", "chosen": "a b", "rejected": "c d"} for number in range(4)]
    pairs = str(write_jsonl(tmp_path / "pairs.jsonl", rows))
    file = tmp_path / "eval.yaml"
    file.write_text(yaml.safe_dump({"model": "lm_gym.reviews:true_score", "data": [pairs], "json": True}))
    assert main(["reward", "eval", "--config", str(file)]) == 0
    assert json.loads(capsys.readouterr().out)["n"] == 4
    file.write_text("model: no-such-folder\njson: true\n")
    assert main(["doctor", "--config", str(file)]) == 2  # the exit status of the command itself
    assert json.loads(capsys.readouterr().out)["model"]["loads"] is False
    assert main(["doctor", "--config", str(file), "--print-config"]) == 0


def test_no_file_holds_what_has_no_option(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "compare.yaml"
    file.write_text("b: other\n")
    assert main(["compare", "a", "--config", str(file)]) == 2
    assert "compare has no setting 'b'" in told(capsys)


def test_missing_settings_stand_as_comments(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--print-config"]) == 0
    printed = capsys.readouterr().out
    for name in ("model", "reward_model", "data", "out"):
        assert f"# {name}: required\n" in printed


def test_options_override_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("lr: 0.5\nseparate-critic: true\nstop_strings: [a, b]\ntop_k: null\nepochs: 9\nout: '-x'\n")
    given = ["--config", str(file), "--n_epochs=3", "--stop-strings", "c", "--no-separate-critic"]
    found = read_settings("train", given, capsys)
    assert found["learning_rate"] == 0.5
    assert found["epochs"] == 3
    assert found["stop_strings"] == ["c"]
    assert found["separate_critic"] is False
    assert found["out"] == "-x"
    assert read_settings("train", given[:2], capsys)["separate_critic"] is True


def test_null_is_none_or_an_empty_list_and_never_the_word(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("stop_strings: null\neval_data: null\ntop_k: null\n")
    found = read_settings("train", ["--config", str(file)], capsys)
    assert (found["stop_strings"], found["eval_data"], found["top_k"]) == ([], None, None)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("learning_rat: 1\n", "train has no setting 'learning_rat'; did you mean 'learning_rate'?"),
        ("ent_coeff: 1\n", "did you mean 'ent_coef'?"),
        ("zzz: 1\n", "no setting 'zzz'; the settings are agent, "),
        ("overwrite: true\n", "overwrite belongs on the command line"),
        ("lr: 1\nlearning_rate: 2\n", "learning_rate must be set once"),
        ("model: [a, b]\n", "model: must be one value, got ['a', 'b']"),
        ("model: {a: b}\n", "model: must be a number or a text"),
        ("stop_strings: [yes]\n", "must be a number or a text (a text such as yes or no in quotes), got [True]"),
        (
            "stop_strings: [a, null]\n",
            "stop_strings: must be a number or a text (a text such as yes or no in quotes), got",
        ),
        ("model: null\n", "model: must be a number or a text (a text such as yes or no in quotes), got None"),
        ("separate_critic: 1\n", "separate_critic: must be true or false, got 1"),
        ("n_steps: 5\n", "there is no option --n-steps: it counts single tokens"),
        ("- a\n", "must hold settings as 'name: value', got list"),
        ("", "got an empty file"),
        ("a: [\n", "must be a YAML file, and reading it failed"),
    ],
)
def test_a_bad_file_is_refused(text: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text(text)
    assert main(["train", "--config", str(file)]) == 2
    assert words in told(capsys)
    assert main(["train", "--config", str(tmp_path / "none.yaml")]) == 2
    assert "reading it failed" in told(capsys)


def test_a_value_of_another_type_is_refused_as_on_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("iterations: 2.5\n")
    with pytest.raises(SystemExit) as stop:
        main(["train", "--config", str(file), "--print-config"])
    assert stop.value.code == 2
    assert "Error parsing --iterations" in told(capsys)


@pytest.mark.parametrize(("command", "other"), [(one, name) for one in OTHER_NAMES for name in OTHER_NAMES[one]])
def test_other_names_lead_to_a_setting(command: str, other: str) -> None:
    words = command.split()
    for written in (other, other.replace("_", "-")):
        own = "--" + OTHER_NAMES[command][other].replace("_", "-")
        assert expanded([*words, f"--{written}", "1"], COMMANDS) == [*words, own, "1"]
        assert expanded([*words, f"--{written}=1"], COMMANDS) == [*words, f"{own}=1"]


@pytest.mark.parametrize("command", OTHER_NAMES)
def test_no_other_name_hides_a_setting(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([*command.split(), "--help"])
    text = capsys.readouterr().out
    own = set(re.findall(r"(?<![\w-])(--[\w-]+)(?= [\[{A-Z])", text))
    flags = {name: "--" + name.replace("_", "-") for name in OTHER_NAMES[command]}
    assert not own & set(flags.values())
    assert {"--" + name.replace("_", "-") for name in OTHER_NAMES[command].values()} <= own
    assert not own & {"--" + name.replace("_", "-") for name in FOREIGN.get(command, {})}


def test_a_word_that_means_something_else_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--batch_size", "64"]) == 2
    assert "there is no option --batch-size: a batch is the --episodes of an iteration" in told(capsys)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["train", "--learning-rat", "1"], "train: there is no option --learning-rat; did you mean --learning-rate?"),
        (["train", "--entcoef=1"], "there is no option --entcoef; did you mean --ent-coef?"),
        (["train", "--no-separate-critics"], "did you mean --no-separate-critic?"),
        (["reward", "train", "--zzzz"], "--zzzz; 'lm-gym reward train --help' lists those there are"),
        (["demo", "--confg", "x.yaml"], "demo: there is no option --confg; did you mean --config?"),
        (["compare", "--b", "x"], "compare: there is no option --b"),
    ],
)
def test_an_unknown_option_is_refused(args: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(args) == 2
    assert words in told(capsys)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_reads_well(command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(os.environ, "COLUMNS", "80")
    with pytest.raises(SystemExit):
        main([*command.split(), "--help"])
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines()[1:])) <= 80  # terminals break the line of the usage
    assert "(default: )" not in text
    assert re.findall(r"\b(?:Of|For|In) [^.]{0,20}\.", text) == []  # fragments such as "Of PPO."


def test_expanding_leaves_other_command_lines_alone() -> None:
    for args in ([], ["--help"], ["nothing", "--lr", "1"], ["reward"], ["demo", "--seed", "1"]):
        assert expanded(args, COMMANDS) == args
    with pytest.raises(ConfigError, match="reading it failed"):
        expanded(["train", "--config=/no/such.yaml"], COMMANDS)


@pytest.mark.parametrize("command", sorted(set(COMMANDS) - {"demo", "doctor"}))  # these need none
def test_a_command_without_arguments_is_no_traceback(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(command.split())
    assert stop.value.code == 2
    assert "equired" in capsys.readouterr().err
