"""Relative log expression (RLE): deviations of each sample from the median sample."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from batchcorr._anndata import matrices
from batchcorr._anndata.columns import column_of
from batchcorr.errors import InputError
from batchcorr.estimators.matrix import as_matrix, is_sparse
from batchcorr.models.namespace import to_numpy
from batchcorr.pl._looks import Groups, shortened, small_letter
from batchcorr.pl._panels import panels, thin_spines

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from batchcorr.pl._panels import AxesGrid

    Floats = NDArray[np.float64]

__all__ = ["relative_log_expression"]

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


class _Shown(NamedTuple):
    """The samples that are drawn, by batch, and where batches begin."""

    rows: NDArray[np.integer]
    codes: NDArray[np.integer]


def relative_log_expression(
    adata: AnnData,
    batch_key: str,
    *,
    layers: str | Sequence[str | None] | None = None,
    max_samples: int = 400,
    random_state: int = 0,
    ax: object = None,
) -> AxesGrid:
    r"""Draw relative log expression: deviations of each sample from the median sample.

    .. math:: r_{ig} = x_{ig} - \mathrm{median}_{j}\, x_{jg}

    Most features differ little between samples, so that all boxes should be centred at
    0 and have similar widths. Shifted or wider boxes of a batch show that it was not
    normalized or not corrected.

    Parameters
    ----------
    adata
        Samples × features, on a log scale.
    batch_key
        Column of `obs` with the batch, by which samples are ordered.
    layers
        Layers to draw, one row each, such as ``[None, "combat"]``; None: X.
    max_samples
        Maximum number of samples. Of more samples this many are chosen at random, the
        same number from each batch if possible, and medians are over these.
    random_state
        Seed of the random choice.
    ax
        Axes to draw on, one per layer; None: a new figure.

    Returns
    -------
    The axes. For each sample: a thin line from the 5th to the 95th percentile over
    features, a thick line between the quartiles, and a dot at the median.

    Raises
    ------
    MissingKeyError
        If a column or layer does not exist.
    InputError
        If `max_samples` is under 2, or `ax` does not have one axes per layer.

    Notes
    -----
    Features that are 0 or missing in all drawn samples are left out. With sparse counts
    of single cells most medians are 0, and the plot says little: sum counts per sample
    first (pseudobulk).

    References
    ----------
    Gandolfo & Speed (2018), PLoS ONE 13:e0191629.

    Examples
    --------
    >>> import batchcorr as bc
    >>> adata = bc.datasets.bladder()
    >>> bc.pp.standardize(adata, "batch", key_added="standard")
    >>> axes = bc.pl.relative_log_expression(adata, "batch", layers=[None, "standard"])
    >>> [ax.get_title() for ax in axes.flat]
    ['X', 'standard']
    """
    adata = matrices.require_adata(adata)
    names = [layers] if layers is None or isinstance(layers, str) else list(layers)
    if not names or not isinstance(max_samples, int | np.integer) or max_samples < 2:
        msg = (
            "relative_log_expression needs at least one layer and 2 samples, not "
            f"layers={layers!r:.60} with max_samples={max_samples!r:.20}."
        )
        raise InputError(msg)
    values = column_of(adata, batch_key, "batch key")
    groups = Groups.of(values.astype("category"))
    assert groups is not None
    matrix = [matrices.get_matrix(adata, name) for name in names]
    shown = _shown(groups, int(max_samples), random_state)
    room = groups.legend_width(1.8)
    width = float(np.clip(0.07 * shown.rows.size, 3, 6.5))
    grid = panels(ax, (len(names), 1), (width, 2.2), beside=room)
    part = Groups(groups.names, shown.codes)
    deviations = [_quantiles(x, shown.rows) for x in matrix]
    reach = 1.05 * max(float(np.nanmax(np.abs(each))) for each in deviations) or 1.0
    for panel, name, each in zip(grid[:, 0], names, deviations, strict=True):
        _draw(panel, each, part)
        panel.set_ylim(-reach, reach)
        panel.set_title(shortened(name or "X", 40), fontsize="medium")
    part.name_beside(grid[0, 0], batch_key, room=(room, 1.8) if ax is None else None)
    _name_batches(grid[-1, 0], part)
    grid[-1, 0].set_xlabel(f"samples, by {shortened(batch_key)}")
    return grid


def _shown(groups: Groups, most: int, random_state: int) -> _Shown:
    """Which samples to draw, batch after batch; at most so many, few of none."""
    rng = np.random.default_rng(random_state)
    members = [np.flatnonzero(groups.codes == b) for b in range(len(groups.names))]
    members.append(np.flatnonzero(groups.codes < 0))
    left, share = most, 0
    for done, size in enumerate(sorted(map(len, members))):
        share = left // (len(members) - done)
        left -= min(size, share)
    picked = [
        rows
        if len(rows) <= share
        else np.sort(rng.choice(rows, max(share, 1), replace=False))
        for rows in members
    ]
    rows = np.concatenate(picked)
    return _Shown(rows, groups.codes[rows])


def _quantiles(x: object, rows: NDArray[np.integer]) -> Floats:
    """Quantiles of each sample's deviations: (5, n)."""
    part = as_matrix(x)[rows]
    part = part.compute() if hasattr(part, "compute") else part
    part = part.toarray() if is_sparse(part) else part
    values = to_numpy(part).astype(np.float64)
    values = values[:, np.isfinite(values).any(axis=0) & (values != 0).any(axis=0)]
    if not values.size:
        msg = "There is nothing to draw: in every feature all values are 0 or missing."
        raise InputError(msg)
    values -= np.nanmedian(values, axis=0)
    found: Floats = np.nanquantile(values, QUANTILES, axis=1)
    return found


def _draw(ax: Axes, quantiles: Floats, groups: Groups) -> None:
    """Draw a box a sample, in the colour of its batch."""
    n = quantiles.shape[1]
    at, colour = np.arange(n), groups.by_sample()
    low, first, middle, third, high = quantiles
    inch = ax.get_window_extent().width / ax.figure.dpi
    room = 72 * inch / n  # points a sample
    many = n > 150
    thin, thick = min(0.8, 0.5 * room), min(6.0, 0.75 * room)
    ax.vlines(at, low, high, colors=colour.tolist(), lw=thin, rasterized=many)
    ax.vlines(at, first, third, colors=colour.tolist(), lw=thick, rasterized=many)
    ax.scatter(
        at, middle, min(6.0, room**2), "white", linewidths=0, zorder=3, rasterized=many
    )
    ax.axhline(0, color="black", lw=0.8, ls="--", zorder=4)
    ax.set(xlim=(-1, n), xticks=[], ylabel="deviation")
    thin_spines(ax)


def _name_batches(ax: Axes, groups: Groups) -> None:
    """Name batches under the middle of their samples, where there is room for it."""
    codes = groups.codes
    inch = ax.get_window_extent().width / ax.figure.dpi / max(len(codes), 1)
    places, names = [], []
    for code, name in enumerate(groups.names):
        rows = np.flatnonzero(codes == code)
        if not rows.size or 0.65 * small_letter() * len(name) > inch * rows.size:
            continue
        places.append(rows.mean())
        names.append(shortened(name))
    ax.set_xticks(places, names, fontsize="small")
    ax.tick_params(axis="x", length=0)
