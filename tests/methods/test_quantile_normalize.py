"""Quantile normalization: limma's, its target frozen, each sample by its own ranks."""

from __future__ import annotations

import json

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import sklearn
from sklearn.base import clone
from sklearn.pipeline import make_pipeline

import batchcorr as bc
from batchcorr.errors import (
    DensifyWarning,
    DesignError,
    FileError,
    InputError,
    MissingKeyError,
    TooLargeError,
    ViewWarning,
)
from batchcorr.methods import get
from batchcorr.models.quantiles import sorted_values, to_quantiles

BATCH = np.array(["a"] * 4 + ["b"] * 9)
quiet_dense = pytest.mark.filterwarnings("ignore::batchcorr.errors.DensifyWarning")


def make_values(seed=0, n=13, n_features=60):
    """Values of two batches apart in location and spread, some of them tied."""
    rng = np.random.default_rng(seed)
    x = rng.gamma(3, 1, (n, n_features)) + rng.normal(0, 1, n_features)
    x[:4] = 2 * x[:4] + 3
    return np.round(x * 8) / 8


def make_missing(seed=0):
    x = make_values(seed)
    x[np.random.default_rng(seed).random(x.shape) < 0.1] = np.nan
    return x


# -- what others compute -----------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "expected"),
    [("input", "ties_true"), ("input_missing", "missing_ties_true")],
)
def test_ties_share_their_average_rank_as_in_limma(golden, given, expected):
    case = golden("quantile_01_small")
    found = bc.QuantileNormalize().fit_transform(case[given])
    np.testing.assert_allclose(found, case[expected], rtol=1e-14)


@pytest.mark.parametrize(
    ("given", "expected"),
    [("input", "ties_false"), ("input_missing", "missing_ties_false")],
)
def test_ties_take_neighbouring_ranks_as_in_limma(golden, given, expected):
    """Which of tied values comes first is an accident of R's quicksort, and not ours."""
    case = golden("quantile_01_small")
    found = bc.QuantileNormalize(ties=False).fit_transform(case[given])
    np.testing.assert_array_equal(np.isnan(found), np.isnan(case[expected]))
    for x, y, of_r in zip(case[given], found, case[expected], strict=True):
        for value in np.unique(x[~np.isnan(x)]):
            tied = x == value
            np.testing.assert_allclose(y[tied], np.sort(of_r[tied]), rtol=1e-14)


@pytest.mark.parametrize("suffix", ["", "_rounded"])
@quiet_dense
def test_real_arrays_as_in_limma(golden, stored, suffix):
    case = golden("quantile_02_bladder")
    found = bc.QuantileNormalize().fit_transform(stored.of(case[f"input{suffix}"]))
    expected = case[f"expected{suffix}"]
    if found.dtype == np.float64:
        np.testing.assert_allclose(found, expected, rtol=1e-12)
    else:  # rounding to float32 makes some values equal
        close = np.isclose(found, expected, rtol=1e-6, atol=0)
        assert close.mean() > 0.999
        np.testing.assert_allclose(found, expected, atol=0.03)


def test_ranks_alone_as_in_edaseq(golden):
    case = golden("edaseq_between_lane")
    counts = case["counts"].astype(np.float64)
    target = np.median(sorted_values(counts), axis=0)
    found = to_quantiles(counts, target, ties=False)
    np.testing.assert_array_equal(found, case["full"])


# -- what must hold ----------------------------------------------------------------


def test_all_samples_have_one_distribution():
    x = make_values() + np.random.default_rng(1).uniform(0, 1e-3, (13, 60))
    step = bc.QuantileNormalize()
    found = step.fit_transform(x)
    np.testing.assert_allclose(np.sort(found, axis=1), [step.target_] * 13, rtol=1e-14)
    np.testing.assert_allclose(
        step.target_, np.sort(x, axis=1).mean(axis=0), rtol=1e-14
    )
    np.testing.assert_array_equal(found.argsort(axis=1), x.argsort(axis=1))


@pytest.mark.parametrize("ties", [True, False])
def test_ties(ties):
    found = bc.QuantileNormalize(ties=ties).fit_transform(make_values())
    for x, y in zip(make_values(), found, strict=True):
        assert (len(np.unique(y)) == len(np.unique(x))) == ties


def test_the_target_of_batches_alike():
    x = make_values()
    step = bc.QuantileNormalize().fit(x, batch=BATCH)
    ordered = np.sort(x, axis=1)
    means = [ordered[b == BATCH].mean(axis=0) for b in "ab"]
    np.testing.assert_allclose(step.target_, np.mean(means, axis=0), rtol=1e-14)
    found = step.transform(x)
    alone = bc.QuantileNormalize().fit_transform(x)
    np.testing.assert_array_equal(found.argsort(axis=1), alone.argsort(axis=1))


