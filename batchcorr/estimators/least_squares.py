"""Estimates of contrasts from moments: one weight a sample, a value, a batch, or none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from batchcorr.errors import BatchSizeWarning, some, warn
from batchcorr.models.linear_model import LinearFit
from batchcorr.models.one_step_test import estimates, with_batch_weights

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from batchcorr.estimators.metadata import Metadata
    from batchcorr.estimators.problem import Problem
    from batchcorr.models.moments import Moments
    from batchcorr.models.one_step_test import Estimates

__all__ = ["LeastSquares"]


@dataclass(frozen=True)
class LeastSquares:
    """How contrasts are estimated where samples are independent.

    Attributes
    ----------
    observed
        Where the problem is weighted: its moments without weights.
    equal_variances
        False: every batch has a variance of its own.
    """

    observed: Moments | None = None
    equal_variances: bool = True

    def estimates(
        self, problem: Problem, columns: list[int], contrasts: NDArray[np.float64]
    ) -> Estimates:
        """The estimates of contrasts (k, q) of the q columns as read."""
        moments = problem.read.select(columns)
        plain = None if self.observed is None else self.observed.select(columns)
        if not self.equal_variances:
            plain = moments if plain is None else plain
            _warn_of_explained(LinearFit.of(moments), problem.metadata)
            moments, _ = with_batch_weights(moments)
        return estimates(moments, contrasts, plain)


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
            f"The samples of {some(without)} tell nothing of their own variance: they "
            "are given that of the batches in common."
        )
        warn(msg, BatchSizeWarning)
