"""HTML pages and static files: rendered from templates, and read once from a fixed list."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import jinja2

__all__ = ["STATIC", "render", "static_file"]

FOLDER = Path(__file__).parent
TYPES = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}
STATIC = frozenset(
    {
        "api.js",
        "comparing.js",
        "controls.js",
        "curve.js",
        "icon.svg",
        "join.js",
        "keys.js",
        "label.js",
        "overview.js",
        "page.css",
        "queue.js",
        "ranking.js",
        "texts.js",
        "view.js",
    }
)
"""Every file that is served; no path of a request ever reaches the disk."""


@lru_cache(maxsize=1)
def _environment() -> jinja2.Environment:
    loader = jinja2.FileSystemLoader(FOLDER / "templates")
    return jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)


def render(template: str, **values: Any) -> str:
    """A page. Every value is escaped."""
    return _environment().get_template(f"{template}.html.j2").render(**values)


@lru_cache(maxsize=len(STATIC))
def static_file(name: str) -> tuple[bytes, str] | None:
    """Contents and media type of a file on the list; None for any other name."""
    if name not in STATIC:
        return None
    path = FOLDER / "static" / name
    return path.read_bytes(), TYPES[path.suffix]
