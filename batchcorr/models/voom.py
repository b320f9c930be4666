r"""How precisely counts are known, from how they vary about their trend (voom).

    E = log₂((count + ½) / (size + 1) · 10⁶),      √s_g  against  mean log₂ count_g

a smooth line through all features says √sd at any expected count, and a value's weight is
that line at its own fitted count, to the power -4 (Law et al. 2014).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from batchcorr._numba import Kernel, prange
from batchcorr.models.smoothing import lowess

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

__all__ = ["PrecisionTrend", "log_cpm", "precision_trend"]


def log_cpm(counts: Floats, sizes: Floats) -> Floats:
    """The logarithms of counts per million: (n, G).

    Parameters
    ----------
    counts
        (n, G).
    sizes
        Library size of each sample: (n,).

    Examples
    --------
    >>> log_cpm(np.array([[1.5, 3.5]]), np.array([999_999.0]))
    array([[1., 2.]])
    """
    logs: Floats = np.log2((counts + 0.5) / (sizes[:, None] + 1) * 1e6)
    return logs


@Kernel
def _weights(
    fitted: Floats, log_sizes: Floats, points: Floats, line: Floats, weights: Floats
) -> None:
    last = len(points) - 1
    for row in prange(len(fitted)):
        for g in range(fitted.shape[1]):
            expected = fitted[row, g] + log_sizes[row]
            if expected <= points[0]:
                root_sd = line[0]
            elif expected >= points[last]:
                root_sd = line[last]
            else:
                k = min(np.searchsorted(points, expected), last)
                share = (expected - points[k - 1]) / (points[k] - points[k - 1])
                root_sd = line[k - 1] + share * (line[k] - line[k - 1])
            weights[row, g] = 1 / (root_sd * root_sd) ** 2


class PrecisionTrend(NamedTuple):
    """The line through √sd over mean log₂ count: points ascending, (K,) each."""

    log_count: Floats
    root_sd: Floats

    def weights(self, fitted: Floats, sizes: Floats) -> Floats:
        """The weight of every value: (n, G).

        Parameters
        ----------
        fitted
            Fitted logarithms of counts per million: (n, G).
        sizes
            Library size of each sample: (n,).
        """
        weights = np.empty_like(fitted)
        _weights(fitted, _log_size(sizes), self.log_count, self.root_sd, weights)
        return weights


def precision_trend(
    mean: Floats, sd: Floats, sizes: Floats, *, span: float = 0.5
) -> PrecisionTrend:
    """The trend of one fit.

    Parameters
    ----------
    mean, sd
        Mean log CPM and residual standard deviation of the features that have counts:
        (G,).
    sizes
        Library size of each sample: (n,).
    span
        Share of the features that each point of the line looks at.

    Notes
    -----
    R: limma `voom`.
    """
    log_count = mean + _log_size(sizes).mean()
    reach = float(np.ptp(log_count))
    line = lowess(log_count, np.sqrt(sd), fraction=span, delta=0.01 * reach)
    points, place = np.unique(log_count, return_inverse=True)
    return PrecisionTrend(points, np.bincount(place, line) / np.bincount(place))


def _log_size(sizes: Floats) -> Floats:
    """What log CPM lack to be logarithms of counts: (n,)."""
    return np.asarray(np.log2(sizes + 1) - np.log2(1e6))
