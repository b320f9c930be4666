r"""The linear model with batch intercepts, from its moments alone.

    x[i, g] = α[b, g] + z[i] β[:, g] + ε,        b the batch of row i

By the theorem of Frisch & Waugh the intercepts can be swept out first:

    V = (Σ_b S_b)⁻¹,      β = V Σ_b C_b,      α_b = x̄_b - z̄_b β,
    RSS_b = M_b - Σ_j β_j (2 C_b - S_b β)_j

A batch of n_b samples has n_b - 1 - tr(V S_b) residual degrees of freedom: its samples'
share of the n - B - p in all, E RSS_b = σ² times it. With 0 its columns fit it exactly.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

from batchcorr.models.namespace import Array, Namespace, namespace

if TYPE_CHECKING:
    from batchcorr.models.moments import Moments

__all__ = ["PERFECT", "LinearFit"]

SINGULAR = 1e-12
"""Smallest eigenvalue of the within-batch products, columns scaled to unit norm."""

PERFECT = 1e-12
"""Residual squares under this share of the terms they come from are rounding errors."""

ROUNDING = 1e-25
"""The same, as a share of the sum of all values squared."""

EXPLAINED = 1e-6
"""Residual degrees of freedom under which a batch has none."""


@dataclass(frozen=True)
class LinearFit:
    """The fit of B batches, G features and p columns; axes written 1|G as in `Moments`.

    Attributes
    ----------
    rows
        Samples in each batch: (B, 1).
    n
        Observed values, or the sum of their weights: (B, 1|G).
    coefficients
        β: (p, G), 0 where the feature's own samples do not determine it.
    covariance
        V, the covariance of β for σ² = 1: (p, p, 1|G); 0 where β was given.
    solved
        Whether the feature's own samples determine β: (G,).
    means
        Mean of each column over the samples of all batches: (p, 1|G).
    intercepts
        α, the batch's level where all columns are 0: (B, G).
    squares
        M, the squares about the batch's mean: (B, G).
    residual_squares
        RSS: (B, G), 0 where nothing but rounding is left.
    df_by_batch
        Residual degrees of freedom of each batch: (B, 1|G).
    observed
        Whether every batch has a value of the feature: (G,).
    explained
        Whether columns fit the samples of a batch, two or more, exactly: (B, 1|G).
    constant
        Whether a batch (of two or more, none missing) has but one value, after the
        columns are accounted for; not where they explain everything: (B, G).
    """

    rows: Array
    n: Array
    coefficients: Array
    covariance: Array
    solved: Array
    means: Array
    intercepts: Array
    squares: Array
    residual_squares: Array
    df_by_batch: Array
    observed: Array
    explained: Array
    constant: Array

    @classmethod
    def of(
        cls,
        moments: Moments,
        coefficients: Array | None = None,
        counts: Array | None = None,
    ) -> Self:
        """Fit the model, or find only intercepts and residuals for a β that is given.

        Parameters
        ----------
        moments
            Of all batches.
        coefficients
            β, if it is known: (p, G).
        counts
            Observed values of each batch, where `moments.n` sums weights: (B, 1|G).

        Notes
        -----
        One p × p system when all features share their samples, G of them otherwise.
        Columns are scaled to unit norm, so that the units of a covariate do not matter.
        O(B p G) memory.

        Examples
        --------
        >>> import numpy as np
        >>> from batchcorr.arrays import moments
        >>> from batchcorr.design.design import Design
        >>> z = np.array([[0.0], [1], [3], [0], [2]])
        >>> x = np.array([1.0, 1, 1, 5, 5])[:, None] + 2 * z
        >>> fit = LinearFit.of(moments(x, Design.of([0, 0, 0, 1, 1], covariates=z)))
        >>> fit.coefficients.round(9).tolist(), fit.intercepts.T.round(9).tolist()
        ([[2.0]], [[1.0, 5.0]])
        >>> fit.df_by_batch.sum().round(9).item()  # 5 samples, 2 batches, 1 column
        2.0
        """
        xp = namespace(moments.mean)
        if coefficients is None:
            beta, covariance, solved = _solve(xp, moments)
        else:
            beta = coefficients
            covariance = xp.zeros_like(moments.gram[0, ...])
            solved = xp.ones_like(moments.mean[0, ...], dtype=xp.bool)
        squares = moments.squares - xp.sum(
            beta * (2 * moments.cross - _times(xp, moments.gram, beta)), axis=1
        )
        counts = moments.n if counts is None else counts
        df = counts - 1 - _traces(xp, covariance, moments.gram)
        explained = (counts > 1) & (df <= EXPLAINED)
        # What is left of a perfect fit is rounding: of the terms that cancel in it, or of
        # coefficients that would be 0.
        varies = xp.any(moments.squares > 0, axis=0)
        diagonal = xp.linalg.diagonal(xp.moveaxis(moments.gram, 3, 1))  # (B, 1|G, p)
        terms = xp.moveaxis(diagonal, 2, 1) * beta**2
        left = squares > PERFECT * (moments.squares + xp.sum(terms, axis=1))
        sizes = xp.sum(moments.squares + moments.n * moments.mean**2, axis=0)
        left = varies & left & (squares > ROUNDING * sizes) & ~explained
        squares = xp.where(left, squares, xp.zeros_like(squares))
        alone = (moments.rows > 1) & (moments.n == moments.rows)
        same = ((squares == 0) & ~explained) | (moments.squares == 0)
        every = xp.all(moments.n > 0, axis=0)
        return cls(
            rows=moments.rows,
            n=moments.n,
            coefficients=beta,
            covariance=covariance,
            solved=solved,
            means=_means(xp, moments),
            intercepts=moments.mean - xp.sum(moments.columns * beta, axis=1),
            squares=moments.squares,
            residual_squares=squares,
            df_by_batch=df,
            observed=xp.broadcast_to(every, moments.mean.shape[1:]),
            explained=explained,
            constant=alone & same,
        )

    @property
    def n_columns(self) -> int:
        """Number of columns, p."""
        return int(self.coefficients.shape[0])

    @property
    def n_features(self) -> int:
        """Number of features, G."""
        return int(self.intercepts.shape[1])

    @property
    def df(self) -> Array:
        """Residual degrees of freedom, n - B - p: (1|G,)."""
        xp = namespace(self.n)
        batches = xp.sum(xp.astype(self.n > 0, self.n.dtype), axis=0)
        return xp.sum(self.n, axis=0) - batches - self.n_columns

    def in_columns(self, factor: Array, offset: Array) -> Self:
        """The same fit in other columns: z = z' F + o_b for these z' and batch b.

        Parameters
        ----------
        factor
            F: (p, p), upper triangular.
        offset
            o: (B, p).
        """
        xp = namespace(self.coefficients)
        count = xp.sum(self.n, axis=0)
        count = xp.where(count > 0, count, xp.ones_like(count))
        beta = xp.linalg.solve(factor, self.coefficients)
        back = xp.linalg.inv(factor)
        inner = xp.tensordot(back, self.covariance, axes=((1,), (0,)))
        covariance = xp.tensordot(inner, back.T, axes=((1,), (0,)))
        return replace(
            self,
            coefficients=beta,
            covariance=xp.permute_dims(covariance, (0, 2, 1)),
            means=xp.matmul(factor.T, self.means) + xp.matmul(offset.T, self.n) / count,
            intercepts=self.intercepts - offset @ beta,
        )


def _solve(xp: Namespace, moments: Moments) -> tuple[Array, Array, Array]:
    """β (p, G), V (p, p, 1|G), and the features for which they could be found (G,)."""
    gram = xp.moveaxis(xp.sum(moments.gram, axis=0), -1, 0)  # (1|G, p, p)
    cross = xp.sum(moments.cross, axis=0)  # (p, G)
    p, n_features = cross.shape
    if p == 0:
        every = xp.ones_like(moments.mean[0, ...], dtype=xp.bool)
        return cross, moments.gram[0, ...], every
    norms = xp.sqrt(_total_squares(xp, moments, gram))  # (1|G, p)
    norms = xp.where(norms > 0, norms, xp.ones_like(norms))
    scaled = gram / (norms[:, :, None] * norms[:, None, :])
    solved = xp.linalg.eigvalsh(scaled)[:, 0] > SINGULAR
    eye = xp.eye(p, dtype=scaled.dtype)
    scaled = xp.where(solved[:, None, None], scaled, eye)
    right = cross / norms.T
    if gram.shape[0] == 1:
        found = xp.linalg.solve(scaled[0, ...], xp.concat([right, eye], axis=1))
        beta, inverse = found[:, :-p], found[None, :, -p:]
    else:
        eyes = xp.broadcast_to(eye, scaled.shape)
        found = xp.linalg.solve(scaled, xp.concat([right.T[:, :, None], eyes], axis=2))
        beta, inverse = found[:, :, 0].T, found[:, :, 1:]
    beta = beta / norms.T
    covariance = inverse / (norms[:, :, None] * norms[:, None, :])
    every = xp.broadcast_to(solved, (n_features,))
    return (
        xp.where(every, beta, xp.zeros_like(beta)),
        xp.moveaxis(covariance, 0, -1),
        every,
    )


def _total_squares(xp: Namespace, moments: Moments, gram: Array) -> Array:
    """Σ (z - z̄)² of each column over all batches: (1|G, p)."""
    n = moments.n[:, None, :]
    between = xp.sum(n * (moments.columns - _means(xp, moments)) ** 2, axis=0)
    return xp.linalg.diagonal(gram) + between.T


def _means(xp: Namespace, moments: Moments) -> Array:
    """Mean of each column over all batches: (p, 1|G)."""
    n = moments.n[:, None, :]
    count = xp.sum(n, axis=0)
    count = xp.where(count > 0, count, xp.ones_like(count))
    return xp.sum(n * moments.columns, axis=0) / count


def _times(xp: Namespace, gram: Array, beta: Array) -> Array:
    """S_b β of each batch, (B, p, G): column by column, so that no p² G is formed."""
    if gram.shape[-1] == 1 or beta.shape[0] == 0:
        return xp.matmul(gram[..., 0], beta)
    found = gram[:, :, 0, :] * beta[0, :]
    for k in range(1, beta.shape[0]):
        found = found + gram[:, :, k, :] * beta[k, :]
    return found


def _traces(xp: Namespace, covariance: Array, gram: Array) -> Array:
    """tr(V S_b) of each batch: (B, 1|G)."""
    found = xp.sum(gram[:, :, :0, :], axis=(1, 2))
    for k in range(gram.shape[2]):
        found = found + xp.sum(covariance[:, k, :] * gram[:, :, k, :], axis=1)
    return found
