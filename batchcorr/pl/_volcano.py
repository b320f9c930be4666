"""Volcano plot: effect size against p-value, feature by feature."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from batchcorr.errors import InputError
from batchcorr.estimators.options import check_rate, check_whole
from batchcorr.pl._looks import inches, shortened, small_letter
from batchcorr.pl._matplotlib import BLUE, VERMILION
from batchcorr.pl._panels import panel, thin_spines
from batchcorr.pl._results import by_evidence, column_for

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

__all__ = ["volcano"]

UNREMARKABLE = "#B0B0B0"

SMALLEST = 1e-300
"""Smaller p-values are drawn as this."""


def volcano(
    table: pd.DataFrame,
    *,
    contrast: str | None = None,
    alpha: float = 0.05,
    n_labels: int = 10,
    ax: Axes | None = None,
) -> Axes:
    """Draw a volcano plot: the effect on each feature against its p-value.

    Parameters
    ----------
    table
        The result of `tl.differential`, one row per feature.
    contrast
        The level to draw, if the table has several contrasts
        (``"coefficient[level]"``).
    alpha
        Features with ``p_adjusted`` up to this false discovery rate are coloured.
    n_labels
        Maximum number of features to label, those with the smallest p first (where p is
        0, with the largest t); labels that would overlap are left out.
    ax
        Axes to draw on; None: a new figure.

    Returns
    -------
    The axes.

    Raises
    ------
    MissingKeyError
        If the table lacks a column, or has several contrasts and none was named.
    InputError
        If `table` is not a DataFrame, or `alpha` does not lie between 0 and 1.

    Notes
    -----
    Effects are log2 fold changes where the table has them, else coefficients in the
    units of the data. The horizontal line is at the largest p-value whose adjusted
    p-value is under `alpha`. Features without a finite effect and p-value are left out.

    Examples
    --------
    >>> import warnings, batchcorr as bc
    >>> adata = bc.datasets.bladder()
    >>> with warnings.catch_warnings(action="ignore"):  # cancer differs by batch
    ...     table = bc.tl.differential(adata, "batch", ("cancer", "Cancer", "Normal"))
    >>> ax = bc.pl.volcano(table)
    >>> ax.get_ylabel()
    '−log10 p'
    """
    effect = column_for(table, ["log2_fold_change", "coefficient"], contrast)
    p_value = column_for(table, ["p_value"], contrast)
    p_adjusted = column_for(table, ["p_adjusted"], contrast)
    check_rate(alpha)
    check_whole("n_labels", n_labels, 0)
    finite = np.isfinite(table[[effect, p_value]].to_numpy(float)).all(axis=1)
    known = table.iloc[np.flatnonzero(finite)]
    if not len(known):
        msg = "The table has no feature with an effect and a p-value."
        raise InputError(msg)
    x = known[effect].to_numpy(float)
    p = known[p_value].to_numpy(float)
    y = -np.log10(np.maximum(p, SMALLEST))
    called = known[p_adjusted].to_numpy(float) <= alpha
    ax = panel(ax)
    size = float(np.clip(30_000 / len(x), 2, 16))
    up = f"higher: {int((called & (x > 0)).sum()):,}"
    down = f"lower: {int((called & (x < 0)).sum()):,}"
    groups = (
        (~called, UNREMARKABLE, None),
        (called & (x < 0), BLUE, down),
        (called & (x > 0), VERMILION, up),
    )
    for rows, colour, name in groups:
        ax.scatter(
            x[rows], y[rows], size, colour, linewidths=0, rasterized=True, label=name
        )
    if called.any():
        ax.axhline(y[called].min(), color="0.4", lw=0.8, ls="--", zorder=0)
    reach = np.abs(x).max() * 1.08 or 1.0
    ax.set(xlim=(-reach, reach), ylim=(0, y.max() * 1.1 or 1.0))
    unit = "log2 fold change" if effect.startswith("log2") else "coefficient"
    ax.set_xlabel(unit if contrast is None else f"{unit}, {shortened(contrast)}")
    ax.set_ylabel("−log10 p")
    ax.legend(
        title=f"FDR ≤ {alpha:g}",
        fontsize="small",
        title_fontsize="small",
        frameon=False,
        loc="lower left",
        bbox_to_anchor=(0, 1),
        ncols=2,
        handletextpad=0.1,
        columnspacing=0.8,
        borderaxespad=0,
        markerscale=1.5,
    )
    thin_spines(ax)
    statistic = column_for(known, ["t", effect.partition("[")[0]], contrast)
    first = by_evidence(p, known[statistic].to_numpy(float))[:n_labels]
    _name(ax, x[first], y[first], [shortened(known.index[k], 16) for k in first])
    return ax


def _name(ax: Axes, x: Floats, y: Floats, names: list[str]) -> None:
    """Write names beside their points, except over the names of those before."""
    width, height = inches(ax)
    per_x, per_y = width / np.ptp(ax.get_xlim()), height / np.ptp(ax.get_ylim())
    letter = small_letter() * 0.9
    taken: list[tuple[float, float, float]] = []
    for at_x, at_y, name in zip(x, y, names, strict=True):
        to_left = at_x > 0  # towards the middle, where there is room
        long = 0.62 * letter * len(name)
        end = at_x * per_x + (-long - 0.05 if to_left else 0.05)
        level = at_y * per_y
        if any(
            abs(level - other) < 1.1 * letter and end < right and left < end + long
            for other, left, right in taken
        ):
            continue
        taken.append((level, end, end + long))
        ax.annotate(
            name,
            (at_x, at_y),
            (-4 if to_left else 4, 0),
            textcoords="offset points",
            ha="right" if to_left else "left",
            va="center",
            fontsize="x-small",
        )
