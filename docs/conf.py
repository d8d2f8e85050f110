"""Sphinx configuration of the documentation site: `make docs`, warnings are errors."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, get_args, get_origin

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import lm_gym  # noqa: E402
from lm_gym.agents.supervised import pretrain  # noqa: E402
from lm_gym.reward_models.likelihoods import joint_loss  # noqa: E402
from lm_gym.tools import settings  # noqa: E402
from scripts.metric_glossary import write_glossary  # noqa: E402

project = "lm-gym"
author = "The lm-gym contributors"
project_copyright = "the lm-gym contributors, Apache-2.0"
version = release = lm_gym.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "scripts.site_markup"]
exclude_patterns = ["generated"]  # included by other pages

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_dmath_allow_labels = False
myst_heading_anchors = 3

autoclass_content = "both"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autodoc_type_aliases = {
    name: get_args(value)[0].__name__
    for module in (settings, pretrain, joint_loss)
    for name, value in vars(module).items()
    if get_origin(value) is Annotated
}
"""Bounded numbers and texts read as numbers and texts; their bounds stand in the words below."""
autodoc_default_options = {"members": True, "show-inheritance": True, "exclude-members": "__new__"}
python_maximum_signature_line_length = 88
napoleon_numpy_docstring = False
napoleon_use_ivar = True

html_theme = "furo"
html_math_renderer = "mathml"  # of scripts/site_markup.py
pygments_dark_style = "github-dark"
html_title = f"lm-gym {release}"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_show_sphinx = False
html_copy_source = False

write_glossary(Path(__file__).parent / "generated")
