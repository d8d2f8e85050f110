"""What the loop and train tell while they run, and at their end."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from lm_gym import reviews
from lm_gym.app.cli import main
from lm_gym.app.pipeline.story import told_of_ppo, told_of_reward_model
from lm_gym.app.report.report_data import Report
from lm_gym.assets import REVIEWS_LM
from lm_gym.tools.files import write_jsonl


def typed(command: str, *more: str) -> int:
    """The exit status of a command that was printed, as a shell would split it."""
    program, *arguments = shlex.split(command)
    assert program == "lm-gym"
    return main([*arguments, *more])


def test_the_demo_tells_its_story_and_its_last_commands_work(
    smoke_demo: tuple[Path, str, str],
) -> None:
    folder, out, err = smoke_demo
    headings = re.findall(r"^stage (\d+) of (\d+): (.*)$", out, re.MULTILINE)
    assert [(int(number), int(total)) for number, total, _ in headings] == [(n, 10) for n in range(1, 11)]
    assert [title for *_, title in headings][2:4] == ["reward model, round 1", "PPO, round 1"]
    flat = " ".join(out.split())
    assert len(re.findall(r"Found: ", flat)) == 9
    assert len(re.findall(r"Found: orders \d+% of 36 held-out pairs as they were judged", flat)) == 2
    assert len(re.findall(r"the hidden true score itself orders \d+%, the ceiling", flat)) == 2
    assert len(re.findall(r"Found: score \S+ to \S+, KL \S+ to \S+, entropy \S+ to \S+, true score \S+ to", flat)) == 3
    assert re.search(r"without KL: score \S+, KL \S+, true score \S+ \(", flat)
    assert "PPO, round 2: iteration 2 of 2, score" in err
    table, finding, page, after = (
        flat.index(words) for words in ("win reward", "Without the penalty the same PPO", "report.html", "What to do")
    )
    assert table < finding < page < after
    report = Report.load(folder)
    assert report.reward_models[0].evaluation["true_score_accuracy"] > report.reward_models[0].evaluation["accuracy"]
    assert [row.role for row in report.rows] == ["base", "start", "rl", "rl", "rl_without_kl", "imitation"]
    assert len(report.next_steps) == 3
    for step in report.next_steps:
        assert step.command in out
        short = ("--iterations", "1", "--episodes", "4") if " train " in step.command else ()
        assert typed(step.command, *short) == 0, step.command


def prompts_file(path: Path, part: str) -> Path:
    return write_jsonl(path, [{"prompt": prompt} for prompt in reviews.prompts(part)[:4]])


@pytest.mark.parametrize("held_out", [True, False])
def test_train_ends_with_before_and_after_and_a_command_that_works(
    held_out: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["train", "--model", str(REVIEWS_LM), "--reward-model", "lm_gym.reviews:true_score"]
    arguments += ["--prompts", str(prompts_file(tmp_path / "train.jsonl", "train"))]
    if held_out:
        arguments += ["--eval-prompts", str(prompts_file(tmp_path / "held out.jsonl", "held_out"))]
    arguments += ["--iterations", "2", "--episodes", "4", "--max-new-tokens", "6", "--out", str(tmp_path / "run")]
    assert main(arguments) == 0
    told = capsys.readouterr().out
    if held_out:
        assert re.search(r"^  start: score \S+, KL 0\.000$", told, re.MULTILINE)
        assert re.search(r"^  best:  score \S+, KL \S+, win rate over the start \d+% \(after", told, re.MULTILINE)
    else:
        assert re.search(r"^  first iteration: score \S+, KL \S+$", told, re.MULTILINE)
        assert re.search(r"^  last iteration: score \S+, KL \S+$", told, re.MULTILINE)
        assert "--eval-data FILE measures on held-out ones" in told
    assert str(tmp_path / "run" / "policy") in told
    command = told.splitlines()[-1].strip()
    assert str(tmp_path / "run" / ("best" if held_out else "policy")) in command
    assert typed(command) == 0


def test_words_where_something_was_not_measured() -> None:
    assert told_of_ppo(()) == "no iteration"
    assert told_of_ppo(({"score": None, "kl": 0.0}, {"score": 1.0, "kl": 2.0})).startswith("KL 0.00 to 2.00 (")
    people = {"accuracy": 0.7, "accuracy_standard_error": None, "pairs": 9, "length_accuracy": 0.5}
    assert told_of_reward_model(people) == (
        "orders 70% of 9 held-out pairs as they were judged; the rule that more words win orders 50%"
    )
    assert told_of_reward_model(people | {"length_rule": "fewer characters"}).endswith(
        "fewer characters win orders 50%"
    )
