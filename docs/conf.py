"""Sphinx: `make docs` builds the guide into build/docs."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from matdesinne import __version__

project = "MatDesINNe"
author = "The MatDesINNe developers"
version = release = __version__
extensions = ["myst_parser", "sphinxcontrib.mermaid", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.mathjax"]
exclude_patterns = ["figures/README.md"]
myst_enable_extensions = ["dollarmath"]
myst_fence_as_directive = ["mermaid"]  # so that GitHub, too, shows the pictures
myst_heading_anchors = 3
default_role = "py:obj"  # what is in single backticks in a docstring
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # shapes and units stand in the text
html_theme = "alabaster"
html_theme_options = {
    "description": "Inverse design of materials",
    "fixed_sidebar": True,
    "page_width": "1280px",
    "sidebar_width": "240px",
}
html_copy_source = False
html_show_sourcelink = False
