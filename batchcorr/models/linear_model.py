r"""The linear model with batch intercepts, from its moments alone.

    x[i, g] = α[b, g] + z[i] β[:, g] + ε,        b the batch of row i

By the theorem of Frisch & Waugh the intercepts can be swept out first:

    (Σ_b S_b) β = Σ_b C_b,      α_b = x̄_b - z̄_b β,
    RSS_b = M_b - 2 Σ_j β_j C_b[j] + Σ_jk β_j S_b[j, k] β_k
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from batchcorr.models.namespace import Array, namespace

if TYPE_CHECKING:
    from batchcorr.models.moments import Moments

__all__ = ["BatchEffects", "fit_batches", "fit_coefficients"]

SINGULAR = 1e-12
"""Smallest eigenvalue of the within-batch products, columns scaled to unit norm."""


@dataclass(frozen=True)
class BatchEffects:
    """What the linear model says of B batches and G features.

    Attributes
    ----------
    rows
        Samples in each batch: (B, 1).
    n
        Observed values, or the sum of their weights: (B, 1|G).
    intercepts
        α, the batch's level where all covariates are 0: (B, G).
    residual_squares
        RSS: (B, G).
    constant
        Whether all samples of the batch (two or more) have one and the same value:
        (B, G).
    """

    rows: Array
    n: Array
    intercepts: Array
    residual_squares: Array
    constant: Array

    @property
    def observed(self) -> Array:
        """Whether every batch has a value of the feature: (G,)."""
        xp = namespace(self.intercepts)
        return xp.broadcast_to(xp.all(self.n > 0, axis=0), (self.intercepts.shape[1],))


def fit_coefficients(moments: Moments) -> tuple[Array, Array]:
    """Solve for β; return it with the features for which it could be solved.

    Returns
    -------
    coefficients
        β: (p, G), 0 where the feature's own samples do not determine it.
    solved
        (G,) bool.

    Notes
    -----
    One p × p system when all features share their samples, G of them otherwise. Columns
    are scaled to unit norm, so that the units of a covariate do not matter.
    """
    xp = namespace(moments.mean)
    gram = xp.moveaxis(xp.sum(moments.gram, axis=0), -1, 0)  # (1|G, p, p)
    cross = xp.sum(moments.cross, axis=0)  # (p, G)
    if moments.n_columns == 0:
        return cross, xp.ones_like(moments.mean[0, ...], dtype=xp.bool)
    norms = xp.sqrt(_total_squares(moments, gram)).T  # (p, 1|G)
    norms = xp.where(norms > 0, norms, xp.ones_like(norms))
    scaled = gram / (norms.T[:, :, None] * norms.T[:, None, :])
    solved = xp.linalg.eigvalsh(scaled)[:, 0] > SINGULAR
    eye = xp.eye(moments.n_columns, dtype=scaled.dtype)
    scaled = xp.where(solved[:, None, None], scaled, eye)
    if gram.shape[0] == 1:
        beta = xp.linalg.solve(scaled[0, ...], cross / norms) / norms
    else:
        right = (cross / norms).T[:, :, None]
        beta = xp.linalg.solve(scaled, right)[:, :, 0].T / norms
    solved = xp.broadcast_to(solved, (moments.n_features,))
    return xp.where(solved, beta, xp.zeros_like(beta)), solved


def _total_squares(moments: Moments, gram: Array) -> Array:
    """Return Σ (z - z̄)² of each column over all batches: (1|G, p)."""
    xp = namespace(gram)
    n = moments.n[:, None, :]
    count = xp.sum(n, axis=0)
    count = xp.where(count > 0, count, xp.ones_like(count))
    centre = xp.sum(n * moments.columns, axis=0) / count
    between = xp.sum(n * (moments.columns - centre) ** 2, axis=0)
    return xp.linalg.diagonal(gram) + between.T


def fit_batches(moments: Moments, coefficients: Array) -> BatchEffects:
    """Return intercepts and residuals of each batch, given β."""
    xp = namespace(moments.mean)
    beta = coefficients[None, :, :]  # (1, p, G)
    fitted = xp.sum(moments.columns * beta, axis=1)
    quadratic = xp.sum(moments.gram * beta[:, None, :, :], axis=2)  # S β: (B, p, G)
    squares = (
        moments.squares
        - 2 * xp.sum(beta * moments.cross, axis=1)
        + xp.sum(beta * quadratic, axis=1)
    )
    # Without variance in any batch there is none to explain: what is left is rounding.
    varies = xp.any(moments.squares > 0, axis=0)
    squares = xp.where(varies & (squares > 0), squares, xp.zeros_like(squares))
    constant = (moments.squares == 0) & (moments.rows > 1) & (moments.n == moments.rows)
    return BatchEffects(
        rows=moments.rows,
        n=moments.n,
        intercepts=moments.mean - fitted,
        residual_squares=squares,
        constant=constant,
    )
