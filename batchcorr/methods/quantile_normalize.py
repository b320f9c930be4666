r"""Quantile normalization: one common distribution for all samples.

    y_ij = q(r_ij),      q_k = mean over samples of the k-th smallest value

where r_ij is the rank of feature j in sample i. The target q is frozen at `fit`: from
all samples alike, from all batches alike, or from one reference batch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np

from batchcorr._files.expected import Expected
from batchcorr._files.npz import take
from batchcorr.arrays.operations import has_infinite
from batchcorr.arrays.quantiles import mean_quantiles, quantile_rows
from batchcorr.design.labels import BatchLabels
from batchcorr.errors import InputError, did_you_mean
from batchcorr.estimators.base import Corrector
from batchcorr.estimators.densify import allow_dense
from batchcorr.estimators.matrix import as_matrix, is_sparse, matrix_to_fit
from batchcorr.estimators.metadata import Labels
from batchcorr.estimators.raw_counts import in_memory
from batchcorr.estimators.record import MethodRecord

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from batchcorr.models.namespace import Matrix

__all__ = ["QuantileNormalize"]


class QuantileNormalize(Corrector):
    r"""Give every sample the same distribution of values, feature ranks unchanged.

    .. math::
        y_{ij} = q(r_{ij}), \qquad q_k = \sum_i w_i x_{i(k)}, \qquad \sum_i w_i = 1

    Parameters
    ----------
    ties
        True: equal values in a sample get the same result, the target at their average
        rank. False: they get consecutive target values, in the order of the features.
    reference
        Reference batch: the target is the mean of its samples only, w = 1/n_b there and
        0 elsewhere.
    batch_column
        Column of the DataFrame X with the batch, which is then dropped from X.
    copy
        False: `transform` may overwrite X.

    Attributes
    ----------
    target_ : ndarray
        q, ascending: (G,).

    Raises
    ------
    InputError
        If values are infinite, a sample has no values, or the reference is not a batch.

    Notes
    -----
    Without batches the weights are w = 1/n, and the result is that of
    ``limma::normalizeQuantiles``. With B batches and no reference they are 1/(B n_b):
    the target is the mean over batches of their mean distributions, however many
    samples each has. In all cases a sample is mapped by its own ranks: afterwards all
    samples, those of a reference batch included, have the same distribution, and new
    samples need no batch.

    The assumption is that distributions of samples differ for technical reasons only.
    If cell types or treatments shift many features in one direction, these differences
    are removed as well; in sparse counts zeros are changed. Batch effects on single
    features remain: see `ComBat`.

    Missing values (NaN) stay missing; the other values of the sample are spaced evenly
    over the ranks, a single one gets the median of the target. The result is float32
    for float32 and integers of up to 16 bits, otherwise float64, and dense. Every
    sample is sorted twice.

    References
    ----------
    Bolstad, Irizarry, Åstrand & Speed (2003), Bioinformatics 19:185-193; R package
    limma, `normalizeQuantiles`.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.array([[1.0, 2.0, 9.0], [5.0, 3.0, 4.0]])
    >>> QuantileNormalize().fit_transform(x)
    array([[2., 3., 7.],
           [7., 2., 3.]])
    """

    record: ClassVar = MethodRecord(
        "quantile_normalize",
        scale="any",
        takes=frozenset({"batch"}),
        normalizes=True,
        testable=True,
    )

    __metadata_request__fit: ClassVar = {"batch": True}

    target_: NDArray[np.float64]

    def __init__(
        self,
        *,
        ties: bool = True,
        reference: object = None,
        batch_column: str | None = None,
        copy: bool = True,
    ) -> None:
        self.ties = ties
        self.reference = reference
        self.batch_column = batch_column
        self.copy = copy

    def fit(self, X: object, y: object = None, *, batch: object = None) -> Self:
        """Compute the common distribution.

        Parameters
        ----------
        X
            Values, samples × features: NumPy array, DataFrame, or SciPy sparse. NaN
            marks missing values (dense data only).
        y
            Ignored.
        batch
            Batch of each sample, (n,). All batches get the same total weight, or the
            reference batch all of it.

        Returns
        -------
        The estimator itself.
        """
        samples = self._samples(X, batch)
        x = _by_rows(in_memory(matrix_to_fit(samples.features)))
        _check_values(x)
        weights = self._weights(samples.batch, x.shape[0])
        self._remember_features(samples, x.shape[1])
        self.target_ = mean_quantiles(x, weights)
        return self

    def transform(self, X: object) -> Matrix:
        """Give samples the distribution of `fit`, each sample by itself.

        Parameters
        ----------
        X
            Samples × features, the features of `fit`.

        Returns
        -------
        Normalized values, (n, G), in the dtype of X (integers become floats); dense.
        """
        return self.apply(X, Labels())

    def fit_transform(
        self, X: object, y: object = None, *, batch: object = None
    ) -> Matrix:
        """Compute the common distribution and give it to the same samples.

        Parameters
        ----------
        X, y, batch
            As in `fit`.

        Returns
        -------
        Normalized values, (n, G), in the dtype of X (integers become floats); dense.
        """
        return self.fit(X, y, batch=batch).transform(X)

    def _apply(
        self, x: Matrix, labels: Labels, out: Matrix, *, dense: bool | None
    ) -> Matrix:
        samples = self._samples(x)
        x = in_memory(as_matrix(samples.features))
        self._check_features(samples, x.shape[1])
        if is_sparse(x):
            allow_dense(x.shape, x.dtype.itemsize, dense=dense)
        elif out is None and not self.copy and x is samples.given and x.flags.writeable:
            out = x
        x = _by_rows(x)
        _check_values(x)
        if out is None:
            out = np.empty(x.shape, dtype=x.dtype)
        quantile_rows(x, self.target_, ties=self.ties, out=out)
        return out

    def _weights(self, batch: object, n_rows: int) -> NDArray[np.float64]:
        """Return how much each sample counts in the target."""
        if batch is None:
            if self.reference is not None:
                msg = (
                    f"reference={self.reference!r} needs the batch of each sample: "
                    "give batch= to fit."
                )
                raise InputError(msg)
            return np.full(n_rows, 1 / n_rows)
        labels, codes = BatchLabels.factorize(batch, n_rows=n_rows)
        shares = np.full(len(labels.levels), 1 / len(labels.levels))
        if self.reference is not None:
            known = [str(level) == str(self.reference) for level in labels.levels]
            if sum(known) != 1:
                msg = f"The reference {self.reference!r} is not one of the batches. "
                raise InputError(msg + did_you_mean(self.reference, labels.levels))
            shares = np.array(known, dtype=np.float64)
        weights: NDArray[np.float64] = (shares / np.bincount(codes))[codes]
        return weights

    def _state(self) -> tuple[dict[str, object], Mapping[str, NDArray[np.generic]]]:
        return {}, {"target": self.target_}

    def _set_state(
        self, plain: Mapping[str, object], arrays: Mapping[str, NDArray[np.generic]]
    ) -> None:
        target = take(arrays, {"target": Expected((self.n_features_,))})["target"]
        if (np.diff(target) < 0).any():
            msg = "its target is not in ascending order."
            raise InputError(msg)
        self.target_ = target

    def _summary(self) -> dict[str, object]:
        middle = self.target_[len(self.target_) // 2]
        return {"target_median": float(middle)}


def _by_rows(x: Matrix) -> Matrix:
    return x.tocsr() if is_sparse(x) else x


def _check_values(x: Matrix) -> None:
    """Refuse infinite values, and samples of which nothing is known."""
    if has_infinite(x):
        msg = (
            "The data contain infinite values, which make the mean distribution "
            "infinite. Replace them, or mark them as missing (NaN). They often come "
            "from the logarithm of 0: add a prior count before taking logs."
        )
        raise InputError(msg)
    if is_sparse(x):
        if np.isnan(x.data).any():
            msg = (
                "The sparse matrix contains missing values (NaN): drop these features "
                "or samples, or give a dense matrix."
            )
            raise InputError(msg)
        return
    empty = [i for i in np.flatnonzero(np.isnan(x[:, 0])) if np.isnan(x[i]).all()]
    if empty:
        msg = (
            f"{len(empty)} of {len(x)} samples have no values (first: row {empty[0]}): "
            "leave them out."
        )
        raise InputError(msg)
