"""What a person sees of an episode."""

import re
from typing import Any

import numpy as np
import pytest
from tiny_models import EOS, PROMPTS, full_log_probs, length_score, make_tokenizer, single_env, vector_env

from lm_gym import Reference, TextGenerationEnv
from lm_gym.envs.rendering import Transcript, kl_style
from lm_gym.models.response_text import ResponseText
from lm_gym.prompts import Prompt

ANSI = re.compile(r"\x1b\[[0-9;]*m")
COLOURS = {" a": "32", " b": "33", " c": "38;5;208", " d": "31"}
"""Green, yellow, dark orange, red."""


def make(reference: Reference, **settings: Any) -> TextGenerationEnv:
    settings = {"max_new_tokens": 4, "action_mode": "token_and_log_prob", "render_mode": "ansi"} | settings
    return single_env(reference, ["x y z"], settings.pop("reward_model", length_score), **settings)


@pytest.mark.parametrize(
    ("kl", "style"),
    [
        (None, ""),
        (0.0, "green"),
        (-0.09, "green"),
        (0.1, "yellow"),
        (-0.49, "yellow"),
        (0.5, "dark_orange"),
        (1.99, "dark_orange"),
        (2.0, "bold red"),
        (-50.0, "bold red"),
    ],
)
def test_the_colour_follows_the_size_of_the_kl(kl: float | None, style: str) -> None:
    assert kl_style(kl) == style


def test_ansi_shows_prompt_response_score_and_a_colour_for_each_kl(reference: Reference) -> None:
    env = make(reference)
    env.reset(seed=0)
    ids = [24, 25, 26]
    for token, kl in ((1, 0.05), (2, 0.3), (3, 1.0), (4, 3.0)):
        ref = full_log_probs(reference.language_model, ids)[token]
        env.step({"token": token, "log_prob": ref + kl if ref + kl <= 0 else ref - kl})
        ids.append(token)
    shown = env.render()
    assert isinstance(shown, str)
    for word, colour in COLOURS.items():
        assert re.search(rf"\x1b\[(1;)?{colour}m{word}\x1b", shown), word
    plain = ANSI.sub("", shown)
    assert "x y z" in plain
    assert "a b c d" in plain
    assert "4 tokens" in plain
    assert "stopped by length" in plain
    assert "score 4.000" in plain
    assert "nats" in plain


def test_without_policy_log_probs_no_kl_is_shown(reference: Reference) -> None:
    env = make(reference, action_mode="token")
    env.reset(seed=0)
    env.step(1)
    shown = env.render()
    assert "nats" not in str(shown)
    assert not re.search(r"\x1b\[[0-9;]*3[123]m", str(shown))


def test_a_new_episode_starts_a_new_transcript(reference: Reference) -> None:
    env = make(reference)
    env.reset(seed=0)
    env.step({"token": 17, "log_prob": -1.0})
    env.reset(seed=0)
    plain = ANSI.sub("", str(env.render()))
    assert "q" not in plain
    assert "0 tokens" in plain


def test_an_abstention_shows_no_score(reference: Reference) -> None:
    env = make(reference, reward_model=lambda prompts, completions: [None])
    env.reset(seed=0)
    env.step({"token": EOS, "log_prob": -1.0})
    assert "no score" in str(env.render())


def test_markup_in_a_text_is_shown_as_it_is() -> None:
    transcript = Transcript(ResponseText(make_tokenizer()))
    transcript.start(Prompt(text="[red]not a colour[/red] [/]", ids=np.array([1])))
    assert "[red]not a colour[/red] [/]" in ANSI.sub("", transcript.text())


def test_an_escape_sequence_in_a_text_is_shown_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    transcript = Transcript(ResponseText(make_tokenizer()))
    transcript.start(Prompt(text="[INST] x [/INST]\x1b[2J\x1b]0;title\x07", ids=np.array([1])))
    transcript.show()
    for shown in (ANSI.sub("", transcript.text()), capsys.readouterr().out):
        assert r"[INST] x [/INST]\x1b[2J\x1b]0;title\x07" in shown
        assert not set("\x1b\x07") & set(shown)


def test_human_mode_prints_and_render_returns_nothing(reference: Reference, capsys: pytest.CaptureFixture[str]) -> None:
    env = make(reference, render_mode="human")
    env.reset(seed=0)
    assert "x y z" in capsys.readouterr().out
    env.step({"token": 17, "log_prob": -1.0})
    assert "q" in capsys.readouterr().out
    assert env.render() is None


def test_without_a_render_mode_nothing_is_printed(reference: Reference, capsys: pytest.CaptureFixture[str]) -> None:
    env = make(reference, render_mode=None)
    env.reset(seed=0)
    env.step({"token": 17, "log_prob": -1.0})
    assert env.render() is None
    assert capsys.readouterr().out == ""


def test_a_vector_env_renders_one_transcript_per_row(reference: Reference) -> None:
    env = vector_env(2, reference, PROMPTS, length_score, max_new_tokens=4, render_mode="ansi")
    env.reset(seed=0)
    env.step(np.array([17, 18]))
    frames = env.render()
    assert frames is not None
    assert len(frames) == 2
    assert "q" in ANSI.sub("", frames[0])
    assert "r" in ANSI.sub("", frames[1])
    assert vector_env(1, reference, PROMPTS, max_new_tokens=4).render() is None


def test_a_vector_env_prints_the_episodes_that_end(reference: Reference, capsys: pytest.CaptureFixture[str]) -> None:
    env = vector_env(2, reference, ["x y z"], length_score, max_new_tokens=4, render_mode="human")
    env.reset(seed=0)
    env.step(np.array([17, 18]))
    assert capsys.readouterr().out == ""
    env.step(np.array([EOS, 19]))
    printed = capsys.readouterr().out
    assert "q" in printed
    assert "stopped by eos" in printed
    assert printed.count("x y z") == 1
