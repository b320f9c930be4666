"""Estimates of contrasts from counts: logarithms, each weighted by how well it is known.

Two reads of the counts, and one before for library sizes: the first fit says how variance
follows the expected count (`models.voom`), the second weighs every value by it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from batchcorr.arrays.counts import count_rows
from batchcorr.arrays.feature_counts import FeatureCounts
from batchcorr.arrays.log_counts import LogCounts, weighted_moments
from batchcorr.errors import DesignError, InputError, did_you_mean
from batchcorr.estimators.raw_counts import is_dask, raw_counts, warn_of_empty
from batchcorr.estimators.scale import warn_of_logs
from batchcorr.models.counts.size_factors import METHODS, fit_reference, scaled_totals
from batchcorr.models.linear_model import LinearFit
from batchcorr.models.one_step_test import estimates
from batchcorr.models.voom import precision_trend

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from batchcorr.estimators.problem import Problem
    from batchcorr.models.one_step_test import Estimates

    Floats = NDArray[np.float64]

__all__ = ["Voom"]


@dataclass(frozen=True)
class Voom:
    """How contrasts are estimated from counts.

    Attributes
    ----------
    x
        The counts, as logarithms of counts per million.
    seen
        Which features have any counts: (G,).
    """

    x: LogCounts
    seen: NDArray[np.bool_]

    @classmethod
    def of(cls, counts: Any, method: str = "total") -> Voom:
        """Read the library sizes of samples × features.

        Parameters
        ----------
        counts
            Raw counts; fractions of a quantifier are fine.
        method
            How libraries are measured: by their total, or that times the
            normalization factors of this name.

        Raises
        ------
        InputError
            If these are no counts in memory, or there is no such method.
        """
        if method not in METHODS:
            msg = f"voom knows no method {method!r}. {did_you_mean(method, METHODS)}"
            raise InputError(msg)
        counts = raw_counts(counts)
        if is_dask(counts):
            msg = "voom reads counts by feature: this Dask array must be in memory, x.compute()."
            raise InputError(msg)
        samples = count_rows(counts)
        reference, factors = fit_reference(samples, method)
        warn_of_logs(samples.logged, "voom")
        warn_of_empty(samples.totals, "all of their values are that of a zero count.")
        sizes = scaled_totals(reference, samples.totals, factors)
        seen = np.asarray((counts != 0).sum(axis=0)).ravel() > 0
        return cls(LogCounts(FeatureCounts.of(counts), sizes), seen)

    def estimates(
        self, problem: Problem, columns: list[int], contrasts: Floats
    ) -> Estimates:
        """The estimates of contrasts (k, q) of the q columns as read.

        Raises
        ------
        DesignError
            If fewer than two features have counts.
        """
        design = problem.design_as_read
        assert design is not None
        plain = problem.read.select(columns)
        if np.count_nonzero(self.seen) < 2:
            msg = "voom learns from many features, and fewer than two have counts."
            raise DesignError(msg)
        fit = LinearFit.of(plain)
        sizes = self.x.sizes
        mean = (plain.n * plain.mean).sum(axis=0) / plain.n.sum()
        sd = np.sqrt(fit.residual_squares.sum(axis=0) / fit.df)
        trend = precision_trend(mean[self.seen], sd[self.seen], sizes)
        inside = design.columns[:, columns]

        def weights_of(part: slice) -> Floats:
            fitted = fit.intercepts[design.codes, part]
            return trend.weights(fitted + inside @ fit.coefficients[:, part], sizes)

        weighted = weighted_moments(self.x, design, weights=weights_of).select(columns)
        return estimates(weighted, contrasts, plain)
