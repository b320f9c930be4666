"""QQ plot of p-values against the uniform distribution."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import beta

from batchcorr.errors import InputError
from batchcorr.estimators.options import check_rate
from batchcorr.pl._looks import colours, shortened
from batchcorr.pl._panels import panel, thin_spines
from batchcorr.pl._results import named_p_values

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

__all__ = ["calibration"]

MOST = 3000
"""Points of a test that are drawn at most: ranks are thinned where they lie closely."""

SMALLEST = 1e-300


def calibration(
    p_values: object,
    *,
    contrast: str | None = None,
    alpha: float = 0.05,
    ax: Axes | None = None,
) -> Axes:
    """Draw a QQ plot of p-values against the uniform distribution.

    If there are no true differences, p-values of a valid test follow the diagonal. A
    curve above it means too many false positives, a curve below it a conservative test.

    Parameters
    ----------
    p_values
        An array of p-values, (G,), a table of `tl.differential`, or several of these by
        name: ``{"corrected, then tested": …, "batch in the model": …}``.
    contrast
        The level to draw, if tables have several contrasts.
    alpha
        The legend shows the share of p-values up to this one.
    ax
        Axes to draw on; None: a new figure.

    Returns
    -------
    The axes.

    Raises
    ------
    InputError
        If p-values do not lie between 0 and 1, or there are none.
    MissingKeyError
        If a table has several contrasts and none was named, or no p-values.

    Notes
    -----
    The grey band is the pointwise 95 % interval for independent features; features are
    correlated, so that a curve may leave it slightly. With several tests the band is
    for the one with the fewest features.

    Examples
    --------
    >>> import numpy as np, batchcorr as bc
    >>> p = np.random.default_rng(0).uniform(size=2000)
    >>> ax = bc.pl.calibration({"honest": p, "too small": p**2})
    >>> [text.get_text() for text in ax.get_legend().get_texts()]
    ['honest: 5.5% at p ≤ 0.05', 'too small: 22.7% at p ≤ 0.05']
    """
    check_rate(alpha)
    tests = named_p_values(p_values, contrast)
    if not tests:
        msg = "p_values is empty: give at least one array or table of p-values."
        raise InputError(msg)
    ax = panel(ax, (3.6, 3.4))
    fewest = min(p.size for p in tests.values())
    ranks = _ranks(fewest)
    low, high = (beta.ppf(q, ranks, fewest - ranks + 1) for q in (0.025, 0.975))
    ax.fill_between(
        _expected(ranks, fewest), _minus_log(high), _minus_log(low),
        color="0.88", lw=0, zorder=0,
    )  # fmt: skip
    for (name, p), colour in zip(tests.items(), colours(len(tests)), strict=True):
        ranks = _ranks(p.size)
        observed = _minus_log(np.sort(p)[ranks - 1])
        share = f"{(p <= alpha).mean():.1%} at p ≤ {alpha:g}"
        label = share if len(tests) == 1 else f"{shortened(name, 40)}: {share}"
        ax.plot(
            _expected(ranks, p.size), observed, "o", color=colour, ms=2.5, mew=0,
            rasterized=True, label=label,
        )  # fmt: skip
    ax.axline((0, 0), slope=1, color="black", lw=0.8, ls="--", zorder=1)
    ax.set(xlabel="−log10 p by chance", ylabel="−log10 p")
    ax.set(xlim=(0, None), ylim=(0, None))
    ax.legend(
        loc="lower left",
        bbox_to_anchor=(0, 1),
        borderaxespad=0.2,
        frameon=False,
        fontsize="small",
        handletextpad=0.1,
        markerscale=2,
    )
    thin_spines(ax)
    return ax


def _ranks(n: int) -> NDArray[np.intp]:
    """Ranks to draw of n p-values, all of the smallest, from 1 on."""
    if n <= MOST:
        return np.arange(1, n + 1)
    spaced = np.geomspace(1, n, MOST).round().astype(np.intp)
    return np.unique(spaced)


def _expected(ranks: NDArray[np.intp], n: int) -> Floats:
    return _minus_log((ranks - 0.5) / n)


def _minus_log(p: Any) -> Floats:
    values: Floats = -np.log10(np.maximum(p, SMALLEST))
    return values
