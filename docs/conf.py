"""Sphinx: `make docs` builds the guide into build/docs."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from matdesinne import __version__

project = "MatDesINNe"
author = "The MatDesINNe developers"
copyright = f"2026, {author}"
version = release = __version__
extensions = [
    "myst_nb",
    "sphinx_copybutton",
    "sphinxcontrib.mermaid",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
]
exclude_patterns = ["figures/README.md"]
myst_enable_extensions = ["dollarmath"]
myst_fence_as_directive = ["mermaid"]  # so that GitHub, too, shows the pictures
myst_heading_anchors = 3
default_role = "py:obj"  # what is in single backticks in a docstring
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # shapes and units stand in the text
mermaid_fullscreen = False
mermaid_height = "1000px"
nb_execution_mode = "force"  # results kept from an earlier version of the package would be wrong
nb_execution_raise_on_error = True
nb_execution_timeout = 600
nb_merge_streams = True
html_theme = "furo"
html_static_path = ["static"]
html_css_files = ["wide_tables.css"]
html_title = f"MatDesINNe {version}"
html_copy_source = False
html_show_sourcelink = False
linkcheck_ignore = [r"https://doi\.org/"]  # publishers refuse programs
