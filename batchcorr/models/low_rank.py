r"""A correction of how features vary together: an affine map of a few scores.

    s = (x - a - z β) / d  V,        y = x + ((r_b s + t_b) - s) (V d)ᵀ

with a and d centre and scale of the features, V (G, k) of orthonormal columns, and r, t by
batch and score: what V does not span stays as it is.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from scipy.linalg import eigh

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from batchcorr.models.namespace import Matrix

    Floats = NDArray[np.float64]

__all__ = ["LowRank", "leading_vectors", "principal_components", "with_signs"]

NOTHING = 1e-13
"""Share of the largest squared singular value under which one is a rounding error."""


@dataclass(frozen=True)
class LowRank:
    """The frozen map.

    Attributes
    ----------
    rotation
        V: (G, k), 0 of features that take no part.
    centre, deviation
        a and d: (G,).
    scale, shift
        r and t: (B, k).
    """

    rotation: Floats
    centre: Floats
    deviation: Floats
    scale: Floats
    shift: Floats

    def scores(self, x: Matrix, columns: Floats, coefficients: Floats) -> Matrix:
        """The scores s of samples with design columns z: (n, k)."""
        reading = self.rotation / self.deviation[:, None]
        known = columns @ (coefficients @ reading) + self.centre @ reading
        return x @ reading - known

    def moved(self, scores: object, codes: NDArray[np.integer]) -> Matrix:
        """What to add to values of samples of batches `codes`: (n, G)."""
        by_sample = scores * (self.scale[codes] - 1) + self.shift[codes]
        return by_sample @ (self.rotation * self.deviation[:, None]).T

    def inverse(self) -> LowRank:
        """The map back, to be applied before the affine part is undone."""
        return replace(self, scale=1 / self.scale, shift=-self.shift / self.scale)


def leading_vectors(products: Floats, count: int, *, floor: float = 0.0) -> Floats:
    """The first eigenvectors of products of samples, no more than the rank: (n, ≤ count).

    Parameters
    ----------
    products
        X Xᵀ: (n, n).
    count
        Vectors to find.
    floor
        Squared singular value under which one is a rounding error, whatever the largest.
    """
    n = len(products)
    last = [n - min(max(count, 1), n), n - 1]
    values, vectors = eigh(products, subset_by_index=last)
    rank = int((values > max(floor, NOTHING * values[-1])).sum())
    return vectors[:, ::-1][:, : min(count, rank)]


def principal_components(x: Floats) -> tuple[Floats, Floats]:
    """The components of centred values (n, G): squares, falling, and loadings.

    Returns
    -------
    squares
        Squared singular values that are not rounding errors: (k,).
    loadings
        V, the largest entry of each positive: (G, k).
    """
    n, n_features = x.shape
    wide = n < n_features
    squares, vectors = np.linalg.eigh(x @ x.T if wide else x.T @ x)
    real = squares > 1e-12 * max(float(squares[-1]), 0.0)
    squares, vectors = squares[real][::-1], vectors[:, real][:, ::-1]
    if wide:
        vectors = x.T @ vectors / np.sqrt(squares)
    return squares, with_signs(vectors)


def with_signs(vectors: Floats) -> Floats:
    """The vectors, turned so that the largest entry of each is positive."""
    largest = np.argmax(np.abs(vectors), axis=0)
    turned: Floats = vectors * np.sign(vectors[largest, np.arange(vectors.shape[1])])
    return turned
