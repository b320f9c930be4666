"""Fill the template: everything is escaped, and only the page's own script may run."""

from __future__ import annotations

import base64
import hashlib
import math
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import jinja2
import numpy as np

from batchcorr._report.packing import clean, cut

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["page"]


def page(contents: Mapping[str, Any], words: Callable[[str], str] = str) -> str:
    """The page with these contents, as HTML; `words` turns calls into other words."""
    environment = jinja2.Environment(
        autoescape=True,
        finalize=_cleaned,
        undefined=jinja2.StrictUndefined,
        loader=jinja2.FunctionLoader(_source),
    )
    environment.filters |= {
        "cut": cut,
        "digest": _digest,
        "number": _number,
        "percent": _percent,
        "words": words,
    }
    template = environment.get_template("page.html")
    return template.render(
        contents, style=_source("page.css"), script=_source("page.js")
    )


def _source(name: str) -> str:
    return (files(__package__) / name).read_text("utf-8")


def _cleaned(value: Any) -> Any:
    """Text without control characters, if it is plain text and not markup."""
    return clean(value) if type(value) is str else value


def _digest(text: str) -> str:
    """The hash of a script or style, by which browsers know that it is the page's own."""
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return f"sha256-{base64.b64encode(digest).decode('ascii')}"


def _number(value: Any) -> str:
    """A number as it is read: counts whole, others with four digits."""
    if isinstance(value, str) or value is None:
        return cut(value)
    if isinstance(value, int | np.integer):
        return f"{value:,}"
    if not math.isfinite(value):
        return "–" if math.isnan(value) else f"{value}"
    text = f"{value:,.0f}" if 1e4 <= abs(value) < 1e6 else f"{value:.4g}"
    if value != 0 and not 1e-3 <= abs(value) < 1e6:
        text = f"{value:.2e}".replace("e-0", "e-").replace("e+0", "e+")
    return text.replace("-", "−")


def _percent(value: float) -> str:
    """A share, in percent."""
    if math.isnan(value):
        return "–"
    text = f"{100 * value:.1f}".removesuffix(".0")
    return f"{text}%".replace("-", "−")
