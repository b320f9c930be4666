"""The batch effects that ComBat estimated, and the priors fitted to them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import invgamma, norm

from batchcorr.pl._effects import effects_of
from batchcorr.pl._looks import name_rows, small_letter
from batchcorr.pl._matplotlib import BLUE, VERMILION
from batchcorr.pl._panels import few_ticks, panels, thin_spines

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from batchcorr.pl._panels import AxesGrid

    Floats = NDArray[np.float64]
    Row = tuple[Floats, Callable[[Floats], Any]]

__all__ = ["priors"]

BARS, POINTS = 60, 241
HIGHEST = 0.9
"""Height of the highest density of a batch, in rows."""


def priors(
    correction: object, *, batches: Sequence[object] | None = None, ax: object = None
) -> AxesGrid:
    r"""Draw the estimated batch effects of all features, and the priors fitted to them.

    .. math:: γ_{bg} \sim N(\barγ_b, τ_b^2), \qquad
        δ_{bg}^2 \sim \mathrm{InverseGamma}(a_b, b_b)

    If the curve does not follow the bars, the parametric prior does not fit: try
    ``parametric=False``.

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
    The axes: locations, and variances if they were corrected. One row per batch.

    Raises
    ------
    InputError
        If the correction is not a fitted ComBat, or `ax` does not have one axes per
        panel.
    MissingKeyError
        If the correction does not have this batch.

    Notes
    -----
    Bars are densities of the estimates γ̂ (in standard deviations) and δ̂² (relative to
    the pooled variance), up to their 99.5th percentile; each row has its own scale. R's
    `sva::ComBat` with ``prior.plots=TRUE`` draws the same for the first batch.

    Examples
    --------
    >>> import batchcorr as bc
    >>> correction = bc.fit(bc.datasets.bladder(), "batch", method="combat")
    >>> axes = bc.pl.priors(correction)
    >>> [ax.get_title() for ax in axes.flat]
    ['location γ', 'variance δ²']
    """
    effects = effects_of(correction, batches)
    n_panels = 1 + any(effect.scaled for effect in effects)
    grid = panels(ax, (1, n_panels), (2.9, max(2.2, 0.22 * len(effects) + 1.1)))
    locations: list[Row] = [
        (effect.gamma_hat, norm(effect.location[0], effect.location[1] ** 0.5).pdf)
        for effect in effects
    ]
    _draw(grid[0, 0], locations, "location γ")
    if n_panels == 2:
        variances: list[Row] = [
            (effect.delta_hat, invgamma(effect.scale[0], scale=effect.scale[1]).pdf)
            for effect in effects
        ]
        _draw(grid[0, 1], variances, "variance δ²", positive=True)
        grid[0, 1].set_yticklabels([])
    names = [effect.batch for effect in effects]
    name_rows(grid[0, 0], range(0, -len(names), -1), names, va="bottom")
    _explain(grid[0, 0])
    return grid


def _explain(ax: Axes) -> None:
    """Say below the axes what bars and lines are."""
    from matplotlib.transforms import ScaledTranslation

    below = ScaledTranslation(0, -3.2 * small_letter(), ax.figure.dpi_scale_trans)
    ax.legend(
        loc="upper left",
        bbox_to_anchor=(0, 0),
        bbox_transform=ax.transAxes + below,
        fontsize="small",
        frameon=False,
        handlelength=1.2,
        labelspacing=0.2,
        borderaxespad=0,
    )


def _draw(ax: Axes, rows: list[Row], title: str, *, positive: bool = False) -> None:
    """Draw a row a batch: bars of what was estimated, a line for the prior."""
    everything = np.concatenate([values[np.isfinite(values)] for values, _ in rows])
    low, high = np.quantile(everything, [0.005, 0.995])
    low = 0.0 if positive else low
    low, high = (low, high) if low < high else (low - 1, high + 1)
    edges, x = np.linspace(low, high, BARS + 1), np.linspace(low, high, POINTS)
    for k, (values, density) in enumerate(rows):
        known = values[np.isfinite(values)]
        if not known.size or np.ptp(known) == 0:
            continue
        bars = np.histogram(known, edges)[0] / (known.size * np.diff(edges))
        prior = density(x)
        scale = HIGHEST / max(bars.max(), prior.max(), 1e-300)
        label = "estimates" if k == 0 else None
        ax.stairs(
            -k + scale * bars, edges, baseline=-k, fill=True, color=BLUE, alpha=0.45,
            lw=0, label=label,
        )  # fmt: skip
        label = "fitted prior" if k == 0 else None
        ax.plot(x, -k + scale * prior, color=VERMILION, lw=1.2, label=label)
        ax.axhline(-k, color="0.85", lw=0.6, zorder=0)
    ax.set_title(title, fontsize="medium")
    few_ticks(ax)
    ax.set(xlim=(low, high), ylim=(-len(rows) + 0.95, 1))
    ax.set_yticks(-np.arange(len(rows)))
    ax.tick_params(axis="y", length=0)
    thin_spines(ax)
    ax.spines["left"].set_visible(False)
