"""limma's results, case by case: from dense, CSR and Dask matrices and from sums of sites."""

from __future__ import annotations

import re

import dask.array as da
import numpy as np
import pytest
import scipy.sparse as sp

from batchcorr.arrays import moments
from batchcorr.errors import DesignError
from batchcorr.estimators.checks import drop_redundant
from batchcorr.estimators.least_squares import LeastSquares
from batchcorr.estimators.metadata import Labels, Metadata
from batchcorr.estimators.problem import Problem
from batchcorr.estimators.voom import Voom
from batchcorr.estimators.within_subjects import Subjects
from batchcorr.models.one_step_test import moderated

BATCH = re.compile(r"batch\d|bt[bc]|b16\d|nb\d|uv\d|bsq")
TESTED_BATCH = {"limma_16_robust_finite_outliers_zero", "limma_30_test_of_batch"}
"""Where the columns that look like batches are tested: there are no others."""

PLAIN = [
    "limma_01_bladder_cancer",
    "limma_03_bladder_missing",
    "limma_04_bladder_missing_trend",
    "limma_06_bladder_two_batches_covariates",
    "limma_07_bladder_interaction",
    *(f"limma_{name}" for name in ("10_two_df", "11_one_df", "12_zero_variance")),
    "limma_13_mostly_zero_variance",
    *(f"limma_{name}" for name in ("14_infinite_prior_df", "15_outlier_variances")),
    "limma_16_robust_finite_outliers_zero",
    *(f"limma_17_few_genes_{n}" for n in ("01", "02", "03", "05", "06", "29", "30")),
    "limma_19_nested_estimable",
    *(f"limma_{name}" for name in ("28_scales", "29_twenty_batches")),
    "limma_30_test_of_batch",
]
WEIGHTED = ["limma_08_bladder_array_weights", "limma_09_bladder_observation_weights"]
SUBJECTS = [
    f"limma_{name}"
    for name in ("25_block_fit", "26_block_missing_fit", "27_block_weights_fit")
]
LOOSE = {
    "limma_04_bladder_missing_trend": 4e-9,  # its own root for d₀ is not found to the end
    "limma_15_outlier_variances": 4e-9,
    "limma_28_scales": 1e-6,
}
OWN_COVARIANCE = {"missing", "observation", "voom", "block_weights"}
"""Where limma's F takes one correlation of coefficients for features that differ."""

