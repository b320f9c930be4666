r"""Estimates of contrasts by least squares, each value as precise as it is known to be.

    Var ε[i, g] = σ_g² V_ij / √(w_ig w_jg),      w = given × of its count × of its batch

with V_ij = ρ for two samples of one subject. What is asked for is found in turn: weights of
counts (voom), of batches (REML), then ρ, each at the others; where weights of counts go
with another the turn is taken twice (limma: `voomWithQualityWeights`, and
`duplicateCorrelation` between two rounds of `voom`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from batchcorr.arrays import moments
from batchcorr.errors import BatchSizeWarning, some, warn
from batchcorr.models.linear_model import LinearFit
from batchcorr.models.one_step_test import (
    estimates,
    weighted_by_batch,
    with_batch_weights,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from batchcorr.estimators.metadata import Metadata
    from batchcorr.estimators.problem import Problem
    from batchcorr.estimators.subject_samples import SubjectSamples
    from batchcorr.estimators.voom import Voom
    from batchcorr.estimators.within_subjects import Subjects
    from batchcorr.models.moments import Moments
    from batchcorr.models.namespace import Matrix
    from batchcorr.models.one_step_test import Estimates

    Floats = NDArray[np.float64]
    Weights = Floats | Callable[[slice], Floats] | None

__all__ = ["LeastSquares"]


@dataclass(frozen=True)
class LeastSquares:
    """How contrasts are estimated.

    Attributes
    ----------
    x
        The matrix that the problem was read from, where the others need it.
    weights
        Of samples (n,) or values (n, G); None: all alike.
    equal_variances
        False: every batch has a variance of its own.
    voom
        How weights follow from counts.
    subjects
        Who samples are of, where several are of one.
    """

    x: Matrix = None
    weights: Floats | None = None
    equal_variances: bool = True
    voom: Voom | None = None
    subjects: Subjects | None = None

    def estimates(
        self, problem: Problem, columns: list[int], contrasts: Floats
    ) -> Estimates:
        """The estimates of contrasts (k, q) of the q columns as read.

        Raises
        ------
        DesignError
            If batches and covariates leave no differences of subjects.
        """
        plain = problem.read.select(columns)
        if not self.equal_variances:
            _warn_of_explained(LinearFit.of(plain), problem.metadata)
        weights: Weights = self.weights
        batch = correlation = None
        several = not self.equal_variances or self.subjects is not None
        for _ in range(2 if self.voom and several else 1):
            if self.voom is not None:
                fitted, sd = self._fit(problem, columns, batch, correlation)
                weights = self.voom.weights(plain, fitted, sd, self.weights)
            if not self.equal_variances:
                weighted = self._moments(problem, columns, weights)
                _, batch = with_batch_weights(
                    weighted, None if weights is None else plain
                )
            if self.subjects is not None:
                samples = self._samples(problem, columns, weights, batch)
                correlation = samples.correlation()
        if correlation is not None:
            return samples.estimates(correlation, contrasts)
        weighted = self._moments(problem, columns, weights)
        if batch is not None:
            weighted = weighted_by_batch(weighted, batch)
        return estimates(weighted, contrasts, plain)

    def _moments(
        self, problem: Problem, columns: list[int], weights: Weights
    ) -> Moments:
        if weights is None:
            return problem.read.select(columns)
        design = problem.design_as_read
        found: Moments = moments(self.x, design, weights=weights)
        return found.select(columns)

    def _samples(
        self,
        problem: Problem,
        columns: list[int],
        weights: Weights,
        batch: Floats | None,
    ) -> SubjectSamples:
        """What subjects and their correlation are told from."""
        assert self.subjects is not None
        design = problem.design_as_read
        assert design is not None
        if batch is not None:
            weights = _times(weights, batch[design.codes])
        return self.subjects.samples(self.x, problem, columns, weights)

    def _fit(
        self,
        problem: Problem,
        columns: list[int],
        batch: Floats | None,
        correlation: float | None,
    ) -> tuple[Callable[[slice], Floats], Floats]:
        """Fitted values of a block of features, and √s², with the weights given alone."""
        if correlation is not None:
            samples = self._samples(problem, columns, self.weights, batch)
            return samples.fit(correlation)
        design = problem.design_as_read
        assert design is not None
        read = self._moments(problem, columns, self.weights)
        plain = problem.read.select(columns)
        read = read if batch is None else weighted_by_batch(read, batch)
        fit = LinearFit.of(read, counts=plain.n)
        inside, codes = design.columns[:, columns], design.codes
        sd = np.sqrt(fit.residual_squares.sum(axis=0) / LinearFit.of(plain).df)
        return (
            lambda part: (
                fit.intercepts[codes, part] + inside @ fit.coefficients[:, part]
            )
        ), sd


def _times(weights: Weights, factor: Floats) -> Weights:
    """The weights, times one of each sample: (n,)."""
    if weights is None:
        return factor
    if callable(weights):
        return lambda part: weights(part) * factor[:, None]
    return weights * (factor if weights.ndim == 1 else factor[:, None])


def _warn_of_explained(fit: LinearFit, metadata: Metadata) -> None:
    """Say which batches cannot tell their own variance."""
    rows, df = fit.rows[:, 0], fit.df_by_batch.max(axis=1)
    without = [
        str(level)
        for level, n, left in zip(metadata.levels, rows, df, strict=True)
        if n < 2 or left <= 1e-6
    ]
    if without:
        msg = (
            f"The samples of {some(without)} do not determine a variance of their own: "
            "the pooled variance of all batches is used for them."
        )
        warn(msg, BatchSizeWarning)
