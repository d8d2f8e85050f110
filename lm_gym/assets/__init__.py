"""Files that ship with the package: the tiny language model of the built-in task.

``examples/09_build_reviews_lm.py`` builds one of the same kind.
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["REVIEWS_LM"]

REVIEWS_LM: Path = Path(__file__).parent / "reviews_lm"
"""Folder of the reviews language model and its tokenizer, in the layout of ``from_pretrained``."""
