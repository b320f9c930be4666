"""How far ComBat shrinks its estimates."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from batchcorr.pl._effects import effects_of
from batchcorr.pl._looks import Groups, inches
from batchcorr.pl._panels import few_ticks, panels, thin_spines

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from batchcorr.pl._panels import AxesGrid

    Floats = NDArray[np.float64]

__all__ = ["shrinkage"]

MOST = 100_000
"""Points that are drawn at most."""

SIZE, LEGEND = (2.9, 2.7), 2.2


def shrinkage(
    correction: object, *, batches: Sequence[object] | None = None, ax: object = None
) -> AxesGrid:
    r"""Draw the estimates of ComBat before against after shrinkage, for each feature.

    .. math:: γ^* = \frac{n τ^2 \hatγ + δ^{2*} \barγ}{n τ^2 + δ^{2*}}

    Points on the diagonal were not shrunk; the flatter the points of a batch, the
    stronger the shrinkage. Small batches are shrunk most.

    Parameters
    ----------
    correction
        A fitted `ComBat`, as `bc.fit` returns it.
    batches
        Batches to draw; None: all except a reference batch.
    ax
        Two axes, or one if only locations were corrected; None: a new figure.

    Returns
    -------
    The axes: locations, and variances (log scale) if they were corrected.

    Raises
    ------
    InputError
        If the correction is not a fitted ComBat, or `ax` does not have one axes per
        panel.
    MissingKeyError
        If the correction does not have this batch.

    Notes
    -----
    Above 100,000 points only every k-th feature is drawn.

    Examples
    --------
    >>> import batchcorr as bc
    >>> correction = bc.fit(bc.datasets.bladder(), "batch", method="combat")
    >>> axes = bc.pl.shrinkage(correction, batches=["3", "5"])
    >>> [text.get_text() for text in axes[0, 1].get_legend().get_texts()]
    ['3', '5']
    """
    effects = effects_of(correction, batches)
    every = -(-len(effects) * effects[0].gamma_hat.size // MOST)
    scaled = any(effect.scaled for effect in effects)
    names = [effect.batch for effect in effects]
    of_point = np.repeat(range(len(names)), effects[0].gamma_hat[::every].size)
    groups = Groups(names, of_point)
    shape = (1, 1 + scaled)
    room = groups.legend_width(LEGEND)
    grid = panels(ax, shape, SIZE, beside=room)
    locations = [
        np.stack([effect.gamma_hat[::every], effect.gamma_star[::every]], axis=1)
        for effect in effects
    ]
    _draw(grid[0, 0], np.concatenate(locations), groups)
    grid[0, 0].set(xlabel="estimated", ylabel="shrunken")
    grid[0, 0].set_title("location γ", fontsize="medium")
    if scaled:
        variances = [
            np.stack([effect.delta_hat[::every], effect.delta_star[::every]], axis=1)
            for effect in effects
        ]
        _draw(grid[0, 1], np.concatenate(variances), groups, logarithmic=True)
        grid[0, 1].set_xlabel("estimated")
        grid[0, 1].set_title("variance δ²", fontsize="medium")
    groups.name_beside(
        grid[0, -1], "batch", room=(room, LEGEND) if ax is None else None
    )
    return grid


def _draw(
    ax: Axes, points: Floats, groups: Groups, *, logarithmic: bool = False
) -> None:
    """Draw the points in random order, the diagonal under them, on equal scales."""
    known = np.isfinite(points).all(axis=1)
    if logarithmic:
        known &= (points > 0).all(axis=1)
    order = np.random.default_rng(0).permutation(np.flatnonzero(known))
    x, y = points[order].T
    size = float(np.clip(20_000 / max(order.size, 1), 1, 12))
    colour = groups.by_sample()[order]
    ax.scatter(x, y, size, colour, linewidths=0, alpha=0.6, rasterized=True)
    if logarithmic:
        ax.set(xscale="log", yscale="log")
        _few_powers(ax)
    else:
        few_ticks(ax)
    ax.margins(0.04)
    ax.axline((1, 1), (2, 2), color="black", lw=0.8, ls="--")
    thin_spines(ax)


def _few_powers(ax: Axes) -> None:
    """Ticks at powers of ten, or between them where there are few."""
    from matplotlib.ticker import LogLocator, NullLocator

    ax.autoscale_view()
    for axis, length in zip((ax.xaxis, ax.yaxis), inches(ax), strict=True):
        low, high = axis.get_view_interval()
        powers = np.log10(high / low)
        subs = (1.0,) if powers > 2 else (1.0, 2.0, 5.0)
        axis.set_major_locator(
            LogLocator(subs=subs, numticks=max(2, min(6, int(length / 0.6))))
        )
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter("{x:g}")
