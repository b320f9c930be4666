"""What sums of squares and products determine, where they leave something open."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

__all__ = ["Determined", "determined", "generalized_inverse"]

ZERO = 1e-10
"""Share of the largest eigenvalue that is none, columns scaled to unit norm."""

ESTIMABLE = 1e-8
"""How far a contrast may be from what the samples determine."""


class Determined(NamedTuple):
    """Contrasts of g features by least squares; NaN where they are not determined.

    Attributes
    ----------
    coefficient
        c β: (k, g).
    covariance
        Their covariance for σ² = 1: (k, k, g).
    explained
        Squares that the columns explain: (g,).
    rank
        Columns that are determined: (g,).
    """

    coefficient: Floats
    covariance: Floats
    explained: Floats
    rank: Floats


def generalized_inverse(gram: Floats) -> tuple[Floats, int]:
    """The inverse of XᵀX (p, p) on what it determines, and its rank."""
    size = _sizes(gram)
    scaled = gram / np.outer(size, size)
    inverse = np.linalg.pinv(scaled, rcond=ZERO, hermitian=True)
    rank = int(np.linalg.matrix_rank(scaled, tol=ZERO, hermitian=True))
    return inverse / np.outer(size, size), rank


def determined(gram: Floats, cross: Floats, contrasts: Floats) -> Determined:
    """The contrasts that the samples determine.

    Parameters
    ----------
    gram, cross
        XᵀX (g, p, p) and Xᵀy (p, g) of each feature.
    contrasts
        Weights of the columns: (k, p).
    """
    size = _sizes(gram)
    scaled = gram / (size[:, :, None] * size[:, None, :])
    v = np.linalg.pinv(scaled, rcond=ZERO, hermitian=True)
    weights = contrasts / size[:, None, :]  # of the scaled columns
    missed = np.abs(weights - weights @ v @ scaled).max(axis=2)
    known = missed <= ESTIMABLE * np.abs(weights).max(axis=2)
    right = (cross.T / size)[:, :, None]
    beta = v @ right
    inner = weights @ v @ np.swapaxes(weights, 1, 2)
    both = known[:, :, None] & known[:, None, :]
    return Determined(
        coefficient=np.where(known, (weights @ beta)[:, :, 0], np.nan).T,
        covariance=np.moveaxis(np.where(both, inner, np.nan), 0, -1),
        explained=(right * beta).sum(axis=(1, 2)),
        rank=np.linalg.matrix_rank(scaled, tol=ZERO, hermitian=True),
    )


def _sizes(gram: Floats) -> Floats:
    """The norm of each column, 1 where it is 0: (…, p)."""
    size = np.sqrt(np.einsum("...ii->...i", gram))
    return np.where(size > 0, size, 1.0)
