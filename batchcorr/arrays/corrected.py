r"""The corrected matrix C that is never formed: its rows, products and moments.

    C = r_b ∘ X + s_b + (1 - r_b) ∘ Z β - W η        (row by row, b the batch of the row)

so that a product with C is one with X, whose columns were scaled, and a few small ones:
as BatchNorm is folded into the next layer (`products`). X stays as it is, sparse if it
is sparse.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import scipy.sparse.linalg as spla

from batchcorr.arrays.passes import apply
from batchcorr.arrays.products import (
    arranged,
    gram,
    gram_times,
    sample_gram,
    times,
    transposed_times,
)
from batchcorr.errors import InputError
from batchcorr.models.location_scale import LocationScale

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from batchcorr.design.design import Design
    from batchcorr.models.moments import Moments
    from batchcorr.models.namespace import Matrix

__all__ = ["CorrectedMatrix"]


@dataclass(frozen=True)
class CorrectedMatrix:
    """A matrix, the batches of its rows, and a correction: together the corrected one.

    Index it with rows and features to have that part made; multiply it; or hand it to
    anything that takes a SciPy `LinearOperator`.

    Attributes
    ----------
    x
        The matrix, (n, G).
    design
        Batch and columns of each row.
    correction
        The frozen correction.
    moments
        Moments of the same rows, from which means and variances are told.

    Examples
    --------
    >>> import numpy as np, batchcorr as bc
    >>> adata = bc.datasets.bladder()
    >>> corrected = bc.corrected(adata, "batch", method="standardize")
    >>> corrected.shape
    (57, 22283)
    >>> corrected[:3, [10, 20]].shape
    (3, 2)
    >>> (corrected @ np.ones((22283, 1))).shape
    (57, 1)
    """

    x: Matrix
    design: Design
    correction: LocationScale
    moments: Moments

    __array_ufunc__ = None  # U @ C is for C to compute, not for U

    @classmethod
    def unchanged(cls, x: Matrix, design: Design, moments: Moments) -> Self:
        """A matrix as it is, for what is made for corrected ones."""
        one, none = np.ones(moments.mean.shape), np.zeros((0, x.shape[1]))
        return cls(x, design, LocationScale(one, 0 * one, none, none), moments)

    def __repr__(self) -> str:
        """Say what this is, not all that it holds."""
        kind = f"{type(self.x).__module__.partition('.')[0]} {type(self.x).__name__}"
        batches = self.design.n_batches
        return (
            f"CorrectedMatrix of {self.shape[0]} × {self.shape[1]} {self.dtype}, not "
            f"formed: a {kind} with corrections of {batches} batches"
        )

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and features."""
        return int(self.x.shape[0]), int(self.x.shape[1])

    @property
    def dtype(self) -> np.dtype:
        """The dtype of values that are made."""
        dtype: np.dtype = np.dtype(self.x.dtype)
        return dtype

    def __getitem__(self, key: object) -> Matrix:
        """Make a part: rows, or rows and features; always two-dimensional."""
        rows, features = key if isinstance(key, tuple) else (key, slice(None))
        rows, features = _listed(rows, self.shape[0]), _listed(features, self.shape[1])
        part = _part(self.x, rows, features)
        return apply(part, self.design.take(rows), self.correction.select(features))

    def __matmul__(self, right: object) -> Matrix:
        """Return C V for a vector or a matrix V."""
        return _columns(times, self, right)

    def __rmatmul__(self, left: object) -> Matrix:
        """Return U C for a vector or a matrix U, such as the sums of groups of rows."""
        return _columns(transposed_times, self, _dense(left).T).T

    def gram_times(self, right: NDArray[np.generic]) -> Matrix:
        """Return Cᵀ C V, reading the matrix once.

        Vectors and matrix in float32 are multiplied in float32, in less time; the sums
        of many rows are added up in float64 all the same.
        """
        narrow = np.asarray(right).dtype == self.dtype == np.float32
        return _columns(gram_times, self, right, np.float32 if narrow else np.float64)

    def gram(self) -> NDArray[np.float64]:
        """Return Cᵀ C, (G, G), reading the matrix once: for few features."""
        result: NDArray[np.float64] = gram(self._arranged, self.design, self.correction)
        return result

    def sample_gram(self) -> NDArray[np.float64]:
        """Return C Cᵀ, (n, n), reading the matrix once: for few samples."""
        result: NDArray[np.float64] = sample_gram(
            self._arranged, self.design, self.correction
        )
        return result

    def mean(self) -> NDArray[np.float64]:
        """Return the mean of each feature, (G,): from the moments, without a pass."""
        sums = self._moments
        weights = sums.n / np.maximum(sums.n.sum(axis=0), 1)
        total: NDArray[np.float64] = (weights * sums.mean).sum(axis=0)
        return total

    def var(self) -> NDArray[np.float64]:
        """Return the variance of each feature, divisor n - 1, (G,)."""
        sums = self._moments
        between = sums.n * (sums.mean - self.mean()) ** 2
        n = np.maximum(sums.n.sum(axis=0) - 1, 1)
        variance: NDArray[np.float64] = (sums.squares + between).sum(axis=0) / n
        return variance

    def centred(self) -> CorrectedMatrix:
        """Return the matrix less the mean of each feature."""
        shift = self.correction.shift - self.mean()
        return replace(self, correction=replace(self.correction, shift=shift))

    def select(self, features: object) -> CorrectedMatrix:
        """Return the matrix of some features only."""
        features = _listed(features, self.shape[1])
        return CorrectedMatrix(
            self.x[:, features],
            self.design,
            self.correction.select(features),
            self.moments.select_features(features),
        )

    def as_linear_operator(self) -> spla.LinearOperator:
        """Return the matrix as SciPy's solvers take it."""
        return spla.LinearOperator(
            self.shape,
            matvec=lambda v: self @ v,
            matmat=lambda v: self @ v,
            rmatvec=lambda u: u @ self,
            rmatmat=lambda u: (u.T @ self).T,
            dtype=np.float64,
        )

    @cached_property
    def _arranged(self) -> Matrix:
        return arranged(self.x)

    @cached_property
    def _moments(self) -> Moments:
        """Those of the corrected values."""
        return self.correction.moments(self.moments, self.design.kept)


