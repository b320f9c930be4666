r"""Orthonormal directions of the columns of a batch, as whoever knows them can make them.

With S = L Lᵀ, L lower triangular in the order of the columns, the directions are
L⁻¹(z - z̄) and the products of a feature with them u = L⁻¹C. They depend on no order of
rows. A column that depends on earlier ones has no direction of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Basis"]

DEPENDENT = 1e-10
"""Share of a column's squares up to which it depends on earlier ones."""


class Basis:
    """Directions of the centred columns of one batch.

    Parameters
    ----------
    gram
        S of the batch: (p, p).

    Examples
    --------
    >>> import numpy as np
    >>> columns = np.array([[0.0, 1], [0, 3], [1, 2], [1, 2]])
    >>> Basis.of(columns).directions(columns).round(2)
    array([[ 0.5 , -0.5 , -0.71],
           [ 0.5 , -0.5 ,  0.71],
           [ 0.5 ,  0.5 ,  0.  ],
           [ 0.5 ,  0.5 ,  0.  ]])
    """

    def __init__(self, gram: NDArray[np.float64]) -> None:
        p = len(gram)
        self.factor = np.zeros((p, p))
        for j in range(p):
            row = self.coordinates(gram[:j, j])
            own = gram[j, j] - (row**2).sum()
            self.factor[j, :j] = row
            self.factor[j, j] = np.sqrt(own) if own > DEPENDENT * gram[j, j] else 0.0

    @classmethod
    def of(cls, columns: NDArray[np.float64]) -> Self:
        """The directions of the columns of some samples: (n, p)."""
        centred = _centred(columns)
        return cls(centred.T @ centred)

    @property
    def rank(self) -> int:
        """Number of directions."""
        return int((np.diag(self.factor) > 0).sum())

    def coordinates(self, products: NDArray[np.float64]) -> NDArray[np.float64]:
        """L⁻¹ of products with the first columns; 0 where a column has no direction."""
        u = np.zeros_like(products, dtype=np.float64)
        for j, product in enumerate(products):
            own = self.factor[j, j]
            if own > 0:
                u[j] = (product - self.factor[j, :j] @ u[:j]) / own
        return u

    def directions(self, columns: NDArray[np.float64]) -> NDArray[np.float64]:
        """Orthonormal columns, a constant the first: (n, 1 + rank)."""
        n = len(columns)
        own = self.coordinates(_centred(columns).T)[np.diag(self.factor) > 0]
        return np.column_stack([np.full(n, n**-0.5), own.T])


def _centred(columns: NDArray[np.float64]) -> NDArray[np.float64]:
    return columns - columns.mean(axis=0) if len(columns) else columns