DENSE = {"dense": np.asarray}
KINDS = DENSE | {
    "csr": sp.csr_matrix,
    "dask": lambda x: da.from_array(x, chunks=(len(x) // 2 + 1, -(-x.shape[1] // 2))),
    "sites": None,
}


def read(golden, name):
    """R's results, samples × features, batch labels and the other columns."""
    r = golden(name)
    source = r
    if "input_from" in r:
        source = golden(str(r["input_from"]).removesuffix(".npz"))
    x = np.array(source["counts" if name == "limma_22_voom_fit" else "input"])
    if "use_missing" in r:
        x[source["missing"].astype(bool)] = np.nan
    if "use_input_missing" in r:
        x = np.array(source["input_missing"])
    x = x[:, r["genes0"]] if "genes0" in r else x
    names = [str(each) for each in r["design_names"]]
    of_batch = np.array([bool(BATCH.fullmatch(each)) for each in names])
    of_batch &= name not in TESTED_BATCH
    beside = np.flatnonzero(~of_batch & (np.array(names) != "(Intercept)"))
    batch = None
    if of_batch.any():
        codes = np.unique(r["design"][:, of_batch], axis=0, return_inverse=True)[1]
        batch = np.char.mod("b%d", codes.ravel())
    return r, x, batch, beside


def of_sites(x, labels):
    """The problem of moments that were gathered in three parts."""
    metadata, design = Metadata.fit_transform(len(x), labels)
    site = np.arange(len(x)) % 3
    first, *others = (moments(x[site == k], design.take(site == k)) for k in range(3))
    for part in others:
        first = first.merge(part)
    return Problem.of_moments(first, metadata)


def estimated(case, kind, *, weights=None, voom=None, **options):
    """The estimates of R's tested columns."""
    r, x, batch, beside = case
    labels = Labels(batch, r["design"][:, beside] if len(beside) else None)
    if kind == "sites":
        problem = of_sites(x, labels)
    else:
        x = voom.x if voom else KINDS[kind](x)
        used = None if weights is None else (weights > 0) * 1.0
        problem = Problem.of(x, labels, weights=used)
    columns = drop_redundant(problem)
    tested = (beside == r["tested_columns0"][:, None]).astype(float)
    contrasts = problem.contrasts_as_read(tested, columns)
    method = LeastSquares(x, weights, voom=voom, **options)
    return method.estimates(problem, columns, contrasts)


def close(found, expected, tolerance=1e-9):
    found, expected = np.broadcast_arrays(found, expected)
    np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=1e-14)


def without_dropped(found, expected):
    """What limma says, less what it says only because it dropped another column."""
    partly = np.isnan(expected).any(axis=0) & ~np.isnan(expected).all(axis=0)
    return np.where(partly & np.isnan(found), np.nan, expected)


def compare(name, r, estimates):
    """Compare t, p, s², F of every variant that R was run with."""
    tolerance = LOOSE.get(name, 1e-9)
    checked = 0
    for variant in ("ordinary", "trend", "robust", "trendrobust"):
        if f"{variant}_t" not in r:
            continue
        found = moderated(
            estimates, trend="trend" in variant, robust="robust" in variant
        )
        exact = found.variance < 1e-20  # what exact fits leave is rounding
        variance = np.where(r["df_residual"] > 0, r["sigma"] ** 2, np.nan)
        close(found.variance[~exact], variance[~exact], tolerance)
        close(found.df, r["df_residual"])
        converged = f"{variant}_converged_t" in r
        stem = f"{variant}_converged_" if converged else f"{variant}_"
        t = without_dropped(found.each.t, r[f"{stem}t"])
        close(found.each.t[:, ~exact], t[:, ~exact], tolerance)
        checked += 1
        if "robust" in variant:
            continue
        p_value = without_dropped(found.each.p_value, r[f"{variant}_p_value"])
        close(found.each.p_value[:, ~exact], p_value[:, ~exact], tolerance)
        own = any(word in name for word in OWN_COVARIANCE)
        if found.together is not None and not own:
            close(found.together.f[~exact], r[f"{variant}_F"][~exact], tolerance)
            p_value = r[f"{variant}_F_p_value"]
            close(found.together.p_value[~exact], p_value[~exact], tolerance)
    assert checked


def same(found, wanted):
    """Compare the estimates from two kinds of matrix."""
    for one, two in zip(found[:5], wanted[:5], strict=True):
        size = np.nanmax(np.abs(two), initial=0)
        np.testing.assert_allclose(one, two, rtol=1e-10, atol=1e-12 * size)


@pytest.mark.filterwarnings("ignore::batchcorr.errors.BatchCorrWarning")
@pytest.mark.parametrize("name", PLAIN)
def test_equal_to_limma(golden, name):
    case = read(golden, name)
    wanted = estimated(case, "dense")
    compare(name, case[0], wanted)
    for kind in KINDS:
        if kind == "csr" and np.isnan(case[1]).any():
            continue  # a sparse matrix holds no missing values
        same(estimated(case, kind), wanted)


@pytest.mark.parametrize("name", WEIGHTED)
def test_weights_of_samples_and_values(golden, name):
    case = read(golden, name)
    found = {}
    for kind in ("dense", "csr", "dask"):
        found[kind] = estimated(case, kind, weights=case[0]["weights"])
        same(found[kind], found["dense"])
    compare(name, case[0], found["dense"])


@pytest.mark.parametrize("kind", ["dense", "sites"])
def test_one_variance_a_batch(golden, kind):
    case = read(golden, "limma_21_batch_weights_fit")
    compare("limma_21", case[0], estimated(case, kind, equal_variances=False))


@pytest.mark.parametrize("kind", ["dense", "csr", "csc", "float32"])
def test_voom(golden, kind):
    r, x, batch, beside = read(golden, "limma_22_voom_fit")
    kinds = KINDS | {"csc": sp.csc_array, "float32": lambda x: x.astype(np.float32)}
    voom = Voom.of(kinds[kind](x))
    compare("voom", r, estimated((r, x, batch, beside), kind, voom=voom))


@pytest.mark.parametrize("name", SUBJECTS)
def test_subjects(golden, name):
    case = read(golden, name)
    r, x = case[:2]
    found = {}
    for kind in ("dense", "csr", "dask"):
        if kind == "csr" and np.isnan(x).any():
            continue
        subjects = Subjects.of(r["block"], x.shape)
        options = {"weights": r.get("weights"), "subjects": subjects}
        found[kind] = estimated(case, kind, **options)
        same(found[kind], found["dense"])
    wanted = float(r["correlation"])
    assert found["dense"].correlation == pytest.approx(wanted, rel=1e-10)
    compare(name, r, found["dense"])


def test_contrasts_of_levels(golden):
    """Three contrasts of three levels: two are independent."""
    r, x, batch, beside = read(golden, "limma_02_bladder_contrasts")
    problem = Problem.of(x, Labels(batch, r["design"][:, beside[1:]]))
    estimates = LeastSquares().estimates(problem, [0, 1], r["contrasts"][beside[1:]].T)
    found = moderated(estimates)
    close(found.each.t, r["ordinary_t"], 1e-8)
    close(found.together.f, r["ordinary_F"], 1e-8)
    assert found.together.df == r["ordinary_F_df1"] == 2


def test_a_column_that_limma_drops_is_refused_by_name(golden):
    case = read(golden, "limma_18_nested_not_estimable")
    with pytest.raises(DesignError, match="confounded with batch"):
        estimated(case, "dense")
