"""Moderated tests against limma: prior, posterior variance, t, F and p, every case."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import chi2

from batchcorr.models.moderated_t import adjust, moderated_f, moderated_t
from batchcorr.models.robust_variance_prior import estimate_robust_variance_prior
from batchcorr.models.smoothing import lowess, natural_spline_basis
from batchcorr.models.variance_prior import VariancePrior, estimate_variance_prior
from tests.conftest import GOLDEN

CASES = sorted(
    path.stem
    for path in GOLDEN.glob("limma_*.npz")
    if "sigma" in np.load(path).files and "28" not in path.stem
)
LOOSE = {"limma_15_outlier_variances": 4e-9, "limma_04_bladder_missing_trend": 4e-9}
"""Where limma's own root for d₀ is not found to the end, or d₀ is in the thousands."""
UNCOMMON = {"missing", "observation"}
"""Where limma takes one correlation of coefficients for features that differ in theirs."""


def variants():
    for case in CASES:
        names = np.load(GOLDEN / f"{case}.npz").files
        for variant in ("ordinary", "trend", "robust", "trendrobust"):
            if f"{variant}_t" in names:
                yield case, variant


def close(found, expected, tolerance):
    expected = np.broadcast_to(expected, np.shape(found))
    np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=1e-300)


@pytest.mark.parametrize(("case", "variant"), list(variants()))
def test_equal_to_limma(golden, case, variant):
    r = golden(case)
    contrast = "contrasts" in r
    source = "contrast_coefficients" if contrast else "coefficients"
    unscaled = "contrast_stdev_unscaled" if contrast else "stdev_unscaled"
    tested = r["tested_columns0"]
    s2, df = r["sigma"] ** 2, r["df_residual"].astype(float)
    trend = r["Amean"] if "trend" in variant else None
    robust = "robust" in variant
    estimate = estimate_robust_variance_prior if robust else estimate_variance_prior
    prior = estimate(s2, df, trend)
    stem = f"{variant}_converged_" if f"{variant}_converged_t" in r else f"{variant}_"
    tolerance = LOOSE.get(case, 1e-9)
    posterior = prior.posterior(s2, df)
    fitted = posterior > 1e-20  # what exactly fitted features have left is rounding
    expected = np.broadcast_to(r[f"{stem}s2_post"], s2.shape)
    close(posterior[fitted], expected[fitted], tolerance)
    coefficient, errors = r[source][tested], r[unscaled][tested]
    found = moderated_t(coefficient, errors, s2, df, prior)
    close(found.t[:, fitted], r[f"{stem}t"][:, fitted], tolerance)
    if not robust:
        close(found.p_value[:, fitted], r[f"{variant}_p_value"][:, fitted], tolerance)
        close(found.df, r[f"{variant}_df_total"], tolerance)
    if variant == "ordinary":
        low, high = found.interval()
        close(low[:, fitted], r["ordinary_ci_low"][:, fitted], 1e-8)
        close(high[:, fitted], r["ordinary_ci_high"][:, fitted], 1e-8)
        close(adjust(found.p_value), r["ordinary_adj_p_value"], 1e-8)
    if f"{variant}_F" in r and not robust and not UNCOMMON & {*case.split("_")}:
        whole = r["contrast_cov_coefficients" if contrast else "cov_coefficients"]
        pick = tested if contrast else np.searchsorted(r["cov_columns0"], tested)
        f = moderated_f(
            coefficient, whole[np.ix_(pick, pick)][:, :, None], s2, df, prior
        )
        assert f.df == r[f"{variant}_F_df1"]
        close(f.f[fitted], r[f"{variant}_F"][fitted], tolerance)
        close(f.p_value[fitted], r[f"{variant}_F_p_value"][fitted], tolerance)


def test_f_with_a_certain_prior_and_with_dependent_columns():
    rng = np.random.default_rng(3)
    beta, half = rng.normal(size=(2, 50)), rng.normal(size=(2, 2))
    covariance, df = (half @ half.T)[:, :, None], np.full(50, 4.0)
    certain = VariancePrior(np.full(1, 0.7), np.full(1, np.inf))
    found = moderated_f(beta, covariance, rng.uniform(1, 2, 50), df, certain)
    wald = np.einsum("ig,ij,jg->g", beta, np.linalg.inv(half @ half.T), beta) / 0.7
    np.testing.assert_allclose(found.f, wald / 2, rtol=1e-9)
    np.testing.assert_allclose(found.p_value, chi2.sf(wald, 2), rtol=1e-9)
    mixed = np.array([[1, 0], [0, 1], [1, 1]])  # the third says nothing new
    wide = np.einsum("ik,klg,jl->ijg", mixed, covariance, mixed)
    again = moderated_f(mixed @ beta, wide, np.ones(50), df, certain)
    assert again.df == 2
    np.testing.assert_allclose(again.f, found.f, rtol=1e-8)


def test_the_prior_of_many_scales(golden):
    """R rounds at an offset of 1e6: six digits are what the two share."""
    r = golden("limma_28_scales")
    s2, df = r["sigma"] ** 2, r["df_residual"].astype(float)
    for variant, trend in (("ordinary", None), ("trend", r["Amean"])):
        prior = estimate_variance_prior(s2, df, trend)
        close(prior.posterior(s2, df), r[f"{variant}_s2_post"], 1e-6)


def test_the_prior_is_found_again():
    rng = np.random.default_rng(0)
    s2 = 0.3 * rng.f(6, 8, size=200_000)
    prior = estimate_variance_prior(s2, np.full(len(s2), 6.0))
    assert prior.df[0] == pytest.approx(8, rel=0.03)
    assert prior.scale[0] == pytest.approx(0.3, rel=0.02)


def test_a_few_outliers_do_not_move_the_robust_prior():
    rng = np.random.default_rng(1)
    s2 = rng.f(8, 12, size=4000)
    s2[:80] *= 200
    df = np.full(len(s2), 8.0)
    plain, robust = (
        estimate_variance_prior(s2, df),
        estimate_robust_variance_prior(s2, df),
    )
    assert plain.df[0] < 6
    assert np.median(robust.df) == pytest.approx(12, rel=0.25)
    assert robust.df[:80].max() < 2


def test_lowess_of_a_line_is_the_line():
    x = np.random.default_rng(0).uniform(0, 5, 300)
    smooth = lowess(x, 2 * x - 1, fraction=0.3, delta=0.05)
    np.testing.assert_allclose(smooth, 2 * x - 1, atol=1e-10)


def test_a_natural_spline_is_straight_beyond_its_knots():
    x = np.array([-3.0, -2.0, -1.0, 0.0, 0.3, 0.7, 1.0, 2.0, 3.0, 4.0])
    basis = natural_spline_basis(x, np.array([0.0, 0.3, 0.7, 1.0]))
    assert np.linalg.matrix_rank(basis) == 4
    for outside in (basis[:4], basis[6:]):
        np.testing.assert_allclose(np.diff(outside, n=2, axis=0), 0, atol=1e-12)
