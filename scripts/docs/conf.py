"""How Sphinx builds the site from docs/ (make docs)."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
DOCS = HERE.parents[1] / "docs"
BUILD = HERE.parents[1] / "build"
sys.path[:0] = [str(HERE), str(HERE.parents[1] / "src")]

import reference  # noqa: E402 # found by the path above

import exca  # noqa: E402 # of this checkout

reference.write(DOCS / "reference")
BUILD.mkdir(exist_ok=True)
(BUILD / "llms.txt").write_text(reference.llms_text(DOCS), encoding="utf-8")

project = "exca"
author = "The exca authors"
release = exca.__version__
version = release
extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
html_theme = "furo"
html_title = f"exca {release}"
html_extra_path = [str(BUILD / "llms.txt")]
html_sourcelink_suffix = ""  # so that _sources/start.md is the page as it was written
myst_heading_anchors = 4  # as GitHub makes them
nitpicky = True
linkcheck_timeout = 20
linkcheck_anchors = False
