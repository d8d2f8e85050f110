"""Text that models and users wrote, as a terminal or a page may show it.

The one owner of two rules. Square brackets and colons in a text are no markup and no emoji codes. What a terminal would
obey instead of print (escape sequences, BEL, CR, the C1 controls, overrides of the writing direction), and what no file
can hold (half a surrogate pair), is written out: ESC becomes the four characters ``\\x1b``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

__all__ = ["plain_console", "visible"]

_OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""All of C0 but tab and line feed, DEL, C1, overrides and isolates of the writing direction, surrogates."""


def visible(text: str) -> str:
    """The text with every character written out that a terminal would obey. CR LF is a line's end, and becomes LF."""
    return _OBEYED.sub(_written_out, text.replace("\r\n", "\n"))


def _written_out(found: re.Match[str]) -> str:
    return repr(found.group())[1:-1]


def plain_console(**options: Any) -> Console:
    """A console that takes every text literally, and sends a terminal nothing that was not meant for it.

    Plain strings are cleaned before they are laid out. A ``Text`` of rich drops some controls by itself, and what is
    left of them is written out after it was laid out; so make one of ``visible(...)``.

    Args: options: of ``rich.console.Console``, such as ``stderr=True``.
    """
    return _PlainConsole(markup=False, emoji=False, **options)


class _PlainConsole(Console):
    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(visible(text), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Segments of whatever is printed; rich's own control codes pass."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=visible(segment.text))
