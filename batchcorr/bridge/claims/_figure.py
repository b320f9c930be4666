"""The figure of a claim, at the width of one column.

Numbers on their own are rows: a dot at the distance from the expected, a tick at the
tolerance. Numbers on a curve are points, what is expected of them a line with a band of
the tolerance.
"""

from __future__ import annotations

from textwrap import fill
from typing import TYPE_CHECKING, Any

from batchcorr.pl._matplotlib import BLUE, GREY, HUES, VERMILION, require_matplotlib

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from batchcorr.bridge.claims._measured import Measured

__all__ = ["draw"]

WIDTH, ROW, CURVES = 3.35, 0.22, 2.0
"""Width (85 mm), height of a row and of the panel of curves, in inches."""

LEAST, MOST = 1e-17, 10.0
"""Smaller and larger distances are drawn here."""

STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "legend.frameon": False,
    "lines.linewidth": 1.0,
    "lines.markersize": 3.5,
    "mathtext.default": "regular",
    "figure.dpi": 150,
}


def draw(title: str, numbers: Sequence[Measured], labels: tuple[str, str]) -> Figure:
    """Rows and, under them, curves with axes of these labels."""
    require_matplotlib()
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    rows = [number for number in numbers if not number.curve]
    curves = [number for number in numbers if number.curve]
    heights = [ROW * len(rows) + 0.4] * bool(rows) + [CURVES] * bool(curves)
    with rc_context(STYLE):
        size = (WIDTH, sum(heights) + 0.5)
        figure = Figure(figsize=size, layout="constrained")
        panels = figure.subplots(len(heights), height_ratios=heights, squeeze=False)
        if rows:
            _draw_rows(panels[0, 0], rows)
        if curves:
            _draw_curves(panels[-1, 0], curves)
            panels[-1, 0].set(xlabel=labels[0], ylabel=labels[1])
        title = fill(title, 46)
        figure.suptitle(title, x=0.01, ha="left", fontsize=8, fontweight="bold")
        for panel in figure.axes:  # ticks take their style when they are made
            panel.get_xticklabels(), panel.get_yticklabels()
    return figure


def _draw_rows(axes: Axes, rows: Sequence[Measured]) -> None:
    """Draw how far each number is from the one expected, and how far it may be."""
    for y, number in enumerate(reversed(rows)):
        colour, text = GREY, f"{number.value:.2g}"
        if number.expected is not None:
            colour = BLUE if number.holds else VERMILION
            off = max(abs(number.value - number.expected), LEAST)
            axes.plot([LEAST, MOST], [y, y], color="0.9", linewidth=0.6, zorder=0)
            axes.plot(off, y, "o", color=colour, clip_on=False)
            if number.tolerance:
                axes.plot(number.tolerance, y, "|", color=GREY, markersize=5)
            text += f" ({number.expected:.2g})" if number.expected else ""
        axes.text(LEAST, y + 0.2, number.what, color=colour, va="bottom")
        axes.text(MOST, y + 0.2, text, color=colour, va="bottom", ha="right")
    axes.set(xscale="log", xlim=(LEAST, MOST), ylim=(-0.5, len(rows)), yticks=[])
    axes.set_xticks([1e-16, 1e-12, 1e-8, 1e-4, 1])
    axes.set_xlabel("distance from the expected; ticks: tolerance")
    axes.spines["left"].set_visible(False)
    axes.minorticks_off()


def _draw_curves(axes: Axes, numbers: Sequence[Measured]) -> None:
    """Draw points over what they depend on, and what is expected of them."""
    from matplotlib.ticker import LogLocator

    names = list(dict.fromkeys(number.curve for number in numbers))
    for name, colour in zip(names, HUES, strict=False):
        points = [number for number in numbers if number.curve == name]
        x, values = [n.at for n in points], [n.value for n in points]
        if points[0].expected is None:
            axes.plot(x, values, "o:", color=colour, label=name)
            continue
        axes.plot(x, values, "o", color=colour, label=name)
        axes.plot(x, [n.expected or 0.0 for n in points], color=colour)
        low, high = (
            [(n.expected or 0.0) + sign * n.tolerance for n in points]
            for sign in (-1, 1)
        )
        axes.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)
    places = sorted({number.at for number in numbers})
    values = [abs(number.value) for number in numbers]
    if places[0] > 0 and places[-1] >= 10 * places[0]:
        axes.set_xscale("log")
        axes.set_xticks(places, [f"{place:g}" for place in places])
    if min(values) > 0 and max(values) > 20 * min(values):
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 3)))
        axes.yaxis.set_major_formatter("{x:g}")
    axes.minorticks_off()
    axes.legend(loc="best", labelspacing=0.3)
