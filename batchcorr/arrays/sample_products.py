"""Products between samples, X Xᵀ over some features, of any kind of matrix.

They are n × n and dense; X is read as it is stored: sparse matrices and Dask arrays are
not made dense as a whole.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from batchcorr.models.namespace import to_numpy

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from batchcorr.models.namespace import Matrix

    Floats = NDArray[np.float64]

__all__ = ["in_memory", "products_with", "sample_products", "scores"]


def in_memory(x: Matrix) -> Floats:
    """A matrix of any kind as a dense NumPy array of float64: (n, G)."""
    x = x.compute() if hasattr(x, "dask") else x
    x = x.toarray() if hasattr(x, "toarray") else x
    dense: Floats = np.asarray(to_numpy(x), dtype=np.float64)
    return dense


def sample_products(x: Matrix, features: NDArray[np.bool_] | None = None) -> Floats:
    """The products of samples over all features, or some: (n, n).

    Parameters
    ----------
    x
        (n, G).
    features
        The features to sum over: (G,).

    Examples
    --------
    >>> sample_products(np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([True, False]))
    array([[1., 3.],
           [3., 9.]])
    """
    wide = _wide(x if features is None else x[:, np.flatnonzero(features)])
    return in_memory(wide @ wide.T)


def products_with(x: Matrix, columns: Floats) -> Floats:
    """Xᵀ W: what each feature has in common with columns of the samples: (G, k)."""
    wide = _wide(x).T
    if hasattr(wide, "dask"):
        import dask.array as da

        columns = da.from_array(columns, chunks=(wide.chunks[1], -1))
    return in_memory(wide @ columns)


def scores(x: Matrix, loadings: Floats) -> Floats:
    """X L: the scores of samples on loadings of the features, (n, k)."""
    return in_memory(_wide(x) @ loadings)


def _wide(x: Matrix) -> Matrix:
    """A matrix in float64, so that sums are; the blocks of a Dask array dense, one by one."""
    if hasattr(x, "dask"):
        return x.map_blocks(in_memory, dtype=np.float64, meta=np.empty((0, 0)))
    return x.astype(np.float64) if hasattr(x, "toarray") else in_memory(x)