@pytest.mark.parametrize("reference", ["a", "b"])
def test_the_target_of_a_reference_batch(reference):
    x = make_values()
    step = bc.QuantileNormalize(reference=reference)
    found = step.fit_transform(x, batch=BATCH)
    own = bc.QuantileNormalize().fit(x[reference == BATCH])
    np.testing.assert_allclose(step.target_, own.target_, rtol=1e-14)
    np.testing.assert_allclose(found, own.transform(x), rtol=1e-13)


def test_references_match_as_text():
    x, batch = make_values(), np.where(BATCH == "a", 1, 2)
    one = bc.QuantileNormalize(reference="2").fit(x, batch=batch)
    two = bc.QuantileNormalize(reference=2).fit(x, batch=batch)
    np.testing.assert_array_equal(one.target_, two.target_)


def test_missing_values_stay_missing():
    x = make_missing()
    step = bc.QuantileNormalize()
    found = step.fit_transform(x)
    np.testing.assert_array_equal(np.isnan(found), np.isnan(x))
    lowest, highest = np.nanmin(found, axis=1), np.nanmax(found, axis=1)
    untied = np.nansum(x == np.nanmax(x, axis=1, keepdims=True), axis=1) == 1
    np.testing.assert_allclose(highest[untied], step.target_[-1], rtol=1e-14)
    assert (lowest >= step.target_[0]).all()


def test_a_sample_of_one_value_gets_the_middle():
    x = make_values()
    x[2, 1:] = np.nan
    step = bc.QuantileNormalize().fit(make_values())
    middle = step.target_[29:31].mean()
    assert step.transform(x)[2, 0] == pytest.approx(middle, rel=1e-14)
    assert np.isfinite(bc.QuantileNormalize().fit(x).target_).all()


def test_one_feature():
    x = np.array([[1.0], [3.0]])
    np.testing.assert_array_equal(bc.QuantileNormalize().fit_transform(x), [[2], [2]])


# -- contracts ---------------------------------------------------------------------


def test_integers_become_the_float_that_holds_them():
    x = np.random.default_rng(0).poisson(9, (5, 30))
    expected = bc.QuantileNormalize().fit_transform(x.astype(float))
    found = bc.QuantileNormalize().fit_transform(x.astype(np.uint16))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    x += 1 << 30  # neighbours in float32 are 64 apart there
    found = bc.QuantileNormalize().fit_transform(x)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, expected + (1 << 30), rtol=1e-14)


@pytest.mark.parametrize("ties", [True, False])
@pytest.mark.parametrize("make", [make_values, make_missing])
def test_a_sample_is_mapped_alike_alone_and_beside_others(make, ties):
    x = make()
    step = bc.QuantileNormalize(ties=ties).fit(x[:9])
    whole = step.transform(x)
    for rows in ([12], [3, 11]):
        np.testing.assert_array_equal(step.transform(x[rows]), whole[rows])
    assert step.transform(x[:0]).shape == (0, 60)


def test_threads_do_not_matter(threads):
    x = np.random.default_rng(0).normal(size=(400, 9000)).astype(np.float32)
    expected = bc.QuantileNormalize().fit_transform(x)
    threads(1)
    found = bc.QuantileNormalize().fit_transform(x)
    np.testing.assert_array_equal(found, expected)


def test_what_is_saved_is_what_is_loaded(tmp_path):
    table = pd.DataFrame(make_values(), columns=[f"g{j}" for j in range(60)])
    step = bc.QuantileNormalize(ties=False, reference="b").fit(table, batch=BATCH)
    step.save(tmp_path / "step.npz")
    loaded = bc.load(tmp_path / "step.npz")
    assert loaded.get_params() == step.get_params()
    np.testing.assert_array_equal(
        loaded.transform(make_values(1)), step.transform(make_values(1))
    )
    np.savez(
        tmp_path / "short.npz",
        **dict(np.load(tmp_path / "step.npz")) | {"target": step.target_[1:]},
    )
    with pytest.raises(FileError, match="it is damaged"):
        bc.load(tmp_path / "short.npz")


def test_in_place_only_if_asked():
    x = make_values()
    expected = bc.QuantileNormalize().fit_transform(x)
    np.testing.assert_array_equal(x, make_values())
    assert bc.QuantileNormalize(copy=False).fit_transform(x) is x
    np.testing.assert_array_equal(x, expected)


def test_parameters_and_pipelines():
    step = clone(bc.QuantileNormalize(ties=False)).set_params(ties=True)
    x = make_values()
    with sklearn.config_context(enable_metadata_routing=True):
        pipeline = make_pipeline(step, bc.Standardize())
        found = pipeline.fit_transform(x, batch=BATCH)
    same = bc.QuantileNormalize().fit_transform(x, batch=BATCH)
    expected = bc.Standardize().fit_transform(same, batch=BATCH)
    np.testing.assert_array_equal(found, expected)
    assert get("quantile_normalize") is bc.QuantileNormalize


