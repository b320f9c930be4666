"""Products with a corrected matrix that is not formed, each an operation by kind of matrix.

A kind that registers none has its rows corrected some at a time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from batchcorr.arrays.operations import operation
from batchcorr.arrays.passes import apply

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from batchcorr.design.design import Design
    from batchcorr.models.location_scale import LocationScale
    from batchcorr.models.namespace import Matrix

__all__ = ["arranged", "gram", "gram_times", "sample_gram", "times", "transposed_times"]

BLOCK = 1 << 22
"""Corrected values held at a time, where a kind of matrix has no products of its own."""


def _blocks(
    x: Matrix, design: Design, correction: LocationScale
) -> Iterator[tuple[slice, Matrix]]:
    """Form the corrected matrix, some rows at a time."""
    step = max(1, BLOCK // max(x.shape[1], 1))
    for start in range(0, x.shape[0], step):
        rows = slice(start, min(start + step, x.shape[0]))
        yield rows, apply(x[rows], design.take(rows), correction)


@operation
def arranged(x: Matrix) -> Matrix:
    """Return the matrix as the products take it: rearranged once, not at each."""
    return x


@operation
def times(
    x: Matrix, design: Design, correction: LocationScale, right: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return C V, (n, k)."""
    result = np.empty((x.shape[0], right.shape[1]))
    for rows, block in _blocks(x, design, correction):
        result[rows] = block @ right
    return result


@operation
def transposed_times(
    x: Matrix, design: Design, correction: LocationScale, left: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return Cᵀ U, (G, k)."""
    result = np.zeros((x.shape[1], left.shape[1]))
    for rows, block in _blocks(x, design, correction):
        result += block.T @ left[rows]
    return result


@operation
def gram_times(
    x: Matrix, design: Design, correction: LocationScale, right: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return Cᵀ C V, (G, k), in one read of the matrix."""
    result = np.zeros(right.shape)
    for _, block in _blocks(x, design, correction):
        result += block.T @ (block @ right)
    return result


@operation
def gram(x: Matrix, design: Design, correction: LocationScale) -> NDArray[np.float64]:
    """Return CᵀC, (G, G), in one read of the matrix."""
    result = np.zeros((x.shape[1], x.shape[1]))
    for _, block in _blocks(x, design, correction):
        wide = block.astype(np.float64, copy=False)
        result += wide.T @ wide
    return result


@operation
def sample_gram(
    x: Matrix, design: Design, correction: LocationScale
) -> NDArray[np.float64]:
    """Return C Cᵀ, (n, n), some features at a time."""
    n, n_features = x.shape
    result = np.zeros((n, n))
    step = max(1, BLOCK // max(n, 1))
    for start in range(0, n_features, step):
        some = slice(start, min(start + step, n_features))
        wide = apply(x[:, some], design, correction.select(some))
        wide = wide.astype(np.float64, copy=False)
        result += np.asarray(wide @ wide.T)
    return result
