"""The table of the one-step test, from a problem: batch and covariates in the model.

A column of labels is tested level by level against its first, a column of numbers by its
slope, and a contrast of levels as it is written. Batch, further factors, nuisances and
the other covariates are in the model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from batchcorr.errors import DesignError, InputError
from batchcorr.estimators import checks
from batchcorr.estimators.contrast_weights import difference, weights_of
from batchcorr.estimators.fit_warnings import warn_of_corrected, warn_of_lost_digits
from batchcorr.estimators.least_squares import LeastSquares
from batchcorr.models.linear_model import LinearFit
from batchcorr.models.moderated_t import adjust
from batchcorr.models.one_step_test import moderated

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from batchcorr.estimators.contrasts import Contrast
    from batchcorr.estimators.problem import Problem
    from batchcorr.models.one_step_test import OneStepTest

__all__ = ["CORRELATION", "differential_table"]

CORRELATION = "subject_correlation"
"""Name, among a table's `attrs`, of the correlation within subjects."""


ALIKE = LeastSquares()
"""How contrasts are estimated where nothing is said of weights or subjects."""


def differential_table(
    problem: Problem,
    contrast: Contrast,
    features: Sequence[str],
    *,
    method: LeastSquares = ALIKE,
    trend: bool = False,
    robust: bool = False,
) -> pd.DataFrame:
    """The table of tests, a row a feature in the order of the features.

    Parameters
    ----------
    problem
        All samples, read without weights, with the tested column among the covariates.
    features
        Names of the features: G of them.
    trend, robust
        As in `moderated`.

    Raises
    ------
    DesignError
        If the tested column cannot be told from batch, or nothing is left to estimate
        the variance from.

    Warns
    -----
    RepeatWarning
        If the values look corrected for batch already.
    """
    metadata = problem.metadata
    checks.check_batches(problem.read, metadata, at_least=1)
    columns = checks.drop_redundant(problem)
    names, weights = weights_of(metadata, contrast)
    checks.check_variance(LinearFit.of(problem.read.select(columns)))
    warn_of_lost_digits(problem, columns)
    warn_of_corrected(problem.read.select(columns), independent=method.subjects is None)
    contrasts = problem.contrasts_as_read(weights, columns)
    found = method.estimates(problem, columns, contrasts)
    if np.isnan(found.coefficient).all():
        msg = (
            f"{contrast.column!r} is confounded with batch or other columns in the "
            "samples with values and weights, for every feature: leave out the columns "
            "that it is confounded with, or check where values are missing."
        )
        raise DesignError(msg)
    idle = _idle(problem, method)
    if idle.all():
        msg = (
            "No feature varies within a batch, so there is nothing to test: check the "
            "values of the matrix."
        )
        raise InputError(msg)
    found = found._replace(coefficient=np.where(idle, np.nan, found.coefficient))
    table = _table(moderated(found, trend=trend, robust=robust), names, features)
    table.attrs["contrast"] = table.columns.name = difference(metadata, contrast)
    if found.correlation is not None:
        table.attrs[CORRELATION] = found.correlation
    return table


def _idle(problem: Problem, method: LeastSquares) -> NDArray[np.bool_]:
    """Features that vary in no batch, or have no counts: (G,)."""
    idle: NDArray[np.bool_] = (problem.read.squares == 0).all(axis=0)
    return idle if method.voom is None else idle | ~method.voom.seen


def _table(
    result: OneStepTest, names: Sequence[str], features: Sequence[str]
) -> pd.DataFrame:
    """One group of columns a contrast; with several, F and its p before them."""
    each, low_high = result.each, result.each.interval()
    by_name = {
        "coefficient": each.coefficient,
        "standard_error": each.standard_error,
        "ci_low": low_high[0],
        "ci_high": low_high[1],
        "t": each.t,
        "p_value": each.p_value,
        "p_adjusted": adjust(each.p_value),
    }
    index = pd.Index(list(features), dtype=object)
    if result.together is None:
        single = {name: value[0] for name, value in by_name.items()}
        columns = {
            "coefficient": single.pop("coefficient"),
            "mean": result.mean,
            **single,
        }
        table = pd.DataFrame(columns, index=index)
    else:
        joint = result.together
        columns = {
            "mean": result.mean,
            "f": joint.f,
            "p_value": joint.p_value,
            "p_adjusted": adjust(joint.p_value),
        }
        for k, level in enumerate(names):
            columns |= {f"{name}[{level}]": v[k] for name, v in by_name.items()}
        table = pd.DataFrame(columns, index=index)
    return table
