r"""Leading components of a corrected matrix C, centred, which is never formed.

They are eigenvectors of CᵀC, found by block Lanczos on one of two roads:

- few features: one read of the matrix sums CᵀC itself, and products with that are cheap.
  It takes k/2 multiplications a stored value, with k values stored in a row;
- else each product with CᵀC is a read, and takes 64 multiplications a stored value, 10 to
  50 times. In float32 they take half the time, and errors of a share ε σ₁ / σ of each
  residual, which float64 then puts right in few products.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from batchcorr.models.krylov import leading_eigenvectors

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from batchcorr.arrays.corrected import CorrectedMatrix

    Floats = NDArray[np.float64]

__all__ = ["components"]

FEW, SHORT = 4096, 600
"""Features, and stored values in a row, up to which CᵀC is made."""

NARROW = 1e-4
"""Tolerances from this on are tried with products in float32."""


def components(
    centred: CorrectedMatrix,
    count: int,
    tolerance: float,
    random: np.random.Generator,
) -> tuple[Floats, Floats, Floats]:
    """The largest variances times n - 1, their loadings (G, k) and scores (n, k).

    What is found by CᵀC or in float32 is checked; where that was not exact enough (a
    component may be small beside the first, or beside the means), the search goes on
    from there in float64.
    """
    size = centred.shape[1]
    find = partial(leading_eigenvectors, size=size, count=count, random=random)
    loadings = None
    if _is_narrow(centred):
        total = centred.gram()
        variances, loadings, _ = find(lambda v: total @ v, tolerance=0.5 * tolerance)
        loadings = _with_signs(loadings)
        scores = centred @ loadings
        # errors are alike in all directions, of which this sees one
        off = np.abs((scores**2).sum(axis=0) - variances) * np.sqrt(size)
        if (off <= 0.5 * tolerance * variances).all():
            return variances, loadings, scores
    elif centred.dtype == np.float32 and tolerance >= NARROW:
        variances, loadings, _ = find(
            lambda v: centred.gram_times(v.astype(np.float32)),
            tolerance=0.8 * tolerance,
        )
        loadings = _with_signs(loadings)
        scores = centred @ loadings
        residuals = (scores.T @ centred).T - loadings * variances
        if (np.linalg.norm(residuals, axis=0) <= tolerance * variances).all():
            return variances, loadings, scores
    variances, loadings, _ = find(
        centred.gram_times, tolerance=tolerance, start=loadings
    )
    loadings = _with_signs(loadings)
    return variances, loadings, centred @ loadings


def _is_narrow(matrix: CorrectedMatrix) -> bool:
    """Whether CᵀC is made: few features, and rows that are short or dense."""
    n, n_features = matrix.shape
    stored = getattr(matrix.x, "nnz", 0)
    return n_features <= min(n, FEW) and stored <= SHORT * n


def _with_signs(loadings: Floats) -> Floats:
    """Turn vectors so that the largest entry of each is positive."""
    largest = np.argmax(np.abs(loadings), axis=0)
    turned: Floats = loadings * np.sign(loadings[largest, np.arange(loadings.shape[1])])
    return turned
