"""Negative-binomial regression: the maximum of the likelihood, and edgeR's."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import special

from batchcorr.models.counts.regression import fit_features


@pytest.fixture
def problem(golden):
    case = golden("edger_glmfit")
    codes = np.argmax(case["design"][:, :3], axis=1).astype(np.int32)
    z = np.ascontiguousarray(case["design"][:, 3:], dtype=float)
    counts = np.ascontiguousarray(case["counts"].T, dtype=float)
    offset = np.log(case["counts"].sum(axis=1))
    phi = np.stack([case["dispersion"][codes == b][0] for b in range(3)], axis=1)
    return case, counts, codes, z, offset, phi


def test_regression_is_the_maximum_of_the_likelihood(problem):
    case, counts, codes, z, offset, phi = problem
    beta = fit_features(counts, codes, z, offset, phi)
    mu = np.exp(offset + beta[:, :3][:, codes] + beta[:, 3:] @ z.T)
    score = (counts - mu) / (1 + phi[:, codes] * mu)
    for b in range(3):  # the score is 0 along every column of the design
        np.testing.assert_allclose(score[:, codes == b].sum(axis=1), 0, atol=1e-6)
    np.testing.assert_allclose(score @ z, 0, atol=1e-6)
    # edgeR stops early: near, and never more likely than the maximum
    np.testing.assert_allclose(beta.T, case["coef_unshrunk"], atol=2e-4)
    ours = _log_likelihood(counts, mu, phi[:, codes])
    theirs = _log_likelihood(counts, case["fitted"].T, phi[:, codes])
    assert (ours >= theirs - 1e-9).all()


def _log_likelihood(y, mu, phi):
    r = 1 / phi
    return (
        special.gammaln(y + r)
        - special.gammaln(r)
        + special.xlogy(y, mu)
        - (y + r) * np.log(mu + r)
        + r * np.log(r)
    ).sum(axis=1)


def test_prior_counts_are_edgers(problem):
    case, counts, codes, z, offset, phi = problem
    beta = fit_features(counts, codes, z, offset, phi, prior=1e-4)
    np.testing.assert_allclose(beta.T, case["coef_prior_1e4"], atol=2e-4)
    rows = case["onegroup_samples0"]
    alone = fit_features(
        np.ascontiguousarray(counts[:, rows]),
        np.zeros(len(rows), dtype=np.int32),
        np.empty((len(rows), 0)),
        offset[rows],
        case["onegroup_dispersion"][:, None],
        prior=1e-4,
    )
    np.testing.assert_allclose(alone[:, 0], case["onegroup_coef_prior_1e4"], rtol=1e-9)