def test_the_batch_in_a_column():
    table = pd.DataFrame(make_values(), columns=[f"g{j}" for j in range(60)])
    step = bc.QuantileNormalize(batch_column="batch", reference="b")
    found = step.fit_transform(table.assign(batch=BATCH))
    expected = bc.QuantileNormalize(reference="b").fit_transform(table, batch=BATCH)
    np.testing.assert_array_equal(found, expected)


# -- what is refused ---------------------------------------------------------------


def put(value, where):
    x = make_values()
    x[where] = value
    return x


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (put(np.inf, (3, 4)), "infinite values"),
        (put(np.nan, 5), r"1 of 13 samples have no values \(first: row 5\)"),
        (sp.csr_array(put(np.nan, (3, 4))), "sparse matrix contains missing"),
        (sp.csr_array(put(-np.inf, (3, 4))), "infinite values"),
        (np.zeros((0, 3)), "nothing to fit"),
        (np.array([["a"]]), "real numbers"),
    ],
)
@quiet_dense
def test_what_has_no_distribution(x, message):
    with pytest.raises(InputError, match=message):
        bc.QuantileNormalize().fit(x)
    if x.shape == (13, 60):
        with pytest.raises(InputError, match=message):
            bc.QuantileNormalize().fit(make_values()).transform(x)


def test_batches_and_references_that_do_not_fit():
    x = make_values()
    with pytest.raises(InputError, match="give batch= to fit"):
        bc.QuantileNormalize(reference="a").fit(x)
    with pytest.raises(InputError, match=r"'c' is not one of the batches.*'a', 'b'"):
        bc.QuantileNormalize(reference="c").fit(x, batch=BATCH)
    with pytest.raises(InputError, match="13"):
        bc.QuantileNormalize().fit(x, batch=BATCH[:5])
    with pytest.raises(DesignError, match="missing"):
        bc.QuantileNormalize().fit(x, batch=[None, *BATCH[1:]])
    with pytest.raises(InputError, match="59 features"):
        bc.QuantileNormalize().fit(x).transform(x[:, 1:])
    with pytest.raises(sklearn.exceptions.NotFittedError):
        bc.QuantileNormalize().transform(x)


def test_values_that_are_not_in_memory():
    array = pytest.importorskip("dask.array")
    with pytest.raises(InputError, match=r"must be in memory.*compute\(\)"):
        bc.QuantileNormalize().fit(array.from_array(make_values()))


# -- on AnnData --------------------------------------------------------------------


def make_adata(of=np.asarray):
    obs = pd.DataFrame({"batch": BATCH}, index=[f"s{i}" for i in range(13)])
    return ad.AnnData(of(make_values()), obs=obs)


def test_x_in_place_and_its_record():
    adata = make_adata()
    x = adata.X
    bc.pp.quantile_normalize(adata, "batch", reference="b")
    assert adata.X is x
    expected = bc.QuantileNormalize(reference="b").fit(make_values(), batch=BATCH)
    np.testing.assert_array_equal(x, expected.transform(make_values()))
    record = json.loads(adata.uns["batchcorr"]["X"])
    assert record["batch"] == "batch"
    assert record["parameters"] == {"ties": True, "reference": "b"}
    bc.pp.combat(adata, "batch")
    record = json.loads(adata.uns["batchcorr"]["X"])
    assert record["method"] == "combat"
    assert [step["method"] for step in record["earlier"]] == ["quantile_normalize"]


def test_layers_copies_and_views():
    adata = make_adata()
    expected = bc.QuantileNormalize().fit_transform(make_values())
    made = bc.pp.quantile_normalize(adata, copy=True)
    np.testing.assert_array_equal(made.X, expected)
    bc.pp.quantile_normalize(adata, key_added="even")
    np.testing.assert_array_equal(adata.layers["even"], expected)
    np.testing.assert_array_equal(adata.X, make_values())
    adata.layers["same"] = adata.X
    bc.pp.quantile_normalize(adata)
    np.testing.assert_array_equal(adata.layers["same"], make_values())
    view = adata[2:9]
    with pytest.warns(ViewWarning):
        bc.pp.quantile_normalize(view, layer="same")
    assert not view.is_view
    np.testing.assert_array_equal(adata.layers["same"], make_values())


@pytest.mark.usefixtures("tiny_is_large")
def test_sparse_becomes_dense_only_if_wanted():
    adata = make_adata(sp.csr_matrix)
    with pytest.raises(TooLargeError):
        bc.pp.quantile_normalize(adata, dense=False)
    with pytest.raises(MissingKeyError, match="batch"):
        bc.pp.quantile_normalize(adata, "bach", dense=True)
    assert not adata.uns
    with pytest.warns(DensifyWarning):
        bc.pp.quantile_normalize(adata)
    expected = bc.QuantileNormalize().fit_transform(make_values())
    np.testing.assert_array_equal(adata.X, expected)
