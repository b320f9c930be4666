"""Factors of unwanted variation from products of samples, against RUV by its formulas."""

from __future__ import annotations

import numpy as np
import pytest

from batchcorr.models.unwanted_factors import factors_of_controls, factors_of_replicates
from tests.models.test_surrogate_variables import same_up_to_signs


@pytest.fixture(scope="module")
def logs(golden):
    return np.log(golden("sva_more_09_svaseq")["counts"] + 1.0)


def test_controls(golden, logs):
    r = golden("sva_more_11_ruvg")
    controls = logs[:, r["controls0"]]
    products = controls @ controls.T
    for k in (1, 2, 3):
        same_up_to_signs(factors_of_controls(products, k), r[f"k{k}_W"], 1e-10)
    w = factors_of_controls(products, 1)
    corrected = logs - w @ (w.T @ logs)
    np.testing.assert_allclose(corrected, r["k1_corrected_log"], atol=1e-10)
    raw = factors_of_controls(products, 2, np.empty((len(products), 0)))
    same_up_to_signs(raw, r["not_centred_k2_W"], 1e-10)


def test_replicates(golden, logs):
    r = golden("sva_more_12_ruvs")
    sets = [rows[rows >= 0] for rows in r["groups0"]]
    products = logs @ logs.T
    w, a = factors_of_replicates(products, products, sets, 2)
    same_up_to_signs(w, r["k2_W"], 1e-10)
    counts = np.maximum(np.round(np.exp(logs - w @ (a @ logs)) - 1), 0)
    np.testing.assert_array_equal(counts, r["k2_corrected_counts"])
    controls = logs[:, r["controls0"]]
    w, _ = factors_of_replicates(products, controls @ controls.T, sets, 3)
    same_up_to_signs(w, r["controls_k3_W"], 1e-10)


def test_replicates_and_controls_are_those_of_ruv_iii(golden):
    """U of the replicates' differences R Y has Uᵀ R = Uᵀ, so that α is RUV-III's Uᵀ Y."""
    r = golden("sva_more_14_ruv3")
    y = golden(str(r["input_from"]).removesuffix(".npz"))[str(r["input_key"])]
    y = y[:, r["genes0"]]
    codes, controls = r["replicate_set"], y[:, r["controls0"]]
    sets = [np.flatnonzero(codes == each) for each in np.unique(codes)]
    for k in (1, 3):
        w, a = factors_of_replicates(y @ y.T, controls @ controls.T, sets, k)
        np.testing.assert_allclose(y - w @ (a @ y), r[f"k{k}_corrected"], atol=1e-10)
    same_up_to_signs(w, r["k3_W"], 1e-10)
    same_up_to_signs((a @ y).T, r["k3_alpha"].T, 1e-10)


def test_residuals(golden):
    r = golden("sva_more_13_ruvr")
    residuals = r["deviance_residuals"]
    found = factors_of_controls(residuals @ residuals.T, 2)
    same_up_to_signs(found, r["k2_W"], 1e-10)


def test_no_more_factors_than_there_are(logs):
    one = logs[:, :1]
    assert factors_of_controls(one @ one.T, 3).shape == (24, 1)
    w, a = factors_of_replicates(logs @ logs.T, logs @ logs.T, [[0, 1], [5]], 3)
    assert w.shape == (24, 1)
    assert a.shape == (1, 24)


def test_no_more_factors_than_controls():
    """A K_c Aᵀ of three factors over two controls has no inverse."""
    x = np.random.default_rng(0).normal(size=(12, 8))
    sets = [range(k, k + 2) for k in range(0, 12, 2)]
    factors, loadings = factors_of_replicates(x @ x.T, x[:, :2] @ x[:, :2].T, sets, 3)
    assert factors.shape == (12, 2)
    two = factors_of_replicates(x @ x.T, x[:, :2] @ x[:, :2].T, sets, 2)
    np.testing.assert_allclose(factors, two[0])
    np.testing.assert_allclose(loadings, two[1])


def test_what_large_means_leave_of_rounding_is_no_factor():
    """Two true factors of size 1e-3 beside means of 1e3: a third would be rounding."""
    rng = np.random.default_rng(0)
    y = 1e3 + 1e-3 * rng.normal(size=(20, 2)) @ rng.normal(size=(2, 9))
    assert factors_of_controls(y @ y.T, 5).shape[1] <= 2


def test_units_do_not_matter():
    rng = np.random.default_rng(0)
    y = rng.normal(size=(12, 9)) + 8
    sets = [range(k, k + 2) for k in range(0, 12, 2)]
    products, small = y @ y.T, 2.0**-80 * (y @ y.T)
    for both in (
        [factors_of_controls(given, 3) for given in (products, small)],
        [
            factors_of_replicates(given, given, sets, 3)[0]
            for given in (products, small)
        ],
    ):
        assert both[0].shape == (12, 3)
        same_up_to_signs(both[1] / both[0].std(), both[0] / both[0].std(), 1e-9)
