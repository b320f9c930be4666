r"""How precisely counts are known, from how they vary about their trend (voom).

    E = log₂((count + ½) / (size + 1) · 10⁶),      √s_g  against  mean log₂ count_g

a smooth line through all features says √sd at any expected count, and a value's weight is
that line at its own fitted count, to the power -4 (Law et al. 2014).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from batchcorr._numba import Kernel, prange
from batchcorr.models.smoothing import lowess

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

__all__ = ["PrecisionTrend", "log_cpm", "log_library_sizes", "precision_trend"]

SPAN = 0.5
"""Share of the features that each point of the trend looks at."""


def log_library_sizes(sizes: Floats) -> Floats:
    """What log CPM lack to be logarithms of counts, by library size: (n,)."""
    return np.asarray(np.log2(sizes + 1) - np.log2(1e6))


def log_cpm(counts: Floats, log_sizes: Floats) -> Floats:
    """The logarithms of counts per million: (n, G).

    Parameters
    ----------
    counts
        (n, G).
    log_sizes
        The `log_library_sizes` of the samples: (n,).

    Examples
    --------
    >>> log_cpm(np.array([[1.5, 3.5]]), log_library_sizes(np.array([999_999.0])))
    array([[1., 2.]])
    """
    logs = np.empty(counts.shape)
    _log_cpm(counts, log_sizes, logs)
    return logs


@Kernel
def _log_cpm(counts: Floats, log_sizes: Floats, logs: Floats) -> None:
    for row in prange(len(counts)):
        for g in range(counts.shape[1]):
            count = counts[row, g]
            logs[row, g] = (np.log2(count + 0.5) if count else -1.0) - log_sizes[row]


class _Line(NamedTuple):
    """A line through points, and where in it to look for a place.

    Attributes
    ----------
    x, y
        The points, x ascending: (K,).
    slope
        Between neighbours: (K - 1,).
    first
        How many points lie before each edge of a grid with even steps from the first
        point to the last: (cells + 1,).
    per_unit
        Cells in a unit of x.
    """

    x: Floats
    y: Floats
    slope: Floats
    first: NDArray[np.intp]
    per_unit: float

    @classmethod
    def through(cls, x: Floats, y: Floats) -> _Line:
        """The line through some points."""
        cells, reach = 4 * len(x), float(x[-1] - x[0])
        first = np.searchsorted(x, np.linspace(x[0], x[-1], cells + 1))
        return cls(
            x, y, np.diff(y) / np.diff(x), first, cells / reach if reach else 0.0
        )


@Kernel
def _weights(fitted: Floats, log_sizes: Floats, line: _Line, weights: Floats) -> None:
    last, cells = len(line.x) - 1, len(line.first) - 1
    for row in prange(len(fitted)):
        for g in range(fitted.shape[1]):
            expected = fitted[row, g] + log_sizes[row]
            if expected <= line.x[0]:
                root_sd = line.y[0]
            elif expected >= line.x[last]:
                root_sd = line.y[last]
            else:
                cell = min(int((expected - line.x[0]) * line.per_unit), cells - 1)
                low = max(line.first[cell] - 1, 0)
                high = min(line.first[cell + 1] + 1, last)
                while high - low > 1:
                    middle = (low + high) // 2
                    if line.x[middle] <= expected:
                        low = middle
                    else:
                        high = middle
                root_sd = line.y[low] + (expected - line.x[low]) * line.slope[low]
            weights[row, g] = 1 / (root_sd * root_sd) ** 2


@dataclass(frozen=True)
class PrecisionTrend:
    """The line through √sd over mean log₂ count: points ascending, (K,) each."""

    log_count: Floats
    root_sd: Floats

    @cached_property
    def _line(self) -> _Line:
        return _Line.through(self.log_count, self.root_sd)

    def weights(self, fitted: Floats, log_sizes: Floats) -> Floats:
        """The weight of every value: (n, G).

        Parameters
        ----------
        fitted
            Fitted logarithms of counts per million: (n, G).
        log_sizes
            The `log_library_sizes` of the samples: (n,).
        """
        weights = np.empty_like(fitted)
        _weights(fitted, log_sizes, self._line, weights)
        return weights


def precision_trend(mean: Floats, sd: Floats, log_sizes: Floats) -> PrecisionTrend:
    """The trend of one fit.

    Parameters
    ----------
    mean, sd
        Mean log CPM and residual standard deviation of the features that have counts:
        (G,).
    log_sizes
        The `log_library_sizes` of the samples: (n,).

    Notes
    -----
    R: limma `voom`.
    """
    log_count = mean + log_sizes.mean()
    reach = float(np.ptp(log_count))
    line = lowess(log_count, np.sqrt(sd), fraction=SPAN, delta=0.01 * reach)
    points, place = np.unique(log_count, return_inverse=True)
    return PrecisionTrend(points, np.bincount(place, line) / np.bincount(place))
