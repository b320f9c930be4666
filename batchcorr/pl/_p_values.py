"""Histogram of p-values."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from batchcorr.errors import InputError
from batchcorr.estimators.options import check_rate, check_whole
from batchcorr.pl._looks import shortened
from batchcorr.pl._matplotlib import BLUE
from batchcorr.pl._panels import panel, thin_spines
from batchcorr.pl._results import named_p_values

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["p_values"]


def p_values(
    table: object,
    *,
    contrast: str | None = None,
    alpha: float = 0.05,
    bins: int = 20,
    ax: Axes | None = None,
) -> Axes:
    """Draw a histogram of the p-values of a test.

    Without true differences p-values are uniform. A peak at 0 means true differences;
    an increase towards 1 or a peak in the middle means that the test is not valid.

    Parameters
    ----------
    table
        The result of `tl.differential`, or p-values: (G,).
    contrast
        The level to draw, if the table has several contrasts.
    alpha
        The figure shows the share of p-values up to this one, and the share expected by
        chance.
    bins
        Number of bars.
    ax
        Axes to draw on; None: a new figure.

    Returns
    -------
    The axes.

    Raises
    ------
    MissingKeyError
        If the table has several contrasts and none was named, or no p-values.
    InputError
        If p-values do not lie between 0 and 1, all are missing, or `bins` is not
        positive.

    Examples
    --------
    >>> import numpy as np, batchcorr as bc
    >>> ax = bc.pl.p_values(np.linspace(0, 1, 1001), bins=10)
    >>> len(ax.patches), round(ax.patches[0].get_height())
    (10, 10)
    """
    check_rate(alpha)
    check_whole("bins", bins, 1)
    if isinstance(table, dict):
        msg = "p_values draws one test; batchcorr.pl.calibration draws several."
        raise InputError(msg)
    (p,) = named_p_values(table, contrast).values()
    ax = panel(ax, (3.6, 2.7))
    heights, edges = np.histogram(p, bins, (0, 1))
    ax.bar(
        edges[:-1], heights / p.size * 100, 1 / bins, align="edge", color=BLUE, ec="w"
    )
    ax.axhline(100 / bins, color="black", lw=1, ls="--")
    ax.set(xlim=(0, 1), ylabel="features, %")
    ax.set_xlabel("p" if contrast is None else f"p, {shortened(contrast)}")
    share = (
        f"{(p <= alpha).mean():.1%} of {p.size:,}\nat p ≤ {alpha:g}\n"
        f"(by chance: {100 * alpha:g}%)"
    )
    ax.text(
        0.98,
        0.97,
        share,
        transform=ax.transAxes,
        ha="right",
        va="top",
        fontsize="small",
    )
    ax.set_ylim(0, max(ax.get_ylim()[1], 100 / bins * 1.6))
    thin_spines(ax)
    return ax
