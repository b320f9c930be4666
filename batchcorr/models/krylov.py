r"""Leading eigenvectors of a symmetric operator A, by block Lanczos.

From a first block V the spaces [V, A V, A² V, …] are built up, every block Q_j made
orthogonal to all before it, so that

    A Q = Q T + R E,     Q = [Q_1 … Q_k],  E = [0 … 0 1]

with T = Qᵀ A Q small and R what the next block is made of. The best approximations in
the whole space are the eigenvectors Q y of T (Rayleigh & Ritz), and |A v - λ v| is
|R y_k|, with y_k the last rows of y: nothing large is needed to know it. All blocks are
kept, so that the error falls as a Chebyshev polynomial of the number of products, on
flat spectra too, where subspace iteration stands still.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.linalg import eig_banded

from batchcorr.errors import ConvergenceWarning, warn

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

__all__ = ["leading_eigenvectors"]

MAX_PRODUCTS = 100
BLOCK = 32
"""Vectors multiplied at a time: enough to make good use of each read of the matrix."""

PANEL = 256
"""Columns of the basis that lie in one array: wide enough for fast products."""

LITTLE, ROUNDING = 1e-2, 1e-12
"""Parts of a block's norm: below the first a rest is inexact, below the second nothing."""

NOTHING = 1e-15
"""Residuals below this share of the largest eigenvalue are rounding errors."""

CHECKS = 8
"""T is solved anew each time the space has grown by this part."""


def leading_eigenvectors(
    multiply: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    size: int,
    count: int,
    *,
    tolerance: float,
    random: np.random.Generator,
    start: NDArray[np.float64] | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.float64], int]:
    """Return the largest eigenvalues and their vectors.

    Parameters
    ----------
    multiply
        A V for a block V: (size, k) to (size, k). A is positive semidefinite.
    size
        Order of A.
    count
        How many are wanted.
    tolerance
        Each residual |A v - λ v| is brought under this share of λ.
    random
        Where the first block comes from.
    start
        Vectors that are nearly those wanted, to begin with instead: (size, k).

    Returns
    -------
    eigenvalues
        Descending, (count,).
    eigenvectors
        (size, count).
    products
        How many blocks were multiplied.

    Warns
    -----
    ConvergenceWarning
        If the tolerance was not reached.

    Examples
    --------
    >>> a = np.diag([9.0, 4.0, 1.0, 0.1])
    >>> values, _, _ = leading_eigenvectors(
    ...     lambda v: a @ v, 4, 2, tolerance=1e-9, random=np.random.default_rng(0)
    ... )
    >>> values.round(6).tolist()
    [9.0, 4.0]
    """
    if start is None:
        start = random.standard_normal((size, min(BLOCK, size)))
    block = np.linalg.qr(start)[0]
    basis = _Basis(size)
    small = np.empty((0, 0))
    for products in range(1, MAX_PRODUCTS + 1):
        basis.append(block)
        column, rest, following = basis.divide(multiply(np.ascontiguousarray(block)))
        small = _bordered(small, column)
        last = not following.shape[1]  # the space is invariant: all there is was found
        grown = products % max(1, products // CHECKS) == 0
        if last or products == MAX_PRODUCTS or (len(small) >= count and grown):
            values, vectors = _leading(small, count, start.shape[1])
            residuals = np.linalg.norm(rest @ vectors[-block.shape[1] :], axis=0)
            enough = np.maximum(tolerance * values, NOTHING * values[0])
            done = last or bool((residuals <= enough).all())
            if done:
                break
        block = following
    if not done:
        msg = (
            f"The leading components did not converge to {tolerance:g} in "
            f"{MAX_PRODUCTS} products; the last ones may be inaccurate. Use fewer "
            "components."
        )
        warn(msg, ConvergenceWarning)
    return np.maximum(values, 0.0), basis.combine(vectors), products


class _Basis:
    """Orthonormal columns Q, in panels that are filled and never copied."""

    def __init__(self, size: int) -> None:
        self._size, self._count = size, 0
        self._panels: list[NDArray[np.float64]] = []

    def append(self, block: NDArray[np.float64]) -> None:
        """Set a block beside the others."""
        while block.shape[1]:
            at = self._count % PANEL
            if at == 0:
                self._panels.append(np.empty((self._size, PANEL), order="F"))
            part, block = np.split(block, [PANEL - at], axis=1)
            self._panels[-1][:, at : at + part.shape[1]] = part
            self._count += part.shape[1]

    def _parts(self) -> list[NDArray[np.float64]]:
        starts = range(0, self._count, PANEL)
        pairs = zip(self._panels, starts, strict=True)
        return [panel[:, : self._count - start] for panel, start in pairs]

    def combine(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return Q W."""
        result = np.zeros((self._size, weights.shape[1]))
        for k, part in enumerate(self._parts()):
            result += part @ weights[k * PANEL : k * PANEL + part.shape[1]]
        return result

    def take_out(
        self, block: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return Qᵀ V and V - Q Qᵀ V."""
        inside = np.vstack([part.T @ block for part in self._parts()])
        return inside, block - self.combine(inside)

    def divide(
        self, block: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Return Qᵀ V, what of V is outside of Q, and an orthonormal basis of that.

        Where little is outside it holds rounding errors, which are taken out again;
        what is no more than rounding errors gets no vector in the basis.
        """
        norm = np.linalg.norm(block, axis=0).max(initial=0.0)
        inside, rest = self.take_out(block)
        q, r = np.linalg.qr(rest)
        if np.abs(np.diag(r)).min(initial=norm) < LITTLE * norm or norm == 0:
            again, rest = self.take_out(rest)
            inside += again
            q, r = np.linalg.qr(rest)
            q = q[:, np.abs(np.diag(r)) > ROUNDING * norm]
            q = q[:, : self._size - self._count]
            if q.shape[1]:
                q = np.linalg.qr(self.take_out(q)[1])[0]
        return inside, rest, q


def _bordered(
    small: NDArray[np.float64], column: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return T with one more column of blocks, and the same as a row."""
    known, size = len(small), len(column)
    result = np.zeros((size, size))
    result[:known, :known] = small
    result[:, known:] = column
    result[known:, :known] = column[:known].T
    corner = result[known:, known:]
    result[known:, known:] = (corner + corner.T) / 2
    return result


def _leading(
    small: NDArray[np.float64], count: int, width: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Solve T for its largest eigenvalues: R is triangular, so T is a band."""
    size = len(small)
    width = min(width, size - 1)
    band = np.zeros((width + 1, size))
    for k in range(width + 1):
        band[k, : size - k] = np.diag(small, -k)
    wanted = (max(size - count, 0), size - 1)
    found: Any = eig_banded(band, lower=True, select="i", select_range=wanted)
    values, vectors = found
    return values[::-1], vectors[:, ::-1]
