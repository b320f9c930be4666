"""How the documentation is built: `python -m sphinx -W -n docs site`."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from sklearn.base import BaseEstimator, TransformerMixin

import batchcorr

if TYPE_CHECKING:
    from sphinx.application import Sphinx


class Plain(TransformerMixin, BaseEstimator):
    """What every transformer has, and no page need tell again."""

    def transform(self) -> None:
        """A name that scikit-learn looks for."""


HERE = Path(__file__).parent
NOTEBOOKS = HERE.parent / "notebooks"

project = "batchcorr"
author = "The batchcorr developers"
copyright = f"2026, {author}"
version = release = batchcorr.__version__

extensions = [
    "myst_nb",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx_design",
    "sphinxcontrib.mermaid",
]
exclude_patterns = ["README.md", "_build"]
nitpicky = True
# Types of other packages: their pages are not looked up, the site is built offline.
nitpick_ignore_regex = [
    (r"py:.*", r"(?!batchcorr\.).*"),
    (r"py:.*", r"batchcorr.*\._.*"),
]

templates_path = ["_templates"]
autosummary_generate = True
autosummary_context = {
    "others_methods": {*dir(torch.nn.Module), *dir(Plain)}
    - {"transform", "fit_transform", "forward"}
}
autodoc_typehints = "none"
autodoc_inherit_docstrings = True
numpydoc_show_class_members = False
numpydoc_xref_param_type = False

nb_execution_mode = "off"  # the notebooks hold their results; the slow tests run them
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_fence_as_directive = ["mermaid"]
myst_heading_anchors = 3

html_theme = "sphinx_book_theme"
html_title = "batchcorr"
html_theme_options = {
    "show_toc_level": 2,
    "home_page_in_toc": False,
    "navbar_persistent": [],
    "use_download_button": False,
}


def copy_notebooks(*_: object) -> None:
    """Sphinx reads only what lies under its own folder."""
    target = HERE / "notebooks"
    target.mkdir(exist_ok=True)
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        shutil.copyfile(path, target / path.name)


def link_within(_app: object, _name: str, source: list[str]) -> None:
    """What a page links to beside `docs/` in the repository is on the site, too."""
    source[0] = source[0].replace("](../notebooks/", "](notebooks/")
    source[0] = source[0].replace("](../docs/", "](../")
    source[0] = source[0].replace("](../benchmarks/README.md", "](benchmarks.md")


def type_what_returns(
    _app: object,
    _what: str,
    _name: str,
    thing: object,
    _options: object,
    lines: list[str],
) -> None:
    """Prose under Returns gets the annotation for its type, which numpydoc asks for."""
    if "Returns" not in lines:
        return
    start = lines.index("Returns") + 2
    rules = (i for i in range(start, len(lines)) if lines[i].startswith("---"))
    end = next(rules, len(lines) + 1) - 1
    annotation = getattr(thing, "__annotations__", {}).get("return", "")
    body = [f"    {line}".rstrip() for line in lines[start:end]]
    lines[start:end] = [str(annotation), *body]


def setup(app: Sphinx) -> None:
    """Copy the notebooks before anything is read."""
    app.connect("config-inited", copy_notebooks)
    app.connect("source-read", link_within)
    app.connect("autodoc-process-docstring", type_what_returns, priority=100)
