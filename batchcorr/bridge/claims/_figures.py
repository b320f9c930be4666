"""One look for the figures: a column wide, colours that everybody can tell apart."""

from __future__ import annotations

from textwrap import fill
from typing import TYPE_CHECKING, Any

from batchcorr.errors import MissingPackageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "BLUE",
    "GREEN",
    "GREY",
    "VERMILION",
    "drawn",
    "label",
    "panel",
    "require_matplotlib",
]

WIDTH = 3.35
"""85 mm, in inches."""

# Of the colours of Okabe & Ito, and a grey.
BLUE, GREEN, VERMILION, GREY = "#0072B2", "#009E73", "#D55E00", "#6B6B6B"

STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 7,
    "axes.titlesize": 7,
    "axes.titlelocation": "left",
    "axes.labelsize": 7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "lines.linewidth": 1.2,
    "lines.markersize": 4,
    "mathtext.default": "regular",
    "figure.dpi": 150,
}


def require_matplotlib() -> None:
    """Say what to install where matplotlib is not.

    Raises
    ------
    MissingPackageError
        If matplotlib is not installed.
    """
    try:
        import matplotlib as mpl  # noqa: F401
    except ImportError as error:
        msg = (
            "Figures are drawn with matplotlib, which is not installed. Install it "
            'with: pip install "batchcorr[report]"'
        )
        raise MissingPackageError(msg) from error


def drawn(title: str, draw: Callable[[Figure], None]) -> Figure:
    """Return a new figure with a title, drawn in the common style."""
    require_matplotlib()
    from matplotlib import rc_context
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    style: Any = STYLE
    with rc_context(style):
        layout = ConstrainedLayoutEngine(w_pad=0.06)
        figure = Figure(figsize=(WIDTH, 2.6), layout=layout)
        draw(figure)
        figure.suptitle(
            fill(title, 46), x=0.01, ha="left", fontsize=8, fontweight="bold"
        )
        figure.draw_without_rendering()  # ticks take their style when first drawn
    return figure


def panel(axes: Axes, title: str = "", x: str = "", y: str = "") -> Axes:
    """Name a panel and its axes, and return it."""
    axes.set_title(title, color=GREY)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    return axes


def label(
    axes: Axes, text: str, at: tuple[float, float], colour: str, **more: Any
) -> None:
    """Write beside a line or a point what it is, in its colour."""
    more = {"textcoords": "offset points", "xytext": (4, 0), "va": "center"} | more
    axes.annotate(text, at, color=colour, **more)
