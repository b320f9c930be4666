"""Fits that go on: in blocks of samples, and to batches that come later."""

from __future__ import annotations

from dataclasses import replace
from numbers import Real
from typing import TYPE_CHECKING, Self

import numpy as np

from batchcorr.design.labels import BatchLabels
from batchcorr.design.levels import texts
from batchcorr.errors import DesignError, InputError, UnknownBatchError, some
from batchcorr.estimators import inputs
from batchcorr.estimators.estimate import extend
from batchcorr.estimators.fit_warnings import warn_of_far
from batchcorr.estimators.fitted import FittedState
from batchcorr.estimators.matrix import matrix_to_fit
from batchcorr.estimators.metadata import Labels, Metadata
from batchcorr.estimators.problem import Problem
from batchcorr.estimators.scale import warn_if_unlogged

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from batchcorr.estimators.inputs import Samples
    from batchcorr.models.namespace import Matrix

__all__ = ["Incremental"]


class Incremental(FittedState):
    """A location-scale estimator that can be fitted further: `copy` and `formula` known."""

    formula: str | None

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
        """Add a block of samples; all blocks together give the result of one `fit`.

        Parameters
        ----------
        X, y, batch, covariates
            As in `fit`.
        batches
            All batches, those of later blocks included: needed on the first call.
        levels
            All levels of each categorical covariate, by its name: needed on the first
            call if a block may lack some of them.
        decay
            Each call with new samples of a batch multiplies the weight of its earlier
            samples by this λ, from 0 (forget them) to 1 (equal weights, as None).

        Returns
        -------
        The estimator itself; the correction is computed when it is first used.

        Notes
        -----
        Only moments are kept, O(B p G), no samples. Transforms in the formula
        (`center`, `poly`, …) take their state from the first block.

        With `decay` and blocks of m samples of a batch, the mean of the batch tends to
        the running mean of batch normalization with momentum 1 - λ, and its effective
        n, which empirical Bayes uses, to m / (1 - λ). The variance is taken around the
        running mean; unlike in batch normalization it includes the drift between calls.
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
            warn_if_unlogged(x, type(self).__name__)
            if batches is None:
                msg = (
                    "The first call of partial_fit must declare all batches, those of "
                    "later calls included: partial_fit(X, batch=…, batches=[…])."
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
                "A loaded correction cannot be updated with partial_fit, because its "
                "moments are not saved. Use add_batches for new batches, or fit again."
            )
            raise InputError(msg)
        else:
            self._check_features(samples, x.shape[1])
        try:
            problem = Problem.of(x, labels, metadata)
        except UnknownBatchError as error:
            msg = (
                f"{str(error).partition('.')[0]}. The first call declared "
                f"{some(map(repr, metadata.levels))}: start again and declare all "
                "batches with batches=[…]."
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
        self,
        X: object,
        *,
        batch: object,
        covariates: object = None,
        nuisance: object = None,
    ) -> Self:
        """Return a correction with new batches added, all else unchanged.

        New batches are adjusted to the frozen target, with the frozen coefficients of
        the covariates; empirical Bayes priors are estimated from the new batches' own
        features.

        Parameters
        ----------
        X, batch, covariates, nuisance
            As in `fit`; only samples of new batches.

        Returns
        -------
        A new estimator; this one is unchanged.
        """
        from sklearn.base import clone

        self._require_streams("add_batches")
        fitted = self._ready()
        inputs.check_order(X, batch=batch, nuisance=nuisance)
        samples, x, labels = self._read(X, Labels(batch, covariates, nuisance))
        self._check_features(samples, x.shape[1])
        given = labels.batch
        first = given.iloc[:, 0] if hasattr(given, "columns") else given
        new = BatchLabels.fit(first, n_rows=x.shape[0])
        known = {text for level in fitted.metadata.levels for text in texts(level)}
        again = [level for level in new.levels if texts(level) & known]
        if again:
            msg = (
                f"The batches {some(map(repr, again))} are already in the correction: "
                "add_batches takes samples of new batches only. To change known "
                "batches, fit again."
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

    def _read(self, X: object, labels: Labels) -> tuple[Samples, Matrix, Labels]:
        """The samples to fit to, their matrix, and the labels of its rows."""
        self._check_parameters()
        samples = self._samples_to_fit(X, labels.batch, labels.covariates)
        labels = labels._replace(batch=samples.batch, covariates=samples.covariates)
        return samples, matrix_to_fit(samples.features), labels
