"""The site's extension: names break where they must, and docstrings keep their words."""

from __future__ import annotations

import re
import sys
import warnings

import pytest
from sphinx.application import Sphinx

CONF = """
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "scripts.site_markup"]
autoclass_content = "both"
myst_enable_extensions = ["dollarmath"]
html_math_renderer = "mathml"
autodoc_default_options = {"members": True, "show-inheritance": True}
"""
PAGE = """# Title

In a line `short_name` stays, `--an-option` too, and `a_name_of_more_than_thirty_characters` breaks.

| a | b |
|---|---|
| `short_name` | `tests/some_file.py` |

A ratio $\\rho_t$, and

$$
A = \\frac{R}{2}
$$

```{eval-rst}
.. automodule:: documented_here
```
"""
MODULE = '''"""A module."""
from typing import NamedTuple, Protocol

class Asked(Protocol):
    """A protocol."""

class Plain:
    """A class."""

    def __init__(self, number: int) -> None:
        """Args:
        number: of things.
        other: more of them.
        """

class Found(NamedTuple):
    """A tuple."""

    value: float
    """J: expected score. Shape: (B,)."""
'''


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page as HTML."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "conf.py").write_text(CONF, encoding="utf-8")
    (folder / "index.md").write_text(PAGE, encoding="utf-8")
    (folder / "documented_here.py").write_text(MODULE, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Sphinx's own Napoleon uses what its autodoc deprecates
        patch.syspath_prepend(folder)
        Sphinx(folder, folder, folder / "out", folder / "trees", "html", status=None, warning=sys.stderr).build()
    return (folder / "out" / "index.html").read_text(encoding="utf-8")


def code(page: str) -> list[str]:
    """Inline code with ``|`` for a place where it may break."""
    found = re.findall(r"<code[^>]*>(.*?)</code>", page)
    return [re.sub(r"<[^>]*>", "", one.replace("<wbr>", "|")) for one in found]


def test_names_break_in_tables_and_where_they_are_long(page: str) -> None:
    found = code(page)
    assert found[:3] == ["short_name", "--an-option", "a_|name_|of_|more_|than_|thirty_|characters"]
    assert found[3:5] == ["short_|name", "tests/|some_|file.py"]


def test_formulas_need_no_script(page: str) -> None:
    inline, block = re.findall(r"<math.*?</math>", page, flags=re.DOTALL)
    assert "<mi>ρ</mi>" in inline
    assert 'display="block"' in block
    assert "<mfrac>" in block
    assert "mathjax" not in " ".join(re.findall(r"<script[^>]*>", page))


def test_docstrings_keep_their_words(page: str) -> None:
    text = re.sub(r"<[^>]*>", "", page)
    assert "J: expected score. Shape: (B,)." in text
    assert "Type:" not in text
    assert re.search(r"number\W+of things\.\s+other\W+more of them", text)


def test_neither_a_protocol_nor_a_plain_class_shows_noise(page: str) -> None:
    text = re.sub(r"<[^>]*>", "", page)
    assert "Asked" in text
    assert "args" not in text
    assert "Plain(" in text
    assert "Bases: object" not in text
    assert "Bases: NamedTuple" in text
