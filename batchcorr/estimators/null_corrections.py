"""Corrections of null data by methods that must see every value: a run a permutation.

Logarithms: what the columns explain is taken away, x - z β, and the method corrects with
the permuted columns kept. Counts stay counts: only their columns are permuted, and after
the correction logarithms of counts per million are tested.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import clone

from batchcorr.arrays import moments
from batchcorr.design.design import Design
from batchcorr.estimators.metadata import Labels
from batchcorr.estimators.null_calibration import known_effects
from batchcorr.estimators.voom import Voom

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from batchcorr.estimators.base import Corrector
    from batchcorr.estimators.null_calibration import Correct
    from batchcorr.estimators.problem import Problem
    from batchcorr.models.moments import Moments
    from batchcorr.models.namespace import Matrix

__all__ = ["whole_run"]


def whole_run(
    method: Corrector, x: Matrix, labels: Labels, problem: Problem
) -> Correct:
    """What a method does to null data, by running it.

    Parameters
    ----------
    x
        Samples × features in memory: logarithms, or counts if it is for these.
    """
    design = problem.design
    assert design is not None
    of_counts = method.record.scale == "counts"
    if not of_counts:
        x = x.toarray() if hasattr(x, "toarray") else x
        x = x - design.columns @ known_effects(problem.moments)

    def correct(rows: NDArray[np.intp], _: Moments) -> Moments:
        fitted: Any = clone(method)
        if method.record.normalizes:
            values = fitted.fit_transform(x)
        else:
            table = labels.covariates
            permuted = table.iloc[rows].set_axis(table.index)
            read = fitted.fit_labels(x, Labels(labels.batch, permuted))
            values = fitted.apply(x, read)
        values = Voom.of(values).x if of_counts else np.asarray(values)
        together = Design.of(np.zeros(len(rows)), 1, design.columns[rows])
        sums: Moments = moments(values, together)
        return sums

    return correct