def _columns(
    product: Callable[..., NDArray[np.float64]],
    matrix: CorrectedMatrix,
    right: object,
    dtype: type[np.floating] = np.float64,
) -> Matrix:
    """Multiply a vector as a matrix of one column."""
    right = _dense(right)
    length = matrix.shape[0] if product is transposed_times else matrix.shape[1]
    if right.ndim not in (1, 2) or right.dtype.kind not in "buif":
        msg = (
            "The corrected matrix can be multiplied by vectors and matrices of real "
            f"numbers, not by {right.dtype} of shape {right.shape}."
        )
        raise InputError(msg)
    if right.shape[0] != length:
        msg = (
            f"The corrected matrix is {matrix.shape[0]} × {matrix.shape[1]}: the other "
            f"factor must have length {length} on the shared axis, not "
            f"{right.shape[0]}."
        )
        raise InputError(msg)
    right = right.astype(dtype, copy=False)
    wide = right[:, None] if right.ndim == 1 else right
    result = product(
        matrix._arranged, matrix.design, matrix.correction, np.ascontiguousarray(wide)
    )
    return result[:, 0] if right.ndim == 1 else result


def _dense(factor: object) -> NDArray[Any]:
    return np.asarray(factor.toarray() if hasattr(factor, "toarray") else factor)


def _part(x: Matrix, rows: object, features: object) -> Matrix:
    """Return rows and features of a matrix, with no copy of all of it."""
    if isinstance(rows, slice):
        return x if isinstance(features, slice) else x[:, features]
    if isinstance(features, slice):
        return x[rows]
    by_column = getattr(x, "format", "") == "csc"
    return x[:, features][rows] if by_column else x[rows][:, features]


def _listed(key: Any, length: int) -> Any:
    """Return positions for whatever an axis can be indexed with."""
    if isinstance(key, slice) and key == slice(None):
        return key
    if np.isscalar(key):
        key = [key]
    try:
        return np.arange(length)[key]
    except IndexError as error:
        msg = (
            f"{key!r:.60} is not an index of {length} rows or features: give "
            "positions, a slice or a boolean mask; for names use "
            "adata.var_names.get_indexer(names)."
        )
        raise InputError(msg) from error
