"""From moments to a table of tests: which columns are tested, and how that is told.

A column of labels is tested level by level against its first, a column of numbers by its
slope, and a contrast of levels as it is written. Batch, further factors, nuisances and
the other covariates are in the model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from batchcorr.errors import (
    BatchSizeWarning,
    DesignError,
    InputError,
    MissingKeyError,
    did_you_mean,
    warn,
)
from batchcorr.errors import some as listed
from batchcorr.estimators import checks
from batchcorr.models.linear_model import LinearFit
from batchcorr.models.moderated_t import adjust
from batchcorr.models.one_step_test import one_step_test, with_batch_weights

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from batchcorr.estimators.metadata import Metadata
    from batchcorr.estimators.problem import Problem
    from batchcorr.models.moments import Moments
    from batchcorr.models.one_step_test import OneStepTest

    Floats = NDArray[np.float64]

__all__ = ["Contrast", "differential_table", "read_contrast", "with_tested"]


class Contrast(NamedTuple):
    """What is tested: a column, or weights of its levels that sum to 0."""

    column: str
    weights: Mapping[str, float] | None = None


def read_contrast(test: Any) -> Contrast:
    """What a caller means by `test`.

    Parameters
    ----------
    test
        The name of a column; ``(column, level, reference)``; or ``(column, {level:
        weight, …})`` with weights that sum to 0.

    Raises
    ------
    InputError
        If it is none of these.

    Examples
    --------
    >>> read_contrast(("group", "treated", "control")).weights
    {'treated': 1.0, 'control': -1.0}
    """
    if isinstance(test, str):
        return Contrast(test)
    if isinstance(test, tuple | list) and test and isinstance(test[0], str):
        if len(test) == 3:
            return Contrast(test[0], {str(test[1]): 1.0, str(test[2]): -1.0})
        if len(test) == 2 and hasattr(test[1], "items"):
            weights = {str(level): float(weight) for level, weight in test[1].items()}
            if abs(sum(weights.values())) <= 1e-9 and any(weights.values()):
                return Contrast(test[0], weights)
    msg = (
        "test must be the name of a column, (column, level, reference), or (column, "
        f"{{level: weight, …}}) with weights that sum to 0, not {test!r:.80}."
    )
    raise InputError(msg)


def with_tested(
    obs: pd.DataFrame, covariates: Any, formula: str | None, column: str
) -> tuple[Any, str | None]:
    """The covariates with the tested column among them, and their formula.

    Parameters
    ----------
    obs
        What is known of the samples.
    covariates, formula
        What else the model holds, as a table or design columns, and how.
    column
        The tested column of `obs`.

    Raises
    ------
    MissingKeyError
        If there is no such column.
    """
    if column not in obs.columns:
        msg = (
            f"The tested column {column!r} is not a column of adata.obs. "
            f"{did_you_mean(column, obs.columns)}"
        )
        raise MissingKeyError(msg)
    if formula is not None:
        terms = {term.strip() for term in formula.replace("~", "+").split("+")}
        return covariates, formula if column in terms else f"{formula} + {column}"
    own = obs[[column]]
    if covariates is None:
        return own, None
    if not hasattr(covariates, "columns"):
        values = np.asarray(covariates)
        values = values.reshape(len(values), -1)
        names = [f"covariate[{k}]" for k in range(values.shape[1])]
        covariates = pd.DataFrame(values, columns=names)
    if column in covariates.columns:
        return covariates, None
    covariates = covariates.set_axis(own.index, axis=0)
    return pd.concat([covariates, own], axis=1), None


def differential_table(
    problem: Problem,
    contrast: Contrast,
    features: Sequence[str],
    *,
    observed: Moments | None = None,
    trend: bool = False,
    robust: bool = False,
    equal_variances: bool = True,
) -> pd.DataFrame:
    """The table of tests, a row a feature in the order of the features.

    Parameters
    ----------
    problem
        All samples, with the tested column among the covariates.
    contrast
        What is tested.
    features
        Names of the features: G of them.
    observed
        Where the problem is weighted: its moments without weights.
    trend, robust
        As in `batchcorr.models.one_step_test`.
    equal_variances
        False: every batch has a variance of its own.

    Raises
    ------
    DesignError
        If the tested column cannot be told from batch, or nothing is left to estimate
        the variance from.
    """
    metadata = problem.metadata
    checks.check_batches(problem.read, metadata, at_least=1)
    columns = checks.drop_redundant(problem)
    names, weights = _weights(metadata, contrast)
    contrasts = problem.contrasts_as_read(weights, columns)
    moments = problem.read.select(columns)
    plain = moments if observed is None else observed.select(columns)
    fit = LinearFit.of(moments)
    checks.check_variance(fit)
    checks.warn_of_lost_digits(problem, columns)
    if not equal_variances:
        _warn_of_explained(fit, metadata)
        moments, _ = with_batch_weights(moments)
    result = one_step_test(
        moments, contrasts, observed=plain, trend=trend, robust=robust
    )
    return _table(result, names, features)


def _weights(metadata: Metadata, contrast: Contrast) -> tuple[list[str], Floats]:
    """The names of the contrasts, and their weights of the design columns: (k, p)."""
    names = metadata.names
    own = [
        place
        for place in range(metadata.kept)
        if metadata.terms[place] == contrast.column
    ]
    if not own:
        msg = (
            f"{contrast.column!r} is not among the covariates as a main effect, or does "
            f"not vary. {did_you_mean(contrast.column, metadata.terms[: metadata.kept])}"
        )
        raise DesignError(msg)
    if contrast.weights is None:
        return [_level_of(names[k], contrast.column) for k in own], np.eye(len(names))[
            own
        ]
    levels = {f"{contrast.column}[{level}]": w for level, w in contrast.weights.items()}
    row = np.zeros(len(names))
    for place in own:
        row[place] = levels.pop(names[place], 0.0)
    known = _levels(metadata, contrast.column)
    unknown = [level for level in contrast.weights if level not in known]
    if unknown:
        msg = (
            f"{contrast.column!r} has no level {unknown[0]!r}. "
            f"{did_you_mean(unknown[0], known)}"
        )
        raise InputError(msg)
    name = " ".join(f"{w:+g} {level}" for level, w in contrast.weights.items() if w)
    return [name], row[None]


def _levels(metadata: Metadata, column: str) -> list[str]:
    """The levels of a covariate, as text; none where it holds numbers."""
    for variable in metadata.covariates.variables:
        if variable.column == column:
            return [str(level) for level in variable.levels or ()]
    return []


def _level_of(name: str, column: str) -> str:
    inner = name.removeprefix(f"{column}[")
    return inner.removesuffix("]") if inner != name else column


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
            f"The samples of {listed(without)} tell nothing of their own variance: they "
            "are given that of the batches in common."
        )
        warn(msg, BatchSizeWarning)


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
