"""Rates on permuted data, against correcting and testing the permuted data itself."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import batchcorr as bc
from batchcorr.arrays import moments
from batchcorr.design.design import Design
from batchcorr.errors import DesignError
from batchcorr.estimators import null_calibration
from batchcorr.estimators.metadata import Labels
from batchcorr.estimators.problem import Problem

BATCH = np.repeat(["x", "y", "z"], [14, 10, 12])
GROUP = np.array([*"aaaaaaaaaaabbb", *"abbbbbbbbb", *"aaaaaabbbbbb"])


def data(n_features=60, seed=0):
    rng = np.random.default_rng(seed)
    codes = np.unique(BATCH, return_inverse=True)[1]
    x = rng.normal(size=(len(BATCH), n_features))
    x += rng.normal(size=(3, n_features))[codes]
    x[:, :20] += 3 * (GROUP == "b")[:, None]
    return x


def columns(rows=slice(None), **more):
    return pd.DataFrame({"group": GROUP[rows]} | {k: v[rows] for k, v in more.items()})


def naive(y, table):
    """An ordinary t-test of the first column of a table, without batch."""
    z = pd.get_dummies(table, drop_first=True).to_numpy(float)
    full = np.column_stack([np.ones(len(y)), z])
    beta, squares, *_ = np.linalg.lstsq(full, y)
    df = len(y) - full.shape[1]
    place = 1 + list(pd.get_dummies(table, drop_first=True)).index("group_b")
    error = np.sqrt(squares / df * np.linalg.inv(full.T @ full)[place, place])
    return 2 * stats.t.sf(np.abs(beta[place] / error), df)


associated = pytest.mark.filterwarnings(
    "ignore:'group' is strongly:batchcorr.errors.AssociationWarning"
)


@associated
@pytest.mark.parametrize(
    "method", [bc.ComBat(), bc.Standardize(), bc.RemoveBatchEffect()], ids=str
)
@pytest.mark.parametrize("with_age", [False, True])
def test_sums_say_what_corrected_residuals_say(method, with_age):
    x, rng = data(), np.random.default_rng(1)
    more = {"age": rng.normal(50, 9, len(x))} if with_age else {}
    problem = Problem.of(x, Labels(BATCH, columns(**more)))
    place = problem.metadata.terms.index("group")
    found = null_calibration.null_rates(
        x,
        problem,
        np.eye(len(problem.metadata.names))[[place]],
        null_calibration.affine(method, problem),
        n_permutations=3,
        alpha=0.05,
        equal_variances=True,
        random=np.random.default_rng(2),
    )
    beta = problem.fit([*range(len(problem.metadata.names))]).coefficients
    residuals = x - problem.design.columns @ beta
    orders = null_calibration._permutations(problem.design, 3, np.random.default_rng(2))
    for k, rows in enumerate(orders):
        permuted = columns(rows, **more)
        kind = type(method)
        y = kind().fit_transform(residuals, batch=BATCH, covariates=permuted)
        share = (naive(y, permuted) < 0.05).mean()
        assert found.corrected[k, 0] == pytest.approx(share, abs=1e-12)


@associated
def test_p_values_after_a_correction_are_those_of_its_values():
    x = data()
    problem = Problem.of(x, Labels(BATCH, columns()))
    fitted = bc.ComBat().fit(x, batch=BATCH, covariates=columns())
    y = fitted.transform(x, batch=BATCH, covariates=columns())
    after = fitted.correction_.moments(problem.moments, 1).collapse([0, 0, 0], 1)
    p = null_calibration.ordinary_p_values(after, np.eye(1))
    np.testing.assert_allclose(p[0], naive(y, columns()), rtol=1e-9)


def test_f_of_several_columns_is_that_of_an_analysis_of_variance():
    rng = np.random.default_rng(0)
    kind = np.resize([0, 1, 2], 20)
    x = rng.normal(size=(20, 5)) + kind[:, None]
    design = Design.of(np.zeros(20), 1, np.eye(3)[kind][:, 1:])
    p = null_calibration.ordinary_p_values(moments(x, design), np.eye(2))
    wanted = [stats.f_oneway(*(y[kind == k] for k in range(3))).pvalue for y in x.T]
    np.testing.assert_allclose(p[2], wanted, rtol=1e-9)


def test_missing_values_are_permuted_around():
    x = data()
    x[np.random.default_rng(3).random(x.shape) < 0.1] = np.nan
    problem = Problem.of(x, Labels(BATCH, columns()))
    found = null_calibration.null_rates(
        x,
        problem,
        np.eye(1),
        null_calibration.affine(bc.RemoveBatchEffect(), problem),
        n_permutations=20,
        alpha=0.05,
        equal_variances=True,
        random=np.random.default_rng(4),
    )
    assert found.one_step.mean() == pytest.approx(0.05, abs=0.025)
    assert found.corrected.mean() > 0.1


def test_permutations_stay_within_batches_and_differ():
    z = (GROUP == "b").astype(float)[:, None]
    design = Design.of(np.unique(BATCH, return_inverse=True)[1], covariates=z)
    rows = null_calibration._permutations(design, 30, np.random.default_rng(0))
    orders = [order.copy() for order in rows]
    assert all((BATCH[order] == BATCH).all() for order in orders)
    assert len({tuple(z[order, 0]) for order in orders} | {tuple(z[:, 0])}) == 31


def test_too_few_permutations_are_refused_with_their_number():
    batch, group = [0, 0, 0, 1, 1, 1], np.array([0.0, 0, 1, 0, 1, 1])
    design = Design.of(batch, covariates=group[:, None])
    assert null_calibration.arrangements(design) == 9
    with pytest.raises(DesignError, match=r"only 9 different permutations"):
        null_calibration._enough(9.0, 50)
