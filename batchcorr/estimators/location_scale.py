"""The estimator that all location-scale methods are: scikit-learn's manners, two passes.

What lies between the passes is in `estimate`, what is special to a method in its file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Self, TypeGuard

from batchcorr.errors import InputError
from batchcorr.estimators import inputs
from batchcorr.estimators.fit_warnings import warn_of_features
from batchcorr.estimators.incremental import Incremental
from batchcorr.estimators.metadata import Labels
from batchcorr.estimators.problem import Problem
from batchcorr.estimators.scale import warn_if_unlogged
from batchcorr.estimators.subjects import fit_subjects
from batchcorr.estimators.weights import checked_weights

if TYPE_CHECKING:
    from batchcorr.estimators.base import Corrector
    from batchcorr.models.namespace import Matrix

__all__ = ["LocationScaleMethod", "fits_moments"]

ROUTED = {"batch": True, "covariates": True}


class LocationScaleMethod(Incremental):
    """Base of the methods that correct by one affine map per batch and feature.

    A subclass has a `record` and implements `_aim` and `_adjust`; its constructor takes
    the options shared by all: `formula`, `batch_column`, `covariate_columns`, `copy`.
    """

    fewest_batches: ClassVar[int] = 2

    __metadata_request__fit: ClassVar = ROUTED
    __metadata_request__partial_fit: ClassVar = ROUTED
    __metadata_request__transform: ClassVar = ROUTED
    __metadata_request__inverse_transform: ClassVar = ROUTED

    def fit(
        self,
        X: object,
        y: object = None,
        *,
        batch: object = None,
        covariates: object = None,
        nuisance: object = None,
        weights: object = None,
        subject: object = None,
    ) -> Self:
        """Fit the correction to samples of all batches.

        Parameters
        ----------
        X
            Values on a log scale, samples × features: array of NumPy, Dask, CuPy or
            torch, DataFrame, CSR or CSC matrix. NaN marks missing values (if dense).
        y
            Ignored: a correction must not see the outcome.
        batch
            Batch of each sample: (n,). For `RemoveBatchEffect` also several batch
            factors, the columns of a DataFrame or 2-D array; None: remove only the
            effects of `nuisance`.
        covariates
            Covariates to keep: a DataFrame (all columns, or those of `formula`), a
            Series, or a 2-D array of design columns. None: only the mean.
        nuisance
            Covariates to remove along with batch, numbers or categories (`ComBat` and
            `RemoveBatchEffect`).
        weights
            Weights of samples, (n,), or of single values, (n, G). Without a positive
            weight they are not used in the fit, but are corrected
            (`RemoveBatchEffect`).
        subject
            Subject of each sample, (n,), if subjects were measured more than once: adds
            a random intercept for each (not `CovBat`).

        Returns
        -------
        The estimator itself.

        Raises
        ------
        DesignError, InputError
            If covariates are confounded with batch, or labels are missing; if values
            are infinite or not numeric, or shapes do not match.
        """
        labels = Labels(batch, covariates, nuisance, subject=subject)
        self.fit_labels(X, labels, weights)
        return self

    def _fit_labels(self, X: object, labels: Labels, weights: object) -> Labels:
        samples, x, labels = self._read(X, labels)
        if labels.batch is None and labels.nuisance is None:
            raise inputs.no_batch(type(self).__name__)
        warn_if_unlogged(x, type(self).__name__)
        if weights is not None:
            columns = getattr(weights, "columns", None)
            inputs.check_features_order(samples.features, columns, "weights")
            weights = checked_weights(weights, x.shape)
        problem = Problem.of(x, labels, formula=self.formula, weights=weights)
        design = problem.design
        if labels.subject is None:
            fitted = self._estimate(problem)
        elif weights is not None:
            msg = "subject= and weights= cannot be combined: leave one of them out."
            raise InputError(msg)
        else:
            fitted, design = fit_subjects(self, problem, x, labels, self.formula)
            self._fitted, self._metadata, self.moments_ = fitted, fitted.metadata, None
        self._remember_features(samples, x.shape[1])
        warn_of_features(problem.read, fitted.aim.adjustable, fitted.details, self)
        return labels._replace(design=design)

    def transform(
        self,
        X: object,
        *,
        batch: object = None,
        covariates: object = None,
        nuisance: object = None,
        subject: object = None,
    ) -> Matrix:
        """Correct samples of batches that `fit` has seen, each sample by itself.

        Parameters
        ----------
        X, batch
            Samples × features, the features of `fit`, and the batch of each sample.
        covariates
            As in `fit`; needed only where values are scaled.
        nuisance
            As in `fit`; needed if nuisance effects were removed.
        subject
            As in `fit`, only subjects of `fit`; needed where covariates are.

        Returns
        -------
        Corrected values in the dtype of X (integers become floats); dense.

        Raises
        ------
        UnknownBatchError, InputError
            If `fit` has not seen a batch; if needed covariates are missing.
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
        weights: object = None,
        subject: object = None,
    ) -> Matrix:
        """Fit the correction and correct the same samples.

        Parameters
        ----------
        X, y, batch, covariates, nuisance, weights, subject
            As in `fit`.

        Returns
        -------
        Corrected values in the dtype of X; dense.
        """
        labels = Labels(batch, covariates, nuisance, subject=subject)
        return self.apply(X, self.fit_labels(X, labels, weights))

    def inverse_transform(
        self,
        X: object,
        *,
        batch: object = None,
        covariates: object = None,
        nuisance: object = None,
    ) -> Matrix:
        """Add the batch effects back: the inverse of `transform`.

        Parameters
        ----------
        X
            Corrected values, samples × features.
        batch, covariates, nuisance
            As in `transform`.

        Returns
        -------
        Values with their batch effects.
        """
        return self._invert(X, Labels(batch, covariates, nuisance))


def fits_moments(estimator: Corrector) -> TypeGuard[LocationScaleMethod]:
    """Whether an estimator can be fitted to moments alone, and so is of this kind."""
    return estimator.record.streams
