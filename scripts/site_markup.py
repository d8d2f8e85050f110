"""Sphinx extension of the documentation site: mends what autodoc and the theme make of this project's pages."""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.writers.html5 import HTML5Translator

__all__ = ["setup"]


class BreakableCode(HTML5Translator):
    """HTML whose inline code breaks inside names where it must (in tables, and long ones), and never after a hyphen."""

    def visit_Text(self, node: nodes.Text) -> None:
        """Write a text."""
        start = len(self.body)
        super().visit_Text(node)
        if self.protect_literal_text:
            in_table = _is_inside(node, nodes.entry)
            self.body[start:] = [_breakable(token, in_table=in_table) for token in self.body[start:]]


def _is_inside(node: nodes.Node | None, kind: type[nodes.Node]) -> bool:
    return node is not None and (isinstance(node, kind) or _is_inside(node.parent, kind))


def _breakable(token: str, *, in_table: bool) -> str:
    """Let a piece of code break after an underscore, a slash, or a dot between long names.

    The style sheet keeps each piece on one line, unless it is ``long``.
    """
    pieces = token
    if in_table or len(token) > len('<span class="pre"></span>') + 24:
        pieces = re.sub(r"(?<=\w)[/_](?=\w)|(?<=\w{6})\.(?=\w{6})", r'\g<0></span><wbr><span class="pre">', token)
    return re.sub(r'class="pre"(?=>[^<]{33})', 'class="pre long"', pieces)


def tidy_docstring(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Prepare a docstring for Napoleon.

    What follows an opening ``Args:`` is indented: Python dedents the later lines of a docstring by themselves. A
    field's docstring begins with an empty comment: Napoleon takes the words before a colon in its first line for a
    type.
    """
    if what in ("attribute", "property", "data"):
        lines[:0] = ["..", ""]
    if not lines or lines[0].strip() != "Args:":
        return
    for number in range(1, len(lines)):
        if not lines[number].strip():
            break
        lines[number] = "    " + lines[number]


def drop_signature_of_protocol(app: Sphinx, what: str, name: str, obj: Any, *rest: Any) -> tuple[str, str] | None:
    """Show a protocol without the ``(*args, **kwargs)`` that it cannot be called with."""
    return ("", "") if what == "class" and getattr(obj, "_is_protocol", False) else None


def drop_bases_of_plain_classes(app: Sphinx, doctree: nodes.document) -> None:
    """Leave out the line that a class is an ``object``."""
    for paragraph in list(doctree.findall(nodes.paragraph)):
        if paragraph.astext() == "Bases: object":
            paragraph.parent.remove(paragraph)


def visit_formula(self: HTML5Translator, node: nodes.math | nodes.math_block) -> None:
    """Write a formula as MathML, which browsers read by themselves: no script, no font, no network.

    Raises:
        MathError: it has a command that is not known, which stops the build.
    """
    as_block = isinstance(node, nodes.math_block)
    formula = tex2mathml(node.astext(), as_block=as_block)
    self.body.append(f'<div class="formula">{formula}</div>\n' if as_block else formula)
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect everything."""
    app.set_translator("html", BreakableCode)
    app.add_html_math_renderer("mathml", (visit_formula, None), (visit_formula, None))
    app.connect("autodoc-process-docstring", tidy_docstring, priority=100)
    app.connect("autodoc-process-signature", drop_signature_of_protocol)
    app.connect("doctree-read", drop_bases_of_plain_classes)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
