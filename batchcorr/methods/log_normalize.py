r"""Logarithms of counts, relative to the library size of each sample.

    y = log(1 + T x / L_i)                            zeros stay zeros
    y = log2 (T (x + p_i) / (L_i + 2 p_i)),           p_i = prior · L_i / L̄

L is the effective library of a sample, T the library that all are scaled to. On this
scale batch effects that multiply counts have become shifts, which batch-effect
correction removes.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from batchcorr.arrays.log_scale import log_scale, log_shifted
from batchcorr.errors import InputError, did_you_mean
from batchcorr.estimators.densify import allow_dense
from batchcorr.estimators.library_sizes import LibrarySizes
from batchcorr.estimators.matrix import FLOATS, is_sparse
from batchcorr.estimators.raw_counts import is_dask
from batchcorr.estimators.record import MethodRecord
from batchcorr.models.counts.size_factors import METHODS

if TYPE_CHECKING:
    from batchcorr.estimators.metadata import Labels
    from batchcorr.models.namespace import Matrix

__all__ = ["LogNormalize"]


class LogNormalize(LibrarySizes):
    r"""Scale raw counts to a common library size and take logarithms.

    .. math:: y_{ij} = \log(1 + x_{ij} / s_i), \qquad s_i = L_i / T

    With `prior_count` c, as edgeR's ``cpm(log=TRUE)``:

    .. math::
        y_{ij} = \log_2 \frac{T (x_{ij} + p_i)}{L_i + 2 p_i}, \qquad
        p_i = c\, L_i / \bar L

    Parameters
    ----------
    method
        How the effective library size L of a sample is computed. ``"total"``: its total
        count; ``"tmm"``, ``"tmmwsp"``, ``"rle"`` or ``"upperquartile"``: total count
        times normalization factor; ``"median_of_ratios"`` or ``"poscounts"``:
        proportional to the size factor. See `normalization_factors`.
    target_sum
        T. None: the median of L over the samples of `fit` that have counts, as in
        scanpy; for ``"median_of_ratios"`` and ``"poscounts"`` the value that makes s
        DESeq's size factors; with `prior_count` a million.
    base
        Base of the logarithm. None: natural, and 2 with `prior_count`.
    prior_count
        None: 1 is added to scaled counts, so that zeros stay zeros and sparse matrices
        sparse. A positive number: p is added to the counts, equal to this number in a
        sample of mean library size and proportional to the library size in others; the
        result is dense.
    copy
        False: `transform` may overwrite X.

    Attributes
    ----------
    size_factors_ : ndarray or None
        s of the samples of `fit`, the number that their counts are divided by, (n,); 1
        for samples without counts. Not saved; None if `fit` read nothing (see Notes).
    target_sum_ : float
        T.
    mean_library_ : float or None
        Mean of L over the samples of `fit` that have counts; None if it read nothing.
    reference_ : Reference
        What samples are compared with: the reference sample of TMM, or the geometric
        means of the features.

    Raises
    ------
    InputError
        If values are not counts, or the counts are too sparse for the method.

    Warns
    -----
    EmptySampleWarning
        If samples have no counts. They stay zeros; with `prior_count` they get the
        value that a zero count has in every sample.
    LogScaleWarning
        If the values look like logarithms already.

    Notes
    -----
    A step before batch-effect correction, alone or in a scikit-learn Pipeline; it needs
    no batch. `fit` freezes T, L̄ and the reference, so that `transform` gives the same
    result for a sample whether it comes alone or with others. One pass computes the
    totals, and one scales and log-transforms blocks of rows.

    For a Dask array `transform` is lazy: values that are not counts raise an error when
    the blocks of the result are computed. `fit` reads every block once for ``"total"``,
    three times for ``"tmm"`` and twice for the other methods; with ``"total"``, a
    `target_sum` and no `prior_count` it reads nothing.

    float64 gives float64; float32 and integers of any width give float32, with totals in
    float64. Features without counts stay zeros. Equal to scanpy's ``normalize_total``
    and ``log1p`` to rounding, except that empty cells never take part in the median (in
    scanpy 1.11 they do for CSR, and do not for dense matrices).

    References
    ----------
    Robinson & Oshlack (2010), Genome Biology 11:R25; Wolf, Angerer & Theis (2018),
    Genome Biology 19:15; R package edgeR, `calcNormFactors` and `cpm`.

    Examples
    --------
    >>> import numpy as np
    >>> counts = np.array([[0, 1, 9], [0, 6, 14]])
    >>> LogNormalize(target_sum=10).fit_transform(counts).round(2)
    array([[0.  , 0.69, 2.3 ],
           [0.  , 1.39, 2.08]], dtype=float32)
    """

    record: ClassVar = MethodRecord(
        "log_normalize", scale="counts", normalizes=True, testable=True
    )

    def __init__(
        self,
        method: str = "total",
        *,
        target_sum: float | None = None,
        base: float | None = None,
        prior_count: float | None = None,
        copy: bool = True,
    ) -> None:
        self.method = method
        self.target_sum = target_sum
        self.base = base
        self.prior_count = prior_count
        self.copy = copy

    @property
    def keeps_sparse_(self) -> bool:
        """Zeros stay zeros unless a prior count is added to them."""
        return self.prior_count is None

    @property
    def log_base_(self) -> float:
        """Base of the logarithms."""
        return self.base or (math.e if self.prior_count is None else 2.0)

    def fit(self, X: object, y: object = None) -> Self:
        """Compute target library size and reference from the counts of these samples.

        Parameters
        ----------
        X
            Raw counts, samples × features: NumPy array, DataFrame, SciPy sparse, or a
            Dask array of these.
        y
            Ignored.

        Returns
        -------
        The estimator itself.
        """
        self.fit_counts(X)
        return self

    def transform(self, X: object) -> Matrix:
        """Scale samples and take logarithms, each sample by itself.

        Parameters
        ----------
        X
            Raw counts, samples × features, the features of `fit`.

        Returns
        -------
        Logarithms, (n, G); sparse if X is sparse and `prior_count` is None.
        """
        x, found = self._measure(X)
        return self.logarithms(x, found, self._place(X, x))

    def fit_transform(self, X: object, y: object = None) -> Matrix:
        """Fit to samples and transform the same samples.

        Parameters
        ----------
        X
            Raw counts, samples × features.
        y
            Ignored.

        Returns
        -------
        Logarithms, (n, G); sparse if X is sparse and `prior_count` is None.
        """
        x, found = self.fit_counts(X)
        return self.logarithms(x, found, self._place(X, x))

    def _apply(
        self, x: Matrix, labels: Labels, out: Matrix, *, dense: bool | None
    ) -> Matrix:
        x, found = self._measure(x)
        out = out if out is x and x.dtype in FLOATS else None
        return self.logarithms(x, found, out, dense=dense)

    def _check_parameters(self) -> None:
        if self.method not in METHODS:
            msg = f"There is no size factor method {self.method!r}. "
            raise InputError(msg + did_you_mean(self.method, METHODS))
        for name in ("target_sum", "base", "prior_count"):
            value = getattr(self, name)
            if value is not None and not (
                isinstance(value, int | float | np.number) and 0 < value < math.inf
            ):
                msg = f"{name} must be a positive number or None, not {value!r}."
                raise InputError(msg)
        if self.base == 1:
            msg = "base must not be 1: use 2 or 10, for example."
            raise InputError(msg)

    def _place(self, X: Matrix, x: Matrix) -> Matrix:
        """Return where to write: X itself if it may and can be written to."""
        if self.copy or x is not X or x.dtype not in FLOATS or is_dask(x):
            return None
        if is_sparse(x):
            fits = self.prior_count is None and x.data.flags.writeable
        else:
            fits = x.flags.c_contiguous and x.flags.writeable
        return x if fits else None

    def logarithms(
        self, x: Matrix, sizes: Any, out: Matrix = None, *, dense: bool | None = None
    ) -> Matrix:
        """Take the logarithms of counts that were measured.

        Parameters
        ----------
        x
            Counts, samples × features.
        sizes
            Effective library sizes of the samples: (n,).
        out
            Matrix to write to, which may be `x`; None: a new one.
        dense
            Whether a sparse matrix may become a large dense one; None: if memory allows.

        Returns
        -------
        Logarithms, (n, G).
        """
        if self.prior_count is None:
            scale = 1 / self._divisors(sizes)
            return log_scale(x, scale, base=self.log_base_, out=out)
        if is_sparse(x):
            allow_dense(x.shape, 8 if x.dtype == np.float64 else 4, dense=dense)
        if self.mean_library_ is None:
            msg = (
                "prior_count needs the mean library size, which fit did not compute "
                "because prior_count was None then: call fit again."
            )
            raise InputError(msg)
        used = np.where(sizes > 0, sizes, self.mean_library_)
        prior = self.prior_count * used / self.mean_library_
        scale = self.target_sum_ / (used + 2 * prior)
        return log_shifted(x, prior, scale, base=self.log_base_, out=out)
