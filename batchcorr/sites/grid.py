r"""How many bits a value of a feature can hold: on what grid its values lie.

Values written with k decimals lie on multiples of 10⁻ᵏ. Values made from counts, as log2
CPM are, lie where counts come to lie,

    x = log_b(c · count + o),     with c and o of the sample:

in a sample the differences of bˣ are multiples of c, and near x the grid is c / (bˣ ln b).
A value on a grid g with standard deviation σ and a range holds no more than

    h = log2 min(range/g + 1, √(2πe (σ²/g² + 1/12)))                          bits;

where m of the n values of a batch differ from the most common one, often 0, a value
holds no more than (m h' + log2 C(n, m))/n on average, where these are and what they are:
one of range/g other values.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy.special import gammaln

from batchcorr.arrays.differing import MOST_DECIMALS, read_rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from batchcorr.arrays.differing import Differing

__all__ = ["MOST", "Bits", "bits_of_values", "grid_of"]

MOST = 10.0
"""Bits that a value is taken to hold at most, three digits: no grid is known for sure."""

BASES = (None, 2.0, math.e, 10.0)
"""Bases of the logarithms that counts may be in; None: they are in none."""

ROWS = 64
"""Samples of a batch that are looked at."""

FEATURES = 2000
"""Features of them that are looked at."""

LARGEST = 45.0
"""Natural logarithm of the largest count there may be."""

STEPS = 100
"""Multiples of a sample's smallest difference that are compared with whole numbers."""


class Bits(NamedTuple):
    """Bits that values hold at most: (B, G) each.

    Attributes
    ----------
    of_one
        Of a value that is not the most common one.
    on_average
        Of a value of the batch.
    """

    of_one: NDArray[np.float64]
    on_average: NDArray[np.float64]


def bits_of_values(
    values: Differing,
    grid: NDArray[np.float64],
    sd: NDArray[np.float64],
    n: NDArray[np.float64],
) -> Bits:
    """Bits that the values of each batch and feature hold.

    Parameters
    ----------
    values
        How many values differ in each batch and feature, the smallest and the largest.
    grid
        Step of the grid that they lie on; 0: none is known.
    sd
        Their standard deviation, given what is known of the samples.
    """
    n = np.maximum(n, 1)
    m = np.clip(np.minimum(values.unequal, values.nonzero), 1, n)
    step = np.where(grid > 0, grid, 1.0)
    steps = np.maximum(values.high - values.low, 0) / step

    def bits_of(steps: NDArray[np.float64], variance: NDArray[np.float64]) -> Any:
        normal = np.sqrt(2 * np.pi * math.e * (variance / step**2 + 1 / 12))
        bits = np.log2(np.clip(np.minimum(steps, normal), 1, 2**MOST))
        return np.where(grid > 0, bits, MOST)

    where = (gammaln(n + 1) - gammaln(m + 1) - gammaln(n - m + 1)) / np.log(2)
    few = bits_of(steps, sd**2 * n / m)
    average = np.minimum(bits_of(steps + 1, sd**2), (m * few + where) / n)
    return Bits(np.maximum(bits_of(steps + 1, sd**2 * n / m), average), average)


def grid_of(
    x: Any, codes: NDArray[np.int32], values: Differing, mean: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Step of the grid that the values of each batch and feature lie on: (B, G).

    Returns
    -------
    The coarsest grid found, 0 where there is none.
    """
    written = np.where(
        values.decimals <= MOST_DECIMALS, 10.0 ** -values.decimals.astype(float), 0.0
    )
    features = slice(None, None, max(1, x.shape[1] // FEATURES))
    for batch in np.unique(codes):
        rows = read_rows(x, np.flatnonzero(codes == batch)[:ROWS])[:, features]
        dense = rows.toarray() if hasattr(rows, "toarray") else rows
        samples = np.asarray(dense, dtype=np.float64)
        largest = np.nanmax(np.abs(samples), initial=0)
        for base in BASES:
            if base is None:
                step, slope = _step_of_counts(samples), 1.0
            elif largest * np.log(base) > LARGEST:
                continue
            else:
                step = _step_of_counts(base**samples)
                slope = np.log(base) * base ** mean[batch]
            written[batch] = np.maximum(written[batch], step / slope)
    return written


def _step_of_counts(samples: NDArray[np.float64]) -> float:
    """What one count is in the middle sample; 0 if most are not of counts."""
    steps = [_step_of(row[~np.isnan(row)]) for row in samples]
    found = [step for step in steps if step]
    return float(np.median(found)) if 2 * len(found) > len(steps) else 0.0


def _step_of(values: NDArray[np.float64]) -> float:
    """The smallest difference of values, if all differences are multiples of it; or 0."""
    ordered = np.unique(values)
    gaps = np.diff(ordered)
    gaps = gaps[gaps > 1e-6 * np.abs(ordered[1:])]
    if not gaps.size:
        return 0.0
    step = float(gaps.min())
    multiples = (ordered - ordered[0]) / step
    multiples = multiples[(multiples > 1.5) & (multiples < STEPS)]
    whole = np.abs(multiples - np.rint(multiples)) < 0.02
    return step if len(multiples) >= 4 and whole.all() else 0.0
