r"""Trimmed means of M-values: how a sample compares with a reference, outliers aside.

With counts o, r of a feature in the sample and the reference, and libraries N_o, N_r,

    M = log2 (o/N_o) / (r/N_r),     A = ½ log2 (o/N_o)(r/N_r),
    w = 1 / ((N_o - o) / N_o o + (N_r - r) / N_r r),     log2 f = Σ w M / Σ w

over the features that are left when the 30 % lowest and highest M, and the 5 % lowest
and highest A, are cut off (Robinson & Oshlack 2010). TMM takes the features counted in
both; "with singleton pairing" (TMMwsp) what is counted in one of them only is paired up
in order of size, so that sparse samples have more to be compared by; there 1 / w is
larger by 1e-6.
"""

from __future__ import annotations

from math import log2
from typing import TYPE_CHECKING

import numpy as np

from batchcorr._numba import Helper

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["paired_trimmed_mean", "trimmed_mean"]

TRIM_M = 0.3
TRIM_A = 0.05

FLOOR = 1e-6
"""What edgeR's TMMwsp has added to every 1 / w (found by asking it for three genes)."""

SAME = 1e-6
"""Where no M is larger, the samples are proportional."""


@Helper
def _log2(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Take logarithms of the C library, as R does: so near ties are broken alike."""
    found = np.empty_like(values)
    for i in range(len(values)):
        found[i] = log2(values[i])
    return found


def trimmed_mean(
    counts: NDArray[np.float64],
    library: float,
    reference: NDArray[np.float64],
    reference_library: float,
) -> float:
    """Return TMM's factor of a sample, from the features counted in both.

    Parameters
    ----------
    counts, reference
        Counts of those features, all positive: (m,).
    library, reference_library
        Totals over all features.

    Examples
    --------
    >>> import numpy as np
    >>> a = np.array([1.0, 2, 3, 4, 5, 6, 7, 8, 9, 100])
    >>> trimmed_mean(a, a.sum(), 2 * a, 2 * a.sum())
    1.0
    """
    if not len(counts):
        return 1.0
    p, q = counts / library, reference / reference_library
    m, a = _log2(p / q), (_log2(p) + _log2(q)) / 2
    if np.abs(m).max() < SAME:
        return 1.0
    keep = _central(m, TRIM_M) & _central(a, TRIM_A)
    variance = (library - counts) / library / counts
    variance += (reference_library - reference) / reference_library / reference
    return _weighted(m[keep], variance[keep])


def paired_trimmed_mean(
    counts: NDArray[np.float64],
    library: float,
    reference: NDArray[np.float64],
    reference_library: float,
) -> float:
    """Return TMMwsp's factor of a sample, from all features.

    Parameters
    ----------
    counts, reference
        Counts of all features: (G,).
    library, reference_library
        Totals over all features.
    """
    both = (counts > 0) & (reference > 0)
    ours = np.sort(counts[(counts > 0) & ~both])[::-1]
    theirs = np.sort(reference[(reference > 0) & ~both])[::-1]
    pairs = min(len(ours), len(theirs))
    o = np.concatenate([counts[both], ours[:pairs]])
    r = np.concatenate([reference[both], theirs[:pairs]])
    n = len(o)
    if n == 0:
        return 1.0
    p, q = o / library, r / reference_library
    m, a = _log2(p / q), 0.5 * _log2(p * q)
    if np.abs(m).max() < SAME:
        return 1.0
    fair = ((o + 0.5) / (library + 0.5)) / ((r + 0.5) / (reference_library + 0.5))
    keep = np.zeros((2, n), dtype=bool)
    for kept, order, share in (
        (keep[0], np.lexsort([_log2(fair), m]), TRIM_M),
        (keep[1], np.argsort(a, kind="stable"), TRIM_A),
    ):
        cut = int(n * share)
        kept[order[cut : n - cut]] = True
    used = keep.all(axis=0)
    return _weighted(m[used], ((1 - p) / o + (1 - q) / r + FLOOR)[used])


def _central(values: NDArray[np.float64], share: float) -> NDArray[np.bool_]:
    """Tell which values are left when a share is cut off at either end.

    Tied values share their average rank, and are left or cut off together.
    """
    n = len(values)
    ordered = np.sort(values)
    low, high = int(n * share) + 1, n - int(n * share)
    lowest, highest = ordered[low - 1], ordered[high - 1]
    above = values >= lowest if _rank(ordered, lowest) >= low else values > lowest
    below = values <= highest if _rank(ordered, highest) <= high else values < highest
    both: NDArray[np.bool_] = above & below
    return both


def _rank(ordered: NDArray[np.float64], value: np.float64) -> float:
    first = np.searchsorted(ordered, value, side="left")
    last = np.searchsorted(ordered, value, side="right")
    return float(first + 1 + last) / 2


def _weighted(m: NDArray[np.float64], variance: NDArray[np.float64]) -> float:
    """Return 2 to the mean of M, weighted by 1 / variance; 1 where there is none."""
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = float(np.sum(m / variance) / np.sum(1 / variance))
    return float(2.0**mean) if np.isfinite(mean) else 1.0
