"""Display of an episode: prompt, response coloured token by token, score."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from rich.panel import Panel
from rich.text import Text

from lm_gym.models.response_text import ResponseText
from lm_gym.prompts import Prompt
from lm_gym.tools.console.terminal import plain_console, visible

__all__ = ["Transcript", "kl_style"]

_SHADES = ((0.1, "green"), (0.5, "yellow"), (2.0, "dark_orange"))


def kl_style(kl_nats: float | None) -> str:
    """The colour of a token by how far policy and reference disagree on it, |log pi - log pi_ref| in nats.

    Green below 0.1, yellow below 0.5, orange below 2, red above; no colour where the KL is not known.
    """
    if kl_nats is None:
        return ""
    return next((style for bound, style in _SHADES if abs(kl_nats) < bound), "bold red")


class Transcript:
    """Collects one episode for display."""

    def __init__(self, text: ResponseText) -> None:
        """Args: text: turns the tokens of a response into text."""
        self._text = text
        self.start(Prompt(text="", ids=np.zeros(0, dtype=np.int64)))

    def start(self, prompt: Prompt) -> None:
        """Begin an episode."""
        self._prompt = prompt
        self._tokens: list[tuple[int, float | None]] = []
        self._end: dict[str, Any] = {}

    def add(self, token: int, info: dict[str, Any]) -> None:
        """Append a token with what the step reported of it."""
        self._tokens.append((token, info.get("kl")))
        if "stop_reason" in info:
            self._end = info

    def rich(self) -> Panel:
        """The episode as a rich panel."""
        body = Text()
        body.append(visible(self._prompt.text), style="bold")
        shown = ""
        for count, (_, kl) in enumerate(self._tokens, start=1):
            # Decoding the whole prefix keeps characters that several tokens make up together in one piece.
            text = self._text(self._prompt.ids, np.array([token for token, _ in self._tokens[:count]]))
            body.append(visible(text[len(shown) :]), style=kl_style(kl))
            shown = text
        parts = [f"{len(self._tokens)} tokens"]
        known = [kl for _, kl in self._tokens if kl is not None]
        if known:
            parts.append(f"KL {sum(known):.2f} nats")
        if self._end:
            parts.append(f"stopped by {self._end['stop_reason']}")
            parts.append(f"score {self._end['score']:.3f}" if "score" in self._end else "no score")
        return Panel(body, subtitle=Text(" | ".join(parts)), subtitle_align="left")

    def text(self) -> str:
        """The episode as a string with ANSI colours, 100 columns wide."""
        buffer = io.StringIO()
        console = plain_console(file=buffer, width=100, force_terminal=True, color_system="256", legacy_windows=False)
        console.print(self.rich())
        return buffer.getvalue()

    def show(self) -> None:
        """Print the episode to the terminal."""
        plain_console().print(self.rich())
