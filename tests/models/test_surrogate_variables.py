"""Surrogate variables and their steps, against sva."""

from __future__ import annotations

import numpy as np
import pytest

from batchcorr.models.frozen_surrogates import exact_columns, fast_columns
from batchcorr.models.local_fdr import local_fdr
from batchcorr.models.surrogate_variables import (
    count_variables,
    find_by_reweighting,
    find_in_two_steps,
    find_with_controls,
    nested_p,
    residuals,
)


@pytest.fixture
def case(golden):
    """Read a golden file with its input, which may stand in another one."""

    def read(name):
        r = golden(name)
        if "input" not in r:
            source = golden(str(r["input_from"]).removesuffix(".npz"))
            x = source[str(r["input_key"])] if "input_key" in r else source["input"]
            r["input"] = x[:, r["genes0"]] if "genes0" in r else x
        return r

    return read


def same_up_to_signs(found, expected, tolerance=1e-8):
    signs = np.sign((found * expected).sum(axis=0))
    np.testing.assert_allclose(found * signs, expected, atol=tolerance)


@pytest.mark.parametrize(
    "kind", ["extreme", "few", "high", "mixture", "tied", "uniform"]
)
def test_local_fdr(golden, kind):
    r = golden("sva_more_03_edge_lfdr")
    found = local_fdr(r[f"{kind}_p"])
    np.testing.assert_allclose(found, r[f"{kind}_lfdr"], atol=1e-12)


@pytest.mark.parametrize(
    "name",
    [
        "sva_more_04_irw_bladder",
        "sva_more_05_irw_known_batch",
        "sva_more_06_irw_one_sv_no_mod0",
    ],
)
def test_reweighting(case, name):
    r = case(name)
    null = r.get("mod0", r["mod"][:, :1])
    n_rounds = int(r["B"])
    found = find_by_reweighting(
        r["input"], r["mod"], null, int(r["n_sv"]), rounds=n_rounds
    )
    same_up_to_signs(found.columns, r["sv"])
    np.testing.assert_allclose(found.hidden, r["pprob_gam"], atol=1e-9)
    np.testing.assert_allclose(found.known, r["pprob_b"], atol=1e-9)


def test_no_more_columns_than_the_rank():
    """What is beyond it would be rounding errors."""
    x = np.random.default_rng(0).normal(size=(20, 2)) @ np.eye(2, 30)
    assert find_with_controls(x, np.ones(30), 5).columns.shape == (20, 2)


@pytest.mark.parametrize("seed", range(20))
def test_few_features_in_any_order_give_the_same_columns(seed):
    rng = np.random.default_rng(seed)
    x, group = rng.normal(size=(8, 18)), np.eye(4)[[0, 0, 1, 1, 2, 2, 3, 3]]
    one, other = (
        find_by_reweighting(x[:, order], group, np.ones((8, 1)), 3).columns
        for order in (slice(None), rng.permutation(18))
    )
    assert one.shape == other.shape
    same_up_to_signs(one, other, 1e-6)


def test_the_f_tests_of_the_last_round(case):
    r = case("sva_more_04_irw_bladder")
    x, mod, mod0 = r["input"], r["mod"], r["mod0"]
    before = r["round_sv"][:, 9:12]  # columns of the round before the last
    both = np.hstack([mod0, before])
    np.testing.assert_allclose(
        nested_p(x, np.hstack([mod, before]), both), r["round_p_b"][4], atol=1e-12
    )
    np.testing.assert_allclose(nested_p(x, both, mod0), r["round_p_gam"][4], atol=1e-12)


def test_two_steps(case):
    r = case("sva_more_07_two_step")
    found = find_in_two_steps(r["input"], r["mod"], int(r["n_sv_asked"]))
    same_up_to_signs(found.columns, r["sv"])
    np.testing.assert_array_equal(found.hidden, r["pprob_gam"])


def test_with_controls(case):
    r = case("sva_more_08_supervised")
    x = r["input"].copy()
    x[:, r["zero_genes0"]] = 0
    same_up_to_signs(find_with_controls(x, r["controls"], 3).columns, r["sv"])


def test_logs_of_counts_are_svaseq(golden):
    r = golden("sva_more_09_svaseq")
    found = find_by_reweighting(np.log(r["counts"] + 1), r["mod"], r["mod0"], 2)
    same_up_to_signs(found.columns, r["sv"])


def test_the_number_of_variables(golden):
    r = golden("sva_more_01_num_sv_be")
    shuffles = iter(r["permutations0"].reshape(int(r["B"]), *r["input"].T.shape))
    count, p = count_variables(
        r["input"], r["mod"], lambda: next(shuffles), rounds=int(r["B"])
    )
    assert count == r["n_sv"]
    np.testing.assert_array_equal(p, r["p"])


@pytest.mark.parametrize("k", [1, 3])
def test_new_samples(case, k):
    r = case("sva_more_10_fsva")
    training, new = (r["input"][r[f"{w}_samples0"]] for w in ("training", "new"))
    weights, columns = r[f"nsv{k}_weights"], r[f"nsv{k}_sv"]
    for function, way in ((fast_columns, "fast"), (exact_columns, "exact")):
        found = function(training, weights, columns, new)
        np.testing.assert_allclose(found, r[f"nsv{k}_{way}_sv"], atol=1e-10)


def test_a_hidden_batch_is_found():
    rng = np.random.default_rng(0)
    hidden, group = np.repeat([-1.0, 1.0], 15), np.tile([0.0, 1.0], 15)
    x = rng.normal(size=(30, 500))
    x[:, :200] += hidden[:, None] * rng.normal(size=200)
    x[:, 150:250] += group[:, None] * rng.normal(size=100)
    one = np.ones((30, 1))
    model = np.hstack([one, group[:, None]])
    column = find_by_reweighting(x, model, one, 1).columns[:, 0]
    assert abs(np.corrcoef(column, hidden)[0, 1]) > 0.95
    assert abs(np.corrcoef(column, group)[0, 1]) < 0.3
    assert np.abs(model.T @ residuals(x, model)).max() < 1e-9


def test_what_the_smaller_model_explains_is_not_explained_better():
    rng = np.random.default_rng(0)
    smaller = np.column_stack([np.ones(12), rng.normal(size=12)])
    x = np.column_stack([3000 + 700 * smaller[:, 1], rng.normal(size=12)])
    p = nested_p(x, np.column_stack([smaller, rng.normal(size=12)]), smaller)
    assert p[0] == 1
    assert 0 < p[1] < 1


def test_what_is_left_beside_rounding_errors_is_no_evidence():
    rng = np.random.default_rng(0)
    model = np.hstack([np.ones((9, 1)), rng.normal(size=(9, 2))])
    x = 1e6 * model[:, [1]] + np.outer(model[:, 2], [1e-4, 1.0])
    p_value = nested_p(x, model, model[:, :2])
    assert p_value[0] == 1.0
    assert p_value[1] < 1e-9
