r"""Leading eigenvectors of a symmetric operator A, by block Lanczos.

From a random block the spaces [V, A V, A² V, …] are built up, every block made
orthogonal to all before it; the best approximations in the whole space are the
eigenvectors of Qᵀ A Q (Rayleigh & Ritz). All blocks are kept, so that the error falls as
a Chebyshev polynomial of the number of products, on flat spectra too, where subspace
iteration stands still.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from batchcorr.errors import ConvergenceWarning, warn

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

__all__ = ["leading_eigenvectors"]

BLOCK = 32
"""Vectors multiplied at a time: enough to make good use of each read of the matrix."""


def leading_eigenvectors(
    multiply: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    size: int,
    count: int,
    *,
    tolerance: float,
    random: np.random.Generator,
    max_products: int = 100,
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
    max_products
        Blocks multiplied at most.

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
    width = min(BLOCK, size)
    block, _ = np.linalg.qr(random.standard_normal((size, width)))
    basis, images = np.empty((size, 0)), np.empty((size, 0))
    for products in range(1, max_products + 1):
        basis = np.hstack([basis, block])
        images = np.hstack([images, multiply(np.ascontiguousarray(block))])
        small = basis.T @ images
        values, vectors = np.linalg.eigh((small + small.T) / 2)
        values, vectors = values[::-1][:count], vectors[:, ::-1][:, :count]
        full = basis.shape[1] >= size
        if basis.shape[1] >= count:
            residual = images @ vectors - (basis @ vectors) * values
            norms = np.linalg.norm(residual, axis=0)
            scale = np.maximum(values, 1e-14 * max(values[0], 1e-300))
            if full or bool((norms <= tolerance * scale).all()):
                return np.maximum(values, 0.0), basis @ vectors, products
        block = _orthogonal_to(basis, images[:, -width:])
        if not block.shape[1]:  # the space is invariant: all there is was found
            return np.maximum(values, 0.0), basis @ vectors, products
        width = block.shape[1]
    msg = (
        f"The leading components did not converge to {tolerance:g} in {max_products} "
        "products; the last ones may be inexact. Ask for fewer components."
    )
    warn(msg, ConvergenceWarning)
    return np.maximum(values, 0.0), basis @ vectors, max_products


def _orthogonal_to(
    basis: NDArray[np.float64], block: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return an orthonormal basis of what is new in a block, twice made orthogonal."""
    norm = np.linalg.norm(block, axis=0).max(initial=0.0)
    for _ in range(2):
        block = block - basis @ (basis.T @ block)
    q, r = np.linalg.qr(block)
    new = np.abs(np.diag(r)) > 1e-12 * norm
    room = basis.shape[0] - basis.shape[1]
    q = q[:, new][:, :room]
    q = q - basis @ (basis.T @ q)
    return np.linalg.qr(q)[0] if q.shape[1] else q
