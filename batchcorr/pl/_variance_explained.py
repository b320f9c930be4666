"""The share of each feature's variance that batch explains, before against after."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from batchcorr._anndata import matrices
from batchcorr.metrics._variance_explained import feature_shares
from batchcorr.pl._looks import shortened
from batchcorr.pl._matplotlib import BLUE, VERMILION
from batchcorr.pl._panels import few_ticks, panels, thin_spines

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from batchcorr.pl._panels import AxesGrid

    Floats = NDArray[np.float64]

__all__ = ["variance_explained"]


def variance_explained(
    adata: AnnData,
    batch_key: str,
    after: str,
    *,
    covariates: object = None,
    before: str | None = None,
    ax: object = None,
) -> AxesGrid:
    """Draw the variance explained in each feature, before a correction against after.

    After a correction the share of batch should be about 0, and the share of the
    covariates on the diagonal or above it, because less noise remains.

    Parameters
    ----------
    adata
        AnnData with the corrected values in a layer.
    batch_key
        Column of `obs` with the batch.
    after
        Layer with the corrected values.
    covariates
        What explains variance besides batch: columns of `obs`, a formula, or a
        DataFrame. The share of batch is then that beyond the covariates.
    before
        Layer with the uncorrected values; None: X.
    ax
        Axes to draw on, two with covariates, otherwise one; None: a new figure.

    Returns
    -------
    The axes: batch, and the covariates if there are any.

    Raises
    ------
    MissingKeyError
        If a column or layer does not exist.
    DesignError
        If covariates are confounded with batch, or there is only one batch.
    InputError
        If no feature varies, or `ax` does not have one axes per panel.

    Notes
    -----
    Adjusted R² of linear models, as in `metrics.variance_explained`: without an effect
    about half of the features are below 0. One read of each matrix. Titles give means
    over features.

    Examples
    --------
    >>> import batchcorr as bc
    >>> adata = bc.datasets.bladder()
    >>> bc.pp.remove_batch_effect(adata, "batch", key_added="centred")
    >>> axes = bc.pl.variance_explained(adata, "batch", "centred", covariates="cancer")
    >>> [ax.get_title(loc="left") for ax in axes.flat]
    ['batch: 16% → 8%', 'covariates: 22% → 22%']
    """
    adata = matrices.require_adata(adata)
    shares = [
        feature_shares(adata, batch_key, covariates=covariates, layer=layer)
        for layer in (before, after)
    ]
    drawn = ["batch"]
    if covariates is not None:
        drawn = ["batch_beyond_covariates", "covariates"]
    grid = panels(ax, (1, len(drawn)), (2.9, 2.8))
    names = [shortened(before or "X"), shortened(after)]
    for k, kind in enumerate(drawn):
        x, y = (getattr(share, kind) for share in shares)
        panel: Axes = grid[0, k]
        _draw(panel, x, y, VERMILION if kind.startswith("batch") else BLUE)
        means = " → ".join(f"{np.nanmean(values):z.0%}" for values in (x, y))
        means = means.replace("-", "−")
        panel.set_title(
            f"{kind.partition('_')[0]}: {means}", fontsize="small", loc="left"
        )
        panel.set_xlabel(f"before ({names[0]})")
    grid[0, 0].set_ylabel(f"after ({names[1]})")
    return grid


def _draw(ax: Axes, before: Floats, after: Floats, colour: str) -> None:
    """Draw the features, the diagonal and 0, on equal scales."""
    known = np.isfinite(before) & np.isfinite(after)
    x, y = before[known], after[known]
    size = float(np.clip(20_000 / max(x.size, 1), 1, 12))
    ax.scatter(x, y, size, colour, linewidths=0, alpha=0.4, rasterized=True)
    both = np.concatenate([x, y, [0, 0.2]])
    low, high = np.quantile(both, [0.001, 1])
    pad = 0.04 * (high - low)
    ax.axline((0, 0), slope=1, color="black", lw=0.8, ls="--")
    ax.axhline(0, color="0.6", lw=0.8, zorder=0)
    ax.axvline(0, color="0.6", lw=0.8, zorder=0)
    few_ticks(ax)
    ax.set(xlim=(low - pad, high + pad), ylim=(low - pad, high + pad))
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    ax.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    thin_spines(ax)
