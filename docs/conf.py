"""Sphinx configuration of the documentation site: `make docs`, warnings are errors."""

from __future__ import annotations

import sys
from pathlib import Path

from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import lm_gym  # noqa: E402
from scripts.metric_glossary import write_glossary  # noqa: E402

project = "lm-gym"
author = "The lm-gym contributors"
project_copyright = "the lm-gym contributors, Apache-2.0"
version = release = lm_gym.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["generated"]  # included by other pages

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_default_options = {"members": True, "show-inheritance": True, "exclude-members": "__new__"}
python_maximum_signature_line_length = 88
napoleon_numpy_docstring = False
napoleon_use_ivar = True

html_theme = "furo"
html_title = f"lm-gym {release}"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_show_sphinx = False
html_copy_source = False

write_glossary(Path(__file__).parent / "generated")


def indent_arguments(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Indent what follows a docstring's opening ``Args:``, as the section form of Napoleon wants it.

    A docstring that opens with it loses the indent: Python dedents the later lines of a docstring by themselves.
    """
    if not lines or lines[0].strip() != "Args:":
        return
    for number in range(1, len(lines)):
        if not lines[number].strip():
            break
        lines[number] = "    " + lines[number]


def setup(app: Sphinx) -> None:
    """Tidy docstrings before Napoleon reads them."""
    app.connect("autodoc-process-docstring", indent_arguments, priority=100)
