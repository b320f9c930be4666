"""The estimator that all location-scale methods are: scikit-learn's manners, two passes.

What lies between the passes is in `estimate`, what is special to a method in its file.
"""

from __future__ import annotations

from dataclasses import replace
from numbers import Real
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeGuard

import numpy as np
from sklearn.base import clone

from batchcorr.design.distinct import texts
from batchcorr.design.labels import BatchLabels
from batchcorr.errors import DesignError, InputError, UnknownBatchError, some
from batchcorr.estimators import inputs
from batchcorr.estimators.estimate import extend
from batchcorr.estimators.fit_warnings import warn_of_constant, warn_of_far
from batchcorr.estimators.fitted import FittedState
from batchcorr.estimators.matrix import matrix_to_fit
from batchcorr.estimators.metadata import Labels, Metadata
from batchcorr.estimators.problem import Problem
from batchcorr.estimators.scale import warn_if_unlogged
from batchcorr.estimators.subjects import fit_subjects

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from batchcorr.estimators.base import Corrector
    from batchcorr.estimators.inputs import Samples

__all__ = ["LocationScaleMethod", "fits_moments"]

ROUTED = {"batch": True, "covariates": True}


class LocationScaleMethod(FittedState):
    """Base of the methods that correct by one affine map per batch and feature.

    A subclass has a `record` and implements `_aim` and `_adjust`; its constructor takes
    the options shared by all: `formula`, `batch_column`, `covariate_columns`, `copy`.
    """

    fewest_batches: ClassVar[int] = 2

    __metadata_request__fit: ClassVar = ROUTED
    __metadata_request__partial_fit: ClassVar = ROUTED
    __metadata_request__transform: ClassVar = ROUTED
    __metadata_request__inverse_transform: ClassVar = ROUTED

    formula: str | None
    copy: bool

    def fit(
        self,
        X: object,
        y: object = None,
        *,
        batch: object = None,
        covariates: object = None,
        nuisance: object = None,
        subject: object = None,
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
        nuisance
            What is to be removed with batch, as numbers or categories (`ComBat` and
            `RemoveBatchEffect`).
        subject
            Who each sample is of, (n,), where some were measured more than once: an
            intercept at random for each (not `CovBat`).

        Returns
        -------
        The estimator itself.

        Raises
        ------
        DesignError, InputError
            If covariates are confounded with batch, or labels are missing; if the data
            are infinite, not numeric or of wrong shape.
        """
        self.fit_labels(X, Labels(batch, covariates, nuisance, subject=subject))
        return self

    def _fit_labels(self, X: object, labels: Labels, weights: Any) -> Labels:
        samples, x, labels = self._read(X, labels)
        if labels.batch is None and labels.nuisance is None:
            raise inputs.no_batch(type(self).__name__)
        warn_if_unlogged(x, type(self).__name__)
        problem = Problem.of(x, labels, formula=self.formula, weights=weights)
        design = problem.design
        if labels.subject is None:
            fitted = self._estimate(problem)
        elif weights is not None:
            msg = "subject and weights do not go together: leave one of them out."
            raise InputError(msg)
        else:
            fitted, design = fit_subjects(self, problem, x, labels, self.formula)
            self._fitted, self._metadata, self.moments_ = fitted, fitted.metadata, None
        self._remember_features(samples, x.shape[1])
        warn_of_constant(problem.read, fitted.aim.adjustable, self)
        warn_of_far(fitted.details, self)
        return labels._replace(design=design)

    def partial_fit(
        self,
        X: object,
        y: object = None,
        *,
        batch: object = None,
        covariates: object = None,
        batches: Iterable[object] | None = None,
        levels: Mapping[str, Iterable[object]] | None = None,
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
        self._require_streams("partial_fit")
        if not (decay is None or (isinstance(decay, Real) and 0 <= decay <= 1)):
            msg = f"decay must be a number from 0 to 1, or None, not {decay!r}."
            raise InputError(msg)
        samples, x, labels = self._read(X, Labels(batch, covariates))
        if labels.batch is None:
            raise inputs.no_batch(type(self).__name__)
        metadata = self._metadata
        if metadata is None:
            if batches is None:
                msg = (
                    "The first call of partial_fit must declare all batches that will "
                    "come: partial_fit(X, batch=…, batches=[…])."
                )
                raise InputError(msg)
            metadata, design = Metadata.fit_transform(
                x.shape[0],
                labels,
                formula=self.formula,
                batches=batches,
                levels=levels or {},
            )
            labels = labels._replace(design=design)
        elif self.moments_ is None:
            msg = (
                "A loaded correction cannot be fitted further: the moments it was "
                "fitted to are not saved. Use add_batches for new batches, or fit again."
            )
            raise InputError(msg)
        else:
            self._check_features(samples, x.shape[1])
        try:
            problem = Problem.of(x, labels, metadata)
        except UnknownBatchError as error:
            msg = (
                f"{str(error).partition('.')[0]}. Declared on the first call were "
                f"{some(map(repr, metadata.levels))}: start anew and declare all "
                "batches that will come, batches=[…]."
            )
            raise DesignError(msg) from error
        sums = problem.moments
        if self.moments_ is not None:
            before = self.moments_
            if decay is not None:
                before = before.decayed(np.where(sums.rows > 0, decay, 1.0))
            sums = before.merge(sums)
        self._remember_features(samples, x.shape[1])
        self._metadata, self.moments_, self._fitted = problem.metadata, sums, None
        return self

    def add_batches(
        self, X: object, *, batch: object, covariates: object = None
    ) -> Self:
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
        return self._add_batches(X, Labels(batch, covariates))

    def _add_batches(self, X: object, labels: Labels) -> Self:
        self._require_streams("add_batches")
        fitted = self._ready()
        samples, x, labels = self._read(X, labels)
        self._check_features(samples, x.shape[1])
        batch = labels.batch
        first = batch.iloc[:, 0] if hasattr(batch, "columns") else batch
        new = BatchLabels.fit(first, n_rows=x.shape[0])
        known = {text for level in fitted.metadata.levels for text in texts(level)}
        again = [level for level in new.levels if texts(level) & known]
        if again:
            msg = (
                f"The batches {some(map(repr, again))} are known already: add_batches "
                "takes samples of new batches only. To fit known batches anew, fit again."
            )
            raise DesignError(msg)
        problem = Problem.of(x, labels, replace(fitted.metadata, batch=new))
        grown: Self = clone(self)
        grown.__dict__.update(self.__dict__)
        metadata = replace(problem.metadata, binary=fitted.metadata.binary)
        grown._fitted = extend(self, fitted, problem.moments, metadata)
        grown._metadata, grown.moments_ = grown._fitted.metadata, None
        warn_of_far(grown._fitted.details, grown, since=len(self.batches_))
        return grown

    def transform(
        self,
        X: object,
        *,
        batch: object = None,
        covariates: object = None,
        nuisance: object = None,
        subject: object = None,
    ) -> Any:
        """Correct samples of known batches, each on its own: row by row.

        Parameters
        ----------
        X, batch
            Samples × features, the features of `fit`, and the batch of each sample.
        covariates
            As in `fit`; needed only where values are scaled.
        nuisance
            As in `fit`, if some were removed.
        subject
            As in `fit`, of subjects that it saw; needed where covariates are.

        Returns
        -------
        Corrected values in the dtype of X (integers become floats); dense.

        Raises
        ------
        UnknownBatchError, InputError
            For a batch that `fit` has not seen; if needed covariates are missing.
        """
        return self.apply(X, Labels(batch, covariates, nuisance, subject=subject))

    def fit_transform(
        self,
        X: object,
        y: object = None,
        *,
        batch: object = None,
        covariates: object = None,
        nuisance: object = None,
        subject: object = None,
    ) -> Any:
        """Learn the correction and correct the same samples.

        Parameters
        ----------
        X, y, batch, covariates, nuisance, subject
            As in `fit`.

        Returns
        -------
        Corrected values in the dtype of X; dense.
        """
        labels = {
            "batch": batch,
            "covariates": covariates,
            "nuisance": nuisance,
            "subject": subject,
        }
        return self.fit(X, y, **labels).transform(X, **labels)

    def inverse_transform(
        self, X: object, *, batch: object = None, covariates: object = None
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
        return self._invert(X, Labels(batch, covariates))

    def _read(self, X: object, labels: Labels) -> tuple[Samples, Any, Labels]:
        """The samples to fit to, their matrix, and the labels of its rows."""
        self._check_parameters()
        samples = self._samples_to_fit(X, labels.batch, labels.covariates)
        labels = labels._replace(batch=samples.batch, covariates=samples.covariates)
        return samples, matrix_to_fit(samples.features), labels


def fits_moments(estimator: Corrector) -> TypeGuard[LocationScaleMethod]:
    """Whether an estimator can be fitted to moments alone, and so is of this kind."""
    return estimator.record.streams
