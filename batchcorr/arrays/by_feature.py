r"""Moments feature by feature: for missing values and for weights.

With v the weight of a value (1, 0 where it is missing, or as given), per batch:

    n = Σ v,  x̄ = Σ v x / n,  z̄ = Σ v z / n,  M = Σ v (x - x̄)²,  …

so that n, z̄ and S differ from feature to feature. Two reads of the matrix, in tiles of
features; the memory is that of the result, B p² G.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from batchcorr._numba import Kernel, prange
from batchcorr.models.moments import Moments

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from batchcorr.design.design import Design

__all__ = ["dense_sums_by_feature"]

TILE = 16


@Kernel
def _first_moments(x, codes, z, weights, origin, n, mean, columns):
    n_rows, n_features = x.shape
    for tile in prange((n_features + TILE - 1) // TILE):
        for row in range(n_rows):
            b = codes[row]
            for g in range(tile * TILE, min((tile + 1) * TILE, n_features)):
                v = weights[row, g]
                if v > 0 and not np.isnan(x[row, g]):
                    if n[b, g] == 0:
                        origin[b, g] = x[row, g]
                    n[b, g] += v
                    mean[b, g] += v * (x[row, g] - origin[b, g])
                    for k in range(z.shape[1]):
                        columns[b, k, g] += v * z[row, k]
        for b in range(len(n)):
            for g in range(tile * TILE, min((tile + 1) * TILE, n_features)):
                if n[b, g] > 0:
                    mean[b, g] = origin[b, g] + mean[b, g] / n[b, g]
                    for k in range(z.shape[1]):
                        columns[b, k, g] /= n[b, g]


@Kernel
def _second_moments(x, codes, z, weights, mean, columns, squares, cross, gram):
    n_rows, n_features = x.shape
    for tile in prange((n_features + TILE - 1) // TILE):
        for row in range(n_rows):
            b = codes[row]
            for g in range(tile * TILE, min((tile + 1) * TILE, n_features)):
                v = weights[row, g]
                if v > 0 and not np.isnan(x[row, g]):
                    dx = x[row, g] - mean[b, g]
                    squares[b, g] += v * dx * dx
                    for k in range(z.shape[1]):
                        dz = v * (z[row, k] - columns[b, k, g])
                        cross[b, k, g] += dz * dx
                        for m in range(z.shape[1]):
                            gram[b, k, m, g] += dz * (z[row, m] - columns[b, m, g])


def dense_sums_by_feature(
    x: NDArray[np.generic], design: Design, weights: NDArray[np.float64] | None
) -> Moments:
    """Gather moments of a NumPy matrix that may hold NaN, weighted or not."""
    codes, n_batches, columns = design.codes, design.n_batches, design.columns
    if weights is None:
        weights = np.ones((1, 1))
    weights = np.broadcast_to(weights.reshape(len(weights), -1), x.shape)
    n_features, p = x.shape[1], columns.shape[1]
    n, mean, origin, squares = (np.zeros((n_batches, n_features)) for _ in range(4))
    column_means, cross = (np.zeros((n_batches, p, n_features)) for _ in range(2))
    gram = np.zeros((n_batches, p, p, n_features))
    _first_moments(x, codes, columns, weights, origin, n, mean, column_means)
    _second_moments(
        x, codes, columns, weights, mean, column_means, squares, cross, gram
    )
    rows = np.bincount(codes, minlength=n_batches)[:, None].astype(np.float64)
    return Moments(rows, n, mean, squares, column_means, cross, gram)
