"""Weights of counts: how precisely each logarithm is known (`models.voom`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from batchcorr.arrays.counts import count_rows
from batchcorr.arrays.feature_counts import FeatureCounts
from batchcorr.arrays.log_counts import LogCounts
from batchcorr.design.variables import Variable
from batchcorr.errors import DesignError, InputError, did_you_mean
from batchcorr.estimators.raw_counts import is_dask, raw_counts, warn_of_empty
from batchcorr.estimators.scale import warn_of_logs
from batchcorr.models.counts.size_factors import METHODS, fit_reference, scaled_totals
from batchcorr.models.voom import precision_trend

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd
    from numpy.typing import NDArray

    from batchcorr.models.moments import Moments
    from batchcorr.models.namespace import Matrix

    Floats = NDArray[np.float64]

__all__ = ["Voom"]

TINY = np.finfo(np.float64).tiny


@dataclass(frozen=True)
class Voom:
    """Counts whose logarithms are weighted by how well they are known.

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
    def of(cls, counts: Matrix, method: str = "total") -> Voom:
        """Read the library sizes of samples × features.

        Parameters
        ----------
        method
            How libraries are measured: by their total, or that times the
            normalization factors of this name.

        Raises
        ------
        InputError
            If these are no counts in memory, or there is no such method.
        """
        if method not in METHODS:
            msg = f"voom has no method {method!r}. {did_you_mean(method, METHODS)}"
            raise InputError(msg)
        counts = raw_counts(counts)
        if is_dask(counts):
            msg = (
                "voom needs the counts in memory: call x.compute() on this Dask array "
                "first."
            )
            raise InputError(msg)
        samples = count_rows(counts)
        reference, factors = fit_reference(samples, method)
        warn_of_logs(samples.logged, "voom")
        warn_of_empty(samples.totals, "all of their values are that of a zero count.")
        sizes = scaled_totals(reference, samples.totals, factors)
        seen = np.asarray((counts != 0).sum(axis=0)).ravel() > 0
        return cls(LogCounts(FeatureCounts.of(counts), sizes), seen)

    def expressed(self, min_count: float, group: pd.Series) -> NDArray[np.intp]:
        """The features with enough counts for a test of a column (edgeR: filterByExpr).

        In as many samples as the smallest level of the column has (of numbers: 1 over the
        largest leverage) `min_count` counts, if the library were the median one; and 1.5
        times as many over all samples.
        """
        sizes = self.x.sizes
        variable, values = Variable.fit_transform(group, str(group.name), quiet=True)
        if variable.levels is None:
            apart = np.square(values - values.mean())
            least = 1 / (1 / len(values) + apart.max() / max(apart.sum(), TINY))
        else:
            least = np.unique(values, return_counts=True)[1].min()
        enough = min_count * sizes / np.median(sizes)
        found = [
            np.flatnonzero(
                ((block >= enough).sum(axis=1) >= least - 1e-9)
                & (block.sum(axis=1) >= 1.5 * min_count)
            )
            + part.start
            for part, block in self.x.counts.blocks()
        ]
        return np.concatenate(found)

    def take(self, features: NDArray[np.intp]) -> Voom:
        """The counts of some features, in libraries of all."""
        counts = self.x.counts.take(features=features)
        return Voom(LogCounts(counts, self.x.sizes), self.seen[features])

    def weights(
        self,
        plain: Moments,
        fitted: Callable[[slice], Floats],
        sd: Floats,
        given: Floats | None = None,
    ) -> Callable[[slice], Floats]:
        """What gives the weights of a block of features: (n, width).

        Parameters
        ----------
        sd
            Residual standard deviation of each feature: (G,).
        given
            Weights of samples (n,) or values (n, G), which are multiplied in.

        Raises
        ------
        DesignError
            If fewer than two features have counts.
        """
        if np.count_nonzero(self.seen) < 2:
            msg = "voom needs at least two features with counts."
            raise DesignError(msg)
        log_sizes = self.x.log_sizes
        mean = (plain.n * plain.mean).sum(axis=0) / plain.n.sum(axis=0)
        used = log_sizes
        if given is not None:
            used = log_sizes[(given.reshape(len(log_sizes), -1) > 0).any(axis=1)]
        trend = precision_trend(mean[self.seen], sd[self.seen], used)

        def of_block(part: slice) -> Floats:
            weights = trend.weights(fitted(part), log_sizes)
            if given is None:
                return weights
            return weights * (given[:, None] if given.ndim == 1 else given[:, part])

        return of_block
