"""Random intercepts by exact REML, against the roots and lme4."""

from __future__ import annotations

import numpy as np
import pytest

from batchcorr.models.random_intercept import SubjectSums, fit_random_intercept


@pytest.mark.parametrize("name", ["04_longitudinal", "05_longitudinal_two_batches"])
def test_equal_to_the_exact_root_and_to_lme4(golden, name):
    r = golden(f"combat_relatives_{name}")
    subject = np.unique(r["subject"], return_inverse=True)[1]
    centre = r["input"].mean(axis=0)
    fit = fit_random_intercept(
        SubjectSums.of(r["input"] - centre, r["design"], subject)
    )
    beta = fit.coefficients.copy()
    beta[0] += centre
    np.testing.assert_allclose(np.sqrt(fit.ratio), r["theta"], rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(beta, r["fixef"], rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(np.sqrt(fit.variance), r["sigma"], rtol=1e-9)
    predicted = r["design"] @ beta + fit.subjects[subject]
    np.testing.assert_allclose(predicted, r["predicted"], atol=1e-9)
    np.testing.assert_allclose(np.sqrt(fit.ratio), r["lme4_theta"], atol=1e-5)


def test_the_variances_are_found_again():
    rng = np.random.default_rng(0)
    subject = np.repeat(np.arange(60), rng.integers(2, 6, 60))
    x = np.stack([np.ones(len(subject)), rng.normal(size=len(subject))], axis=1)
    u = rng.normal(0, 1.5, (60, 300))
    y = x @ np.array([[2.0], [-1.0]]) + u[subject] + rng.normal(0, 0.5, (len(x), 300))
    fit = fit_random_intercept(SubjectSums.of(y - 2, x, subject))
    assert np.median(fit.ratio) == pytest.approx(9, rel=0.1)
    assert np.median(fit.variance) == pytest.approx(0.25, rel=0.05)
    assert np.corrcoef(fit.subjects.ravel(), u.ravel())[0, 1] > 0.96
