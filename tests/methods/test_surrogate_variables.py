"""The estimator of surrogate variables, against sva and RUVSeq, and what it promises."""

from __future__ import annotations

import dask.array as da
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import batchcorr as bc
from batchcorr.errors import CovariateWarning, DesignError, InputError


def same_up_to_signs(found, expected, tolerance=1e-8):
    assert found.shape == expected.shape
    signs = np.sign((found * expected).sum(axis=0))
    np.testing.assert_allclose(found * signs, expected, atol=tolerance)


@pytest.fixture
def logs(golden):
    """The counts of the golden cases of RUV, and their logarithms."""
    counts = golden("sva_more_09_svaseq")["counts"]
    return np.log(counts + 1)


@pytest.fixture
def hidden():
    """Logs with a batch that nobody wrote down and a group that is known."""
    rng = np.random.default_rng(0)
    batch, group = rng.permutation(np.repeat([0, 1], 12)), np.tile([0, 1], 12)
    x = rng.normal(6, 1, (24, 300))
    x[:, :120] += 1.5 * batch[:, None] * rng.normal(1, 0.3, 120)
    x[:, 90:150] += group[:, None]
    return x, batch, group


def test_irw(golden):
    r = golden("sva_more_04_irw_bladder")
    x = golden(str(r["input_from"]).removesuffix(".npz"))["input"]
    found = bc.SurrogateVariables(3).fit(x, covariates=r["mod"][:, 1:])
    same_up_to_signs(found.columns_, r["sv"])
    weights = r["pprob_gam"] * (1 - r["pprob_b"])
    np.testing.assert_allclose(found.weights_, weights, atol=1e-8)


def test_known_batches_are_in_both_models(golden):
    r = golden("sva_more_05_irw_known_batch")
    x = golden(str(r["input_from"]).removesuffix(".npz"))[str(r["input_key"])]
    known = r["mod0"][:, 1:]
    for covariates in (r["mod"][:, 1:], r["mod"][:, [2]]):  # null is in any case
        found = bc.SurrogateVariables(2).fit(x, covariates=covariates, null=known)
        same_up_to_signs(found.columns_, r["sv"])


def test_two_step_and_supervised(golden):
    r = golden("sva_more_07_two_step")
    x = golden(str(r["input_from"]).removesuffix(".npz"))["input"]
    two = bc.SurrogateVariables(int(r["n_sv_asked"]), method="two_step")
    with pytest.warns(
        CovariateWarning, match="2 surrogate variables were found, although 4"
    ):
        two.fit(x, covariates=r["mod"][:, 1:])
    same_up_to_signs(two.columns_, r["sv"])
    r = golden("sva_more_08_supervised")
    x = golden(str(r["input_from"]).removesuffix(".npz"))[str(r["input_key"])].copy()
    x[:, r["zero_genes0"]] = 0
    found = bc.SurrogateVariables(3, method="supervised").fit(x, controls=r["controls"])
    same_up_to_signs(found.columns_, r["sv"])


@pytest.mark.parametrize("k", [1, 3])
def test_new_samples(golden, k, tmp_path):
    r = golden("sva_more_10_fsva")
    x = golden(str(r["input_from"]).removesuffix(".npz"))[str(r["input_key"])]
    training, new = (x[r[f"{which}_samples0"]] for which in ("training", "new"))
    found = bc.SurrogateVariables(k).fit(training, covariates=r["mod"][:, 1:])
    same_up_to_signs(found.columns_, r[f"nsv{k}_sv"])
    found.save(tmp_path / "sv.npz")
    loaded = bc.load(tmp_path / "sv.npz")
    for each in (found, loaded):
        exact, fast = each.transform(new), each.transform(new, fast=True)
        same_up_to_signs(exact, r[f"nsv{k}_exact_sv"])
        same_up_to_signs(fast, r[f"nsv{k}_fast_sv"])
    alone = np.vstack([found.transform(row[None]) for row in new])
    np.testing.assert_array_equal(alone, exact)
    np.testing.assert_array_equal(loaded.columns_, found.columns_)
    with pytest.raises(InputError, match="at least two"):
        found.transform(new[:1], fast=True)


KINDS = [
    np.asarray,
    sp.csr_matrix,
    sp.csc_matrix,
    lambda x: da.from_array(x, chunks=(7, 60)),
    lambda x: da.from_array(x, chunks=(7, 60)).map_blocks(sp.csr_matrix),
]


