"""The one-step test from moments, against limma fitted to the samples."""

from __future__ import annotations

import re

import numpy as np
import pytest

from batchcorr.arrays import moments
from batchcorr.design.design import Design
from batchcorr.models.one_step_test import one_step_test, with_batch_weights

BATCH = re.compile(r"\(Intercept\)|batch\d|bt[bc]|b16\d|nb\d|uv\d")
CASES = [
    "limma_01_bladder_cancer",
    "limma_03_bladder_missing",
    "limma_04_bladder_missing_trend",
    "limma_06_bladder_two_batches_covariates",
    "limma_07_bladder_interaction",
    "limma_08_bladder_array_weights",
    "limma_09_bladder_observation_weights",
    *(f"limma_{name}" for name in ("10_two_df", "11_one_df")),
    *(f"limma_{name}" for name in ("14_infinite_prior_df", "15_outlier_variances")),
    *(f"limma_17_few_genes_{n}" for n in ("01", "02", "03", "05", "06", "29", "30")),
    "limma_19_nested_estimable",
    "limma_29_twenty_batches",
]
LOOSE = {"limma_15_outlier_variances": 4e-9, "limma_04_bladder_missing_trend": 4e-9}


def read(golden, name):
    """R's results, samples × features, weights or None."""
    r = golden(name)
    source = (
        golden(str(r["input_from"]).removesuffix(".npz")) if "input_from" in r else r
    )
    x = np.array(source["input"])
    if "use_missing" in r:
        x[source["missing"].astype(bool)] = np.nan
    return r, x[:, r["genes0"]] if "genes0" in r else x


def sums_of(r, x, weights=None):
    """Moments by batch, and which columns of R's design are beside batch."""
    of_batch = np.array([bool(BATCH.fullmatch(name)) for name in r["design_names"]])
    codes = np.unique(r["design"][:, of_batch], axis=0, return_inverse=True)[1].ravel()
    columns = np.flatnonzero(~of_batch)
    design = Design.of(codes, covariates=r["design"][:, columns])
    return moments(x, design, weights=weights), columns


def close(found, expected, tolerance=1e-9):
    found, expected = np.broadcast_arrays(found, expected)
    np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=1e-15)


def without_dropped(found, expected):
    """What limma says, less what it says only because it dropped another column."""
    partly = np.isnan(expected).any(axis=0) & ~np.isnan(expected).all(axis=0)
    return np.where(partly & np.isnan(found), np.nan, expected)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("variant", ["ordinary", "trend", "robust", "trendrobust"])
def test_equal_to_limma(golden, name, variant):
    r, x = read(golden, name)
    if f"{variant}_t" not in r:
        pytest.skip("limma was not run so")
    weights = r.get("weights")
    sums, columns = sums_of(r, x, weights)
    plain = None
    if weights is not None:  # a weight that is not positive means a missing value
        plain = sums_of(r, x, (weights > 0).astype(float))[0]
    contrasts = (columns == r["tested_columns0"][:, None]).astype(float)
    options = {"trend": "trend" in variant, "robust": "robust" in variant}
    found = one_step_test(sums, contrasts, observed=plain, **options)
    tolerance = LOOSE.get(name, 1e-9)
    close(found.variance, np.where(r["df_residual"] > 0, r["sigma"] ** 2, np.nan))
    close(found.df, r["df_residual"])
    coefficient = r["coefficients"][r["tested_columns0"]]
    close(found.each.coefficient, without_dropped(found.each.coefficient, coefficient))
    stem = f"{variant}_converged_" if f"{variant}_converged_t" in r else f"{variant}_"
    fitted = ~(found.variance < 1e-20)  # what exact fits leave is rounding
    t = without_dropped(found.each.t, r[f"{stem}t"])
    close(found.each.t[:, fitted], t[:, fitted], tolerance)
    if "robust" not in variant:
        p_value = without_dropped(found.each.p_value, r[f"{variant}_p_value"])
        close(found.each.p_value[:, fitted], p_value[:, fitted], tolerance)
        if found.together is not None and "missing" not in name and "obs" not in name:
            close(found.together.f, r[f"{variant}_F"], tolerance)
            close(found.together.p_value, r[f"{variant}_F_p_value"], tolerance)


@pytest.mark.parametrize("name", ["limma_02_bladder_contrasts"])
def test_contrasts_of_levels(golden, name):
    """Three contrasts of three levels: two are independent."""
    r, x = read(golden, name)
    r["design_names"][0] = "(Intercept)"  # the level that the others are measured from
    r["design"] = np.hstack([np.ones((len(x), 1)), r["design"][:, 1:]])
    sums, columns = sums_of(r, x)
    found = one_step_test(sums, r["contrasts"][columns].T)
    close(found.each.t, r["ordinary_t"], 1e-8)
    close(found.together.f, r["ordinary_F"], 1e-8)
    assert found.together.df == r["ordinary_F_df1"] == 2


def test_weights_by_batch_are_found_and_used(golden):
    r, x = read(golden, "limma_21_batch_weights_fit")
    sums, columns = sums_of(r, x)
    weighted, weights = with_batch_weights(sums)
    assert np.allclose(np.unique(weights), np.unique(r["weights"]), rtol=1e-12)
    contrasts = (columns == r["tested_columns0"][:, None]).astype(float)
    for variant in ("ordinary", "trend"):
        found = one_step_test(
            weighted, contrasts, observed=sums, trend=variant == "trend"
        )
        close(found.each.t, r[f"{variant}_t"])
        close(found.each.p_value, r[f"{variant}_p_value"])


def test_moments_of_parts_test_as_the_whole(golden):
    r, x = read(golden, "limma_01_bladder_cancer")
    sums, columns = sums_of(r, x)
    contrasts = (columns == r["tested_columns0"][:, None]).astype(float)
    parts = []
    for rows in (slice(0, 20), slice(20, 57)):
        of_batch = [bool(BATCH.fullmatch(name)) for name in r["design_names"]]
        codes = np.unique(r["design"][:, of_batch], axis=0, return_inverse=True)[1]
        design = Design.of(codes.ravel(), 5, r["design"][:, columns])
        parts.append(moments(x[rows], design.take(rows)))
    whole = one_step_test(sums, contrasts)
    merged = one_step_test(parts[0].merge(parts[1]), contrasts)
    np.testing.assert_allclose(merged.each.t, whole.each.t, rtol=1e-9)


def test_a_contrast_is_tested_where_its_own_samples_determine_it():
    """The nested level that no batch shares is NaN, the other is as if it were not there."""
    rng = np.random.default_rng(0)
    codes = np.repeat([0, 1, 2], 6)
    group, nested = np.tile([0.0, 1.0], 9), (codes == 2).astype(float)
    x = rng.normal(size=(18, 40))
    x[codes == 2, 0] = np.nan  # feature 0 has no sample of the last batch
    z = np.stack([group, group * nested], axis=1)
    sums = moments(x, Design.of(codes, covariates=z))
    found = one_step_test(sums, np.eye(2))
    alone = moments(x[:12, :1], Design.of(codes[:12], covariates=group[:12, None]))
    expected = one_step_test(alone, np.eye(1))
    np.testing.assert_allclose(found.each.coefficient[0, 0], expected.each.coefficient)
    np.testing.assert_allclose(found.variance[0], expected.variance)
    assert found.df[0] == expected.df[0]
    assert np.isnan(found.each.t[1, 0])
    assert np.isfinite(found.each.t[:, 1:]).all()
