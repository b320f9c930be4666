r"""Leading components of a corrected matrix C, centred, which is never formed.

They are eigenvectors of CᵀC, found by block Lanczos in one of three ways:

- few samples, sparse: one read sums C Cᵀ, whose eigenvectors u give those of CᵀC, Cᵀu / σ.
  It takes k/2 multiplications a stored value, with k values stored of a feature;
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
from batchcorr.models.low_rank import with_signs

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from batchcorr.arrays.corrected import CorrectedMatrix

    Floats = NDArray[np.float64]

__all__ = ["components"]

FEW, SHORT = 4096, 600
"""Features or samples, and stored values in a row, up to which CᵀC or C Cᵀ is made."""

NARROW, LARGE = 1e-4, 1e36
"""Tolerances from the first on, and squares up to the second in all, are tried with
products in float32."""


def components(
    centred: CorrectedMatrix, count: int, tolerance: float, random: np.random.Generator
) -> tuple[Floats, Floats, Floats]:
    """The largest variances times n - 1, their loadings (G, k) and scores (n, k).

    What is found by CᵀC, by C Cᵀ or in float32 is checked; where that was not exact enough
    (a component may be small beside the first, or beside the means), the search goes on
    from there in float64.
    """
    find = partial(leading_eigenvectors, count=count, random=random)
    n, size = centred.shape
    added = centred.design.n_batches * (1 + centred.design.columns.shape[1])
    stored = getattr(centred.x, "nnz", 0)
    loadings = None
    if size <= min(n, FEW) and stored <= SHORT * n:
        total = centred.gram()
        variances, loadings, _ = find(total.__matmul__, size, tolerance=tolerance / 2)
    elif n <= FEW and stored and added <= n // 4:
        total = centred.sample_gram()
        variances, left, _ = find(total.__matmul__, n, tolerance=tolerance / 10)
        loadings = (left.T @ centred).T
        loadings /= np.maximum(np.linalg.norm(loadings, axis=0), np.finfo(float).tiny)
    elif (
        centred.dtype == np.float32
        and tolerance >= NARROW
        and centred.var().sum() * n < LARGE
    ):
        variances, loadings, _ = find(
            lambda v: centred.gram_times(v.astype(np.float32)),
            size,
            tolerance=0.8 * tolerance,
        )
    if loadings is not None:
        loadings = with_signs(loadings)
        scores = centred @ loadings
        residuals = (scores.T @ centred).T - loadings * variances
        if (np.linalg.norm(residuals, axis=0) <= tolerance * variances).all():
            return variances, loadings, scores
    variances, loadings, _ = find(
        centred.gram_times, size, tolerance=tolerance, start=loadings
    )
    loadings = with_signs(loadings)
    return variances, loadings, centred @ loadings