@pytest.mark.parametrize("make", KINDS, ids=["numpy", "csr", "csc", "dask", "dask-csr"])
def test_ruv(golden, logs, make):
    x = make(logs)
    r = golden("sva_more_11_ruvg")
    controls = np.isin(np.arange(logs.shape[1]), r["controls0"])
    for k in (1, 2, 3):
        ruvg = bc.SurrogateVariables(k, method="ruvg").fit(x, controls=controls)
        same_up_to_signs(ruvg.columns_, r[f"k{k}_W"])
        np.testing.assert_allclose(ruvg.transform(x), ruvg.columns_, atol=1e-10)
    r = golden("sva_more_12_ruvs")
    labels = np.full(len(logs), None, dtype=object)
    for which, rows in enumerate(r["groups0"]):
        labels[rows[rows >= 0]] = f"set {which}"
    assert len(set(labels)) == len(r["groups0"]) + 1  # sets share no sample
    controls = np.isin(np.arange(logs.shape[1]), r["controls0"])
    ruvs = bc.SurrogateVariables(2, method="ruvs").fit(x, replicates=labels)
    same_up_to_signs(ruvs.columns_, r["k2_W"])
    ruvs = bc.SurrogateVariables(3, method="ruvs")
    ruvs.fit(x, replicates=labels, controls=controls)
    same_up_to_signs(ruvs.columns_, r["controls_k3_W"])
    np.testing.assert_allclose(ruvs.transform(x[:5]), ruvs.columns_[:5], atol=1e-10)


def test_ruv_of_residuals_is_ruvg_of_them(logs, golden):
    mod = golden("sva_more_13_ruvr")["design"]
    found = bc.SurrogateVariables(2, method="ruvr").fit(logs, covariates=mod[:, 1:])
    left = logs - mod @ np.linalg.lstsq(mod, logs, rcond=None)[0]
    everywhere = np.ones(logs.shape[1])
    same = bc.SurrogateVariables(2, method="ruvg").fit(left, controls=everywhere)
    same_up_to_signs(found.columns_, same.columns_)
    with pytest.raises(InputError, match="would need their covariates"):
        found.transform(logs)


def test_the_number_is_chosen_and_the_batch_is_found(hidden):
    x, batch, group = hidden
    found = bc.SurrogateVariables().fit(x, covariates=group[:, None])
    assert found.columns_.shape == (24, 1)
    assert np.corrcoef(found.columns_[:, 0], batch)[0, 1] ** 2 > 0.95
    assert found.p_values_[0] == 0
    again = bc.SurrogateVariables().fit(sp.csr_matrix(x), covariates=group[:, None])
    np.testing.assert_array_equal(again.columns_, found.columns_)
    noise = np.random.default_rng(1).normal(6, 1, x.shape)
    with pytest.warns(CovariateWarning, match="No surrogate variable"):
        none = bc.SurrogateVariables().fit(noise, covariates=group[:, None])
    assert none.columns_.shape == none.transform(x).shape == (24, 0)


def test_features_that_never_vary_change_nothing(hidden):
    x, _, group = hidden
    more = np.insert(x, [0, 100], 3.0, axis=1)
    found, expected = (
        bc.SurrogateVariables(1).fit(each, covariates=group[:, None])
        for each in (more, x)
    )
    np.testing.assert_array_equal(found.columns_, expected.columns_)
    assert (found.weights_[[0, 101]] == 0).all()


REFUSED = {
    "no such method": ({"method": "svd"}, {}, "no method 'svd'"),
    "nothing of interest": ({}, {"covariates": None}, "none is given"),
    "all is null": ({}, {"null": True}, "none is given"),
    "no controls": ({"method": "ruvg", "n_variables": 1}, {}, "needs controls="),
    "no replicates": ({"method": "ruvs", "n_variables": 1}, {}, "needs replicates="),
    "no number": ({"method": "ruvr"}, {}, "cannot choose the number"),
    "too many": ({"n_variables": 22}, {}, "at most 21 are possible"),
    "no number at all": ({"n_variables": 1.5}, {}, "whole number"),
    "controls for sva": ({}, {"controls": np.ones(300)}, "takes no controls"),
    "one replicate each": (
        {"method": "ruvs", "n_variables": 1},
        {"replicates": np.arange(24)},
        "No two samples",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_refusals(hidden, what):
    x, _, group = hidden
    options, given, message = REFUSED[what]
    table = pd.DataFrame({"group": group.astype(str)})
    given = {"covariates": table} | given
    if given.get("null"):
        given["null"] = table
    with pytest.raises(InputError, match=message):
        bc.SurrogateVariables(**options).fit(x, **given)


def test_refusals_of_values(hidden):
    x, _, group = hidden
    group = group[:, None]
    missing = x.copy()
    missing[3, 5] = np.nan
    table = pd.DataFrame(missing, columns=[f"g{k}" for k in range(300)])
    with pytest.raises(InputError, match=r"1 features have missing, .*\(g5\)"):
        bc.SurrogateVariables(1).fit(table, covariates=group)
    twice = np.hstack([group, 2.0 * group])
    with pytest.raises(DesignError, match="are determined by the covariates before"):
        bc.SurrogateVariables(1).fit(x, covariates=twice)
    with pytest.raises(InputError, match="5 features vary"):
        bc.SurrogateVariables(1).fit(x[:, :5], covariates=group)
