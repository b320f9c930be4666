"""Quantile normalization of a matrix, in blocks of rows on all threads."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from batchcorr.arrays.blocks import dense_rows, in_threads, row_blocks
from batchcorr.models.quantiles import sorted_values, to_quantiles

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from batchcorr.models.namespace import Matrix

__all__ = ["mean_quantiles", "quantile_rows"]

STRIPES = 16
"""Rows are added up in this many stripes, so that threads do not matter to a sum."""

SIZE = 1 << 20
"""Values in a block."""


def mean_quantiles(x: Matrix, weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the weighted mean of the ordered values of rows, (G,).

    Parameters
    ----------
    x
        NumPy array, or SciPy CSR matrix: (n, G).
    weights
        Of each row, (n,), with sum 1; rows of weight 0 take no part.
    """
    rows = np.flatnonzero(weights)
    sums = np.zeros((STRIPES, x.shape[1]))

    def add(stripe: int) -> None:
        mine = rows[stripe::STRIPES]
        for block in row_blocks((len(mine), x.shape[1]), SIZE):
            part = mine[block]
            sums[stripe] += weights[part] @ sorted_values(dense_rows(x, part))

    in_threads(add, range(STRIPES))
    total: NDArray[np.float64] = sums.sum(axis=0)
    return total


def quantile_rows(
    x: Matrix, target: NDArray[np.float64], *, ties: bool, out: NDArray[np.generic]
) -> None:
    """Write every row with the values of `target` in its place; `out` may be `x`."""

    def write(rows: slice) -> None:
        out[rows] = to_quantiles(dense_rows(x, rows), target, ties=ties)

    in_threads(write, row_blocks(x.shape, SIZE))
