"""The test, its F, its weights and shares of variance beside statsmodels, feature by feature."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import batchcorr as bc
from batchcorr.arrays import moments
from batchcorr.design.design import Design
from batchcorr.estimators.least_squares import LeastSquares
from batchcorr.estimators.metadata import Labels
from batchcorr.estimators.null_calibration import ordinary_p_values
from batchcorr.estimators.problem import Problem
from batchcorr.estimators.within_subjects import Subjects
from batchcorr.metrics._variance_explained import shares_of

sm = pytest.importorskip("statsmodels.api", reason="statsmodels is not installed")


@pytest.fixture
def samples():
    """Values, batch, group and age of 40 samples of 20 persons."""
    rng = np.random.default_rng(0)
    batch, group = np.resize([0, 1, 1], 40), rng.integers(0, 3, 40)
    x = rng.normal(size=(40, 8)) + batch[:, None] + 0.5 * group[:, None]
    return x, batch, np.eye(3)[group][:, 1:], np.arange(40) // 2


def whole(batch, z):
    return np.hstack([np.eye(2)[batch], z])


def test_estimates_and_weights_are_those_of_wls(samples):
    x, batch, z, _ = samples
    weights = np.random.default_rng(1).gamma(4, 0.25, 40)
    problem = Problem.of(x, Labels(batch, z))
    found = LeastSquares(x, weights).estimates(problem, [0, 1], np.eye(2))
    for k, y in enumerate(x.T):
        fit = sm.WLS(y, whole(batch, z), weights).fit()
        np.testing.assert_allclose(found.coefficient[:, k], fit.params[2:], rtol=1e-9)
        error = np.sqrt(np.diag(found.covariance[..., k]) * fit.scale)
        np.testing.assert_allclose(error, fit.bse[2:], rtol=1e-9)
        assert found.squares[k] / found.df[k] == pytest.approx(fit.scale, rel=1e-9)


def test_estimates_within_subjects_are_those_of_gls(samples):
    x, batch, z, who = samples
    problem = Problem.of(x, Labels(batch, z))
    subjects = Subjects.of(who, x.shape)
    found = LeastSquares(x, subjects=subjects).estimates(problem, [0, 1], np.eye(2))
    v = np.where(who[:, None] == who, found.correlation, 0.0) + np.diag(
        np.full(40, 1 - found.correlation)
    )
    for k, y in enumerate(x.T):
        fit = sm.GLS(y, whole(batch, z), v).fit()
        np.testing.assert_allclose(found.coefficient[:, k], fit.params[2:], rtol=1e-9)
        assert found.squares[k] / found.df[k] == pytest.approx(fit.scale, rel=1e-9)


def test_f_and_shares_of_variance_are_those_of_ols(samples):
    x, batch, z, _ = samples
    sums = moments(x, Design.of(batch, covariates=z))
    p_values = ordinary_p_values(sums.collapse([0, 0], 1), np.eye(2))
    shares = shares_of(sums)
    for k, y in enumerate(x.T):
        alone = sm.OLS(y, sm.add_constant(z)).fit()
        assert p_values[2, k] == pytest.approx(alone.f_pvalue, rel=1e-9)
        full = sm.OLS(y, whole(batch, z)).fit()
        of_batch = sm.OLS(y, np.eye(2)[batch]).fit()
        partial = 1 - full.mse_resid / alone.mse_resid
        assert shares.batch_beyond_covariates[k] == pytest.approx(partial, rel=1e-9)
        assert shares.batch[k] == pytest.approx(of_batch.rsquared_adj, rel=1e-9)


def test_false_discovery_rates_are_those_of_multipletests(samples):
    from statsmodels.stats.multitest import multipletests

    x, batch, z, _ = samples
    obs = pd.DataFrame({"batch": batch.astype(str), "age": z[:, 0] + 0.1 * x[:, 0]})
    adata = ad.AnnData(x, obs=obs.set_axis([f"s{k}" for k in range(40)]))
    table = bc.tl.differential(adata, "batch", "age")
    wanted = multipletests(table["p_value"], method="fdr_bh")[1]
    np.testing.assert_allclose(table["p_adjusted"], wanted, rtol=1e-12)
