"""The estimator that all location-scale methods are: scikit-learn's manners, two passes.

What lies between the passes is in `estimate`, what is special to a method in its file.
"""

from __future__ import annotations

from dataclasses import replace
from numbers import Real
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from sklearn.base import clone

from batchcorr.arrays import apply, moments
from batchcorr.design.labels import BatchLabels
from batchcorr.errors import DesignError, InputError, UnknownBatchError, some
from batchcorr.estimators import checks, inputs, matrix
from batchcorr.estimators.densify import allow_dense
from batchcorr.estimators.estimate import estimate, extend
from batchcorr.estimators.fitted import FittedState
from batchcorr.estimators.metadata import Metadata

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from batchcorr.design.design import Design
    from batchcorr.models.moments import Moments

__all__ = ["LocationScaleMethod"]

BESIDE = {"batch": True, "covariates": True}


class LocationScaleMethod(FittedState):
    """Base of the methods that correct by one affine map per batch and feature.

    A subclass sets `method`, the name it is known by, and the class constants below;
    it implements `_aim` and `_adjust`, and takes the constructor options shared by all:
    `formula`, `batch_column`, `covariate_columns`, `copy`.
    """

    fewest_batches: ClassVar[int] = 2
    several_factors: ClassVar[bool] = False

    __metadata_request__fit: ClassVar = BESIDE
    __metadata_request__partial_fit: ClassVar = BESIDE
    __metadata_request__transform: ClassVar = BESIDE
    __metadata_request__inverse_transform: ClassVar = BESIDE

    formula: str | None
    copy: bool

    def fit(
        self, X: Any, y: Any = None, *, batch: Any = None, covariates: Any = None
    ) -> Self:
        """Learn the correction from samples of all batches.

        Parameters
        ----------
        X
            Values on a log scale, samples × features: array of NumPy, Dask, CuPy or
            torch, DataFrame, CSR or CSC matrix. NaN marks missing values (if dense).
        y
            Ignored: a correction must not see the outcome.
        batch
            Batch of each sample: (n,).
        covariates
            What is to be kept: a DataFrame, with `formula` or all its columns; a
            Series; or a 2-D array of design columns. None: nothing but the mean.

        Returns
        -------
        The estimator itself.

        Raises
        ------
        DesignError, InputError
            If covariates are confounded with batch, or labels are missing; if the data
            are infinite, not numeric or of wrong shape.
        """
        return self._fit(X, batch, covariates)

    def _fit(
        self,
        X: Any,
        batch: Any,
        covariates: Any,
        nuisance: Any = None,
        weights: Any = None,
    ) -> Self:
        table, x, batch, covariates = self._read(X, batch, covariates)
        if nuisance is None:
            self._require_batch(batch)
        matrix.warn_of_counts(x, type(self).__name__)
        metadata = Metadata.learn(
            x.shape[0], batch, covariates, nuisance, formula=self.formula
        )
        design = metadata.design(x.shape[0], batch, covariates, nuisance)
        metadata = metadata.settle(design)
        sums = moments(x, design, weights=weights)
        self._remember(metadata, sums, estimate(self, sums, metadata))
        self._remember_features(X, table, x)
        return self

    def partial_fit(
        self,
        X: Any,
        y: Any = None,
        *,
        batch: Any = None,
        covariates: Any = None,
        batches: Iterable[Any] | None = None,
        levels: Mapping[str, Iterable[Any]] | None = None,
        decay: float | None = None,
    ) -> Self:
        """Learn from a block of samples; the blocks together are as one `fit`.

        Parameters
        ----------
        X, y, batch, covariates
            As in `fit`.
        batches
            All batches there will be: needed on the first call.
        levels
            All levels of each categorical covariate, by name: needed on the first call
            if a block may lack some.
        decay
            What earlier samples of a batch count, once more for each call that brings
            new ones: λ from 1 (as None: as much as these) down to 0 (nothing).

        Returns
        -------
        The estimator itself; the correction is computed when it is first used.

        Notes
        -----
        The state is the moments, O(B p G); nothing of a block is kept. A formula's
        transforms (`center`, `poly`, …) take their state from the first block.

        With blocks of m samples of a batch, its mean tends to batch normalization's
        running mean with momentum 1 - λ, and its effective n, which empirical Bayes
        uses, to m / (1 - λ). The variance is that around the running mean: it also holds
        the drift between calls, unlike batch normalization's.
        """
        if not (decay is None or (isinstance(decay, Real) and 0 <= decay <= 1)):
            msg = f"decay must be a number from 0 to 1, or None, not {decay!r}."
            raise InputError(msg)
        table, x, batch, covariates = self._read(X, batch, covariates)
        self._require_batch(batch)
        metadata = self._metadata
        if metadata is None:
            if batches is None:
                msg = (
                    "The first call of partial_fit must declare all batches that will "
                    "come: partial_fit(X, batch=…, batches=[…])."
                )
                raise InputError(msg)
            metadata = Metadata.learn(
                x.shape[0],
                batch,
                covariates,
                formula=self.formula,
                batches=batches,
                levels=levels or {},
            )
        elif self.moments_ is None:
            msg = (
                "A loaded correction cannot learn more: what it was learned from is "
                "not saved. Use add_batches for new batches, or fit again."
            )
            raise InputError(msg)
        else:
            self._check_features(table, x.shape[1])
        try:
            design = metadata.design(x.shape[0], batch, covariates)
        except UnknownBatchError as error:
            msg = (
                f"{str(error).partition('.')[0]}. Declared on the first call were "
                f"{some(map(repr, metadata.levels))}: start anew and declare all "
                "batches that will come, batches=[…]."
            )
            raise DesignError(msg) from error
        metadata = metadata.settle(design)
        sums = moments(x, design)
        if self.moments_ is not None:
            before = self.moments_
            if decay is not None:
                before = before.decayed(np.where(sums.rows > 0, decay, 1.0))
            sums = before.merge(sums)
        self._remember_features(X, table, x)
        self._remember(metadata, sums, None)
        return self

    def add_batches(self, X: Any, *, batch: Any, covariates: Any = None) -> Self:
        """Return an estimator that also knows new batches, the rest unchanged.

        The new batches are brought to the frozen aim with the frozen coefficients of
        the covariates; priors, where there are any, come from their own features.

        Parameters
        ----------
        X, batch, covariates
            As in `fit`; of batches none of which was seen before.

        Returns
        -------
        A new estimator; this one stays as it is.
        """
        return self._add_batches(X, batch, covariates)

    def _add_batches(
        self, X: Any, batch: Any, covariates: Any, nuisance: Any = None
    ) -> Self:
        fitted = self._ready()
        table, x, batch, covariates = self._read(X, batch, covariates)
        self._check_features(table, x.shape[1])
        first = batch.iloc[:, 0] if hasattr(batch, "columns") else batch
        labels = BatchLabels.learn(first, n_rows=x.shape[0])
        known = {str(level) for level in fitted.metadata.levels}
        again = [level for level in labels.levels if str(level) in known]
        if again:
            msg = (
                f"The batches {again} are known already: add_batches takes samples of "
                "new batches only. To learn known batches anew, fit again."
            )
            raise DesignError(msg)
        metadata = replace(fitted.metadata, batch=labels)
        design = metadata.design(x.shape[0], batch, covariates, nuisance)
        grown: Self = clone(self)
        grown.__dict__.update(self.__dict__)
        grown._fitted = extend(self, fitted, moments(x, design), metadata)
        grown._metadata, grown.moments_ = grown._fitted.metadata, None
        return grown

    def transform(self, X: Any, *, batch: Any = None, covariates: Any = None) -> Any:
        """Correct samples of known batches, each on its own: row by row.

        Parameters
        ----------
        X, batch
            Samples × features, the features of `fit`, and the batch of each sample.
        covariates
            As in `fit`; needed only where values are scaled.

        Returns
        -------
        Corrected values in the dtype of X (integers become float32); dense.

        Raises
        ------
        UnknownBatchError, InputError
            For a batch that `fit` has not seen; if needed covariates are missing.
        """
        return self._apply(X, batch, covariates)

    def fit_transform(
        self, X: Any, y: Any = None, *, batch: Any = None, covariates: Any = None
    ) -> Any:
        """Learn the correction and correct the same samples.

        Parameters
        ----------
        X, y, batch, covariates
            As in `fit`.

        Returns
        -------
        Corrected values in the dtype of X; dense.
        """
        return self.fit(X, y, batch=batch, covariates=covariates).transform(
            X, batch=batch, covariates=covariates
        )

    def inverse_transform(
        self, X: Any, *, batch: Any = None, covariates: Any = None
    ) -> Any:
        """Put the batch effects back: the inverse of `transform`.

        Parameters
        ----------
        X, batch, covariates
            Corrected values, and what is beside them, as in `transform`.

        Returns
        -------
        Values with their batch effects.
        """
        return self._apply(X, batch, covariates, inverse=True)

    def _apply(
        self,
        X: Any,
        batch: Any,
        covariates: Any,
        nuisance: Any = None,
        *,
        inverse: bool = False,
        dense: bool | None = None,
        out: Any = None,
    ) -> Any:
        x, design = self._design(X, batch, covariates, nuisance)
        correction = self.correction_.inverse() if inverse else self.correction_
        if matrix.becomes_dense(x):
            device = not matrix.is_sparse(x)
            allow_dense(x.shape, x.dtype.itemsize, dense=dense, device=device)
        elif out is None and not self.copy and isinstance(X, type(x)):
            out = x if matrix.is_writable(x) else None
        if x.shape[0] == 0:
            return x.toarray() if matrix.becomes_dense(x) else x
        return apply(x, design, correction, out=out)

    def _design(
        self, X: Any, batch: Any, covariates: Any, nuisance: Any
    ) -> tuple[Any, Design]:
        """Return the matrix to correct, and what is known of its rows."""
        self._ready()
        table, batch, covariates = self._take(X, batch, covariates)
        x = matrix.as_matrix(table)
        self._check_features(table, x.shape[1])
        return x, self._rows(x.shape[0], batch, covariates, nuisance)

    def _rows(self, n: int, batch: Any, covariates: Any, nuisance: Any) -> Design:
        fitted = self._ready()
        if fitted.metadata.batch is not None:
            self._require_batch(batch)
        keep = fitted.correction.needs_covariates
        if keep and covariates is None:
            checks.refuse_without_covariates(
                fitted.metadata,
                f"{type(self).__name__} kept covariates and scales, so that a sample's "
                "covariates are needed to correct it",
                "without them, or with mean_only=True or RemoveBatchEffect",
            )
        return fitted.metadata.design(
            n, batch, covariates if keep else None, nuisance, keep=keep
        )

    def _read(self, X: Any, batch: Any, covariates: Any) -> tuple[Any, Any, Any, Any]:
        """Return table, matrix, batch and covariates to learn from."""
        self._check_parameters()
        table, batch, covariates = self._take(X, batch, covariates)
        if not self.several_factors:
            inputs.check_one_factor(batch, type(self).__name__)
        return table, self._matrix(table), batch, covariates

    def _remember(self, metadata: Metadata, sums: Moments, fitted: Any) -> None:
        self._metadata, self.moments_, self._fitted = metadata, sums, fitted
