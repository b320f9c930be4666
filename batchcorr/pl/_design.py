"""Heat map of numbers of samples by batch and covariate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from batchcorr._anndata import matrices
from batchcorr._anndata.columns import column_of
from batchcorr.errors import InputError
from batchcorr.pl._looks import Groups, inches, name_rows, shortened, small_letter
from batchcorr.pl._panels import panel

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

__all__ = ["design"]

BINS = 4
"""Parts that a covariate of numbers is cut into, of about as many samples each."""

MOST = 200
"""Batches or levels that can be drawn."""


def design(
    adata: AnnData, batch_key: str, covariate: str, *, ax: Axes | None = None
) -> Axes:
    """Draw the number of samples of each level in each batch.

    Effects of levels and of batches can be separated only by batches (rows) with more
    than one level.

    Parameters
    ----------
    adata
        AnnData with both columns in `obs`; X is not read.
    batch_key
        Column of `obs` with the batch: the rows of the figure.
    covariate
        Column of `obs`: the columns of the figure. Numbers are cut at their quartiles.
    ax
        Axes to draw on; None: a new figure.

    Returns
    -------
    The axes.

    Raises
    ------
    MissingKeyError
        If a column does not exist.
    InputError
        If there are more than 200 batches or levels, or no samples.

    Notes
    -----
    Shades are shares of each batch, so that large and small batches can be compared;
    counts are written where there is space. Samples with missing batch or level have
    their own row or column.

    Examples
    --------
    >>> import batchcorr as bc
    >>> ax = bc.pl.design(bc.datasets.bladder(), "batch", "cancer")
    >>> [label.get_text() for label in ax.get_xticklabels()]
    ['Biopsy', 'Cancer', 'Normal']
    """
    adata = matrices.require_adata(adata)
    if not adata.n_obs:
        msg = "There is nothing to draw: adata has no samples."
        raise InputError(msg)
    row, rows = _labels(column_of(adata, batch_key, "batch key"), "batch key")
    column, columns = _labels(column_of(adata, covariate, "covariate"), "covariate")
    table = np.zeros((len(rows), len(columns)), dtype=np.intp)
    np.add.at(table, (row, column), 1)
    counts = pd.DataFrame(table, rows, columns)
    letter = small_letter() if ax is None else 0.0
    beside = 0.6 * letter * max(len(shortened(name)) for name in rows) + 0.8
    below = 0.4 * letter * max(len(shortened(name)) for name in columns) + 1.0
    width, height = 0.5 * len(columns), 0.19 * len(rows)
    size = max(2.8, min(width + beside, 12)), min(height + below, 30)
    ax = panel(ax, size)
    _draw(ax, counts)
    ax.set_xlabel(shortened(covariate))
    ax.set_ylabel(shortened(batch_key))
    return ax


def _labels(values: pd.Series, what: str) -> tuple[NDArray[np.integer], list[str]]:
    """The label of each sample, as text; of numbers the part they lie in."""
    groups = Groups.of(values)
    if groups is None:
        finite = values.astype(float).replace([np.inf, -np.inf], np.nan)
        parts = pd.qcut(finite, BINS, duplicates="drop", precision=3)
        names = [f"{p.left:.3g} – {p.right:.3g}" for p in parts.cat.categories]
        groups = Groups(names, parts.cat.codes.to_numpy())
    names = list(groups.names)
    if len(names) > MOST:
        msg = (
            f"The {what} {values.name!r:.80} has {len(names):,} different values, and "
            f"at most {MOST} can be drawn. Is it the right column?"
        )
        raise InputError(msg)
    if (groups.codes < 0).any():
        names.append("missing")
    codes = np.where(groups.codes < 0, len(names) - 1, groups.codes)
    return codes, names


def _draw(ax: Axes, counts: pd.DataFrame) -> None:
    """Draw the table, and write the counts where cells are large enough."""
    table = counts.to_numpy()
    share = table / table.sum(axis=1, keepdims=True)
    ax.imshow(share, cmap="Blues", vmin=0, vmax=1.2, aspect="auto")
    letter = small_letter()
    width, height = inches(ax)
    width, height = width / table.shape[1], height / table.shape[0]
    digits = len(f"{table.max(initial=0):,}")
    if height > letter and width > 0.62 * digits * letter:
        for (row, column), count in np.ndenumerate(table):
            ink = "white" if share[row, column] > 0.7 else "black"
            ink = "0.6" if count == 0 else ink
            style: dict[str, Any] = {
                "color": ink,
                "ha": "center",
                "va": "center",
                "fontsize": "small",
            }
            ax.text(column, row, f"{count:,}", **style)
    name_rows(ax, range(len(counts.index)), list(counts.index))
    names = [shortened(name) for name in counts.columns]
    turned = 0.62 * letter * max(map(len, names)) > width
    every = max(1, int(np.ceil(1.2 * letter / width))) if turned else 1
    ax.set_xticks(range(0, len(names), every), names[::every], fontsize="small")
    if turned:
        for label in ax.get_xticklabels():
            label.set(rotation=40, ha="right", rotation_mode="anchor")
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    ax.set_title("samples; shade: share of the row", fontsize="small", loc="left")
