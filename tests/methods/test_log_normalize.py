"""Logarithms of counts: R's and scanpy's, frozen at fit, each sample on its own."""

from __future__ import annotations

import json

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import scipy.sparse as sp
import sklearn
from sklearn.base import clone
from sklearn.pipeline import make_pipeline

import batchcorr as bc
from batchcorr.errors import (
    DensifyWarning,
    EmptySampleWarning,
    FileError,
    InputError,
    LogScaleWarning,
    MissingKeyError,
    TooLargeError,
    ViewWarning,
)
from batchcorr.methods import get, registry

METHODS = [
    "total",
    "tmm",
    "tmmwsp",
    "rle",
    "upperquartile",
    "median_of_ratios",
    "poscounts",
]
each_method = pytest.mark.parametrize("method", METHODS)
each_prior = pytest.mark.parametrize("prior_count", [None, 0.5])
each_sparse = pytest.mark.parametrize("of", [sp.csr_matrix, sp.csc_matrix])
ROUNDING = {np.dtype("f4"): 5e-7, np.dtype("f8"): 1e-14}
quiet_dense = pytest.mark.filterwarnings("ignore::batchcorr.errors.DensifyWarning")


def make_counts(n=14, n_features=120, seed=0):
    """Counts in float64 with three features in every sample, and ten in none."""
    rng = np.random.default_rng(seed)
    level = rng.gamma(0.6, 12, n_features)
    counts = rng.poisson(level * rng.gamma(4, 0.25, (n, n_features))).astype(float)
    counts[:, :3] += 1
    counts[:, -10:] = 0
    return counts


def values(x):
    return x.toarray() if sp.issparse(x) else np.asarray(x)


# -- what others compute -----------------------------------------------------------


@pytest.mark.parametrize("name", ["norm_01_bulk", "norm_02_sparse"])
@pytest.mark.parametrize(
    ("method", "expected"), [("total", "logcpm_prior2"), ("tmm", "logcpm_tmm_prior2")]
)
@quiet_dense
def test_logarithms_are_edger_s(golden, stored, name, method, expected):
    case = golden(name)
    x = stored.of(case["counts"].astype(np.float64))
    found = bc.LogNormalize(method, prior_count=2).fit_transform(x)
    assert not sp.issparse(found)
    tolerance = 1e-12 if found.dtype == np.float64 else 1e-6
    np.testing.assert_allclose(found, case[expected], rtol=tolerance, atol=1e-12)


def test_other_priors_and_bases(golden):
    case = golden("norm_01_bulk")
    x, library = case["counts"].astype(np.float64), case["lib_size"] * case["tmm"]
    prior = (0.5 * library / library.mean())[:, None]
    cpm = (x + prior) / (library[:, None] + 2 * prior)
    options = {"prior_count": 0.5, "target_sum": 1e4, "base": 10}
    found = bc.LogNormalize("tmm", **options).fit_transform(x)
    np.testing.assert_allclose(found, np.log10(1e4 * cpm), rtol=1e-12)


def test_scaled_counts_are_edger_s(golden):
    case = golden("norm_01_bulk")
    x = case["counts"].astype(np.float64)
    found = np.expm1(bc.LogNormalize(target_sum=1e6).fit_transform(x))
    np.testing.assert_allclose(found, case["cpm"], rtol=1e-11)


@pytest.mark.parametrize("method", ["median_of_ratios", "poscounts"])
def test_size_factors_are_deseq_s(golden, method):
    case = golden("norm_02_sparse")
    x = case["counts"].astype(np.float64)
    step = bc.LogNormalize(method, base=2).fit(x)
    np.testing.assert_allclose(step.size_factors_, case[method], rtol=1e-12)
    expected = np.log2(x / case[method][:, None] + 1)
    np.testing.assert_allclose(step.transform(x), expected, rtol=1e-12)


@pytest.mark.parametrize("method", ["tmm", "rle", "upperquartile"])
def test_size_factors_are_effective_libraries(golden, method):
    case = golden("norm_01_bulk")
    library = case["lib_size"] * case[method]
    step = bc.LogNormalize(method).fit(case["counts"])
    assert step.target_sum_ == pytest.approx(np.median(library), rel=1e-12)
    assert step.mean_library_ == pytest.approx(np.mean(library), rel=1e-12)
    expected = library / np.median(library)
    np.testing.assert_allclose(step.size_factors_, expected, rtol=1e-12)


@pytest.mark.parametrize("of", [np.array, sp.csr_matrix, sp.csc_matrix])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int64"])
@pytest.mark.parametrize("target_sum", [None, 1e4])
@pytest.mark.parametrize("base", [None, 2])
def test_equal_to_scanpy(of, dtype, target_sum, base):
    adata = ad.AnnData(of(make_counts().astype(dtype)))
    other = adata.copy()
    bc.pp.log_normalize(adata, target_sum=target_sum, base=base)
    sc.pp.normalize_total(other, target_sum=target_sum)
    sc.pp.log1p(other, base=base)
    assert type(adata.X) is type(of(adata.X))
    assert adata.X.dtype == other.X.dtype
    assert adata.uns["log1p"] == other.uns["log1p"]
    tolerance = ROUNDING[adata.X.dtype]
    np.testing.assert_allclose(values(adata.X), values(other.X), rtol=tolerance)


def test_empty_cells_take_no_part_in_the_median_as_in_scanpy():
    counts = np.insert(make_counts(), [0, 3, 3], 0, axis=0)
    adata = ad.AnnData(counts.copy())
    with pytest.warns(UserWarning, match="zero counts"):
        sc.pp.normalize_total(adata)
    sc.pp.log1p(adata)
    for x in (counts, sp.csr_matrix(counts)):
        with pytest.warns(EmptySampleWarning, match="3 of 17 samples"):
            found = bc.LogNormalize().fit_transform(x)
        np.testing.assert_allclose(values(found), adata.X, rtol=1e-14)


# -- contracts ---------------------------------------------------------------------


@each_method
@each_prior
@quiet_dense
def test_every_kind_of_matrix(stored, method, prior_count):
    counts = make_counts()
    x = stored.of(counts)
    before = stored.values(x).copy()
    found = bc.LogNormalize(method, prior_count=prior_count).fit_transform(x)
    expected = bc.LogNormalize(method, prior_count=prior_count).fit_transform(counts)
    tolerance = 2e-6 if found.dtype == np.float32 else 1e-12
    np.testing.assert_allclose(values(found), expected, rtol=tolerance, atol=1e-12)
    np.testing.assert_array_equal(stored.values(x), before)
    sparse = sp.issparse(x) and prior_count is None
    assert sp.issparse(found) == sparse
    if sparse:
        assert found.format == (x.format if x.format != "coo" else "csr")
        assert isinstance(found, sp.spmatrix) == isinstance(x, sp.spmatrix)
        assert not np.may_share_memory(found.data, x.tocsr().data)
        assert found.has_canonical_format


@pytest.mark.parametrize("of", [np.asarray, sp.csr_array, sp.csc_array])
@each_prior
@pytest.mark.parametrize(
    ("given", "returned"),
    [
        ("float64", "float64"),
        ("float32", "float32"),
        ("float16", "float32"),
        ("int64", "float32"),
        ("int32", "float32"),
        ("uint8", "float32"),
        ("bool", "float32"),
    ],
)
@quiet_dense
def test_dtypes(of, prior_count, given, returned):
    if given == "float16" and of is not np.asarray:
        pytest.skip("SciPy has no float16")
    counts = np.minimum(make_counts(), 200).astype(given)
    found = bc.LogNormalize(prior_count=prior_count).fit_transform(of(counts))
    assert found.dtype == returned
    expected = bc.LogNormalize(prior_count=prior_count).fit_transform(counts * 1.0)
    np.testing.assert_allclose(values(found), expected, rtol=1e-6)


def test_counts_beyond_32_bits():
    counts = np.array([[2**40, 2**33, 0], [2**35, 0, 2**31 + 5]])
    found = bc.LogNormalize(target_sum=100).fit_transform(counts)
    expected = np.log1p(100 * counts / counts.sum(axis=1, keepdims=True))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@each_method
@each_prior
@quiet_dense
def test_a_sample_is_treated_alike_alone_and_beside_others(method, prior_count):
    counts = make_counts()
    step = bc.LogNormalize(method, prior_count=prior_count).fit(counts[:9])
    whole, factors = step.transform(counts), step.size_factors(counts)
    np.testing.assert_array_equal(step.transform(counts[:9]), whole[:9])
    np.testing.assert_array_equal(step.size_factors_, factors[:9])
    for rows in ([12], [3, 11]):
        np.testing.assert_array_equal(step.transform(counts[rows]), whole[rows])
        np.testing.assert_array_equal(step.size_factors(counts[rows]), factors[rows])
        sparse = values(step.transform(sp.csr_array(counts[rows])))
        np.testing.assert_allclose(sparse, whole[rows], rtol=1e-14, atol=1e-15)
    assert step.transform(counts[:0]).shape == (0, counts.shape[1])


@each_method
@each_prior
def test_what_is_saved_is_what_is_loaded(tmp_path, method, prior_count):
    counts = make_counts()
    columns = [f"gene {j}" for j in range(counts.shape[1])]
    table = pd.DataFrame(counts, columns=columns)
    step = bc.LogNormalize(method, prior_count=prior_count, base=3).fit(table)
    step.save(tmp_path / "step.npz")
    assert step.method == method
    loaded = bc.load(tmp_path / "step.npz")
    assert loaded.get_params() == step.get_params()
    assert loaded.size_factors_ is None
    new = make_counts(seed=1)
    np.testing.assert_array_equal(loaded.transform(new), step.transform(new))
    np.testing.assert_array_equal(loaded.get_feature_names_out(), columns)
    loaded.save(tmp_path / "again.npz")
    again = bc.load(tmp_path / "again.npz")
    np.testing.assert_array_equal(again.transform(new), step.transform(new))


def test_a_damaged_file_is_refused(tmp_path):
    path = tmp_path / "step.npz"
    bc.LogNormalize("tmm").fit(make_counts()).save(path)
    with np.load(path) as file:
        arrays = dict(file)
    np.savez(path, **arrays | {"profile": arrays["profile"][1:]})
    with pytest.raises(FileError, match="it is damaged"):
        bc.load(path)


def test_the_registry_knows_it():
    assert get("log_normalize") is bc.LogNormalize
    assert registry()["log_normalize"].record.normalizes


@pytest.mark.parametrize("of", [np.array, sp.csr_matrix, sp.csc_array])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_in_place_only_if_asked(of, dtype):
    counts = make_counts(n=60, n_features=2500).astype(dtype)
    x = of(counts)
    expected = bc.LogNormalize().fit_transform(x)
    np.testing.assert_array_equal(values(x), counts)
    found = bc.LogNormalize(copy=False).fit_transform(x)
    assert found is x
    np.testing.assert_array_equal(values(x), values(expected))


@pytest.mark.usefixtures("tiny_is_large")
def test_in_place_only_where_it_can_be():
    counts = make_counts()
    step = bc.LogNormalize(copy=False)
    frozen = counts.copy()
    frozen.flags.writeable = False
    for x in (frozen, np.asfortranarray(counts), counts.astype(int)):
        before = x.copy()
        step.fit_transform(x)
        np.testing.assert_array_equal(x, before)
    sparse = sp.csr_array(counts)
    with pytest.warns(DensifyWarning):
        bc.LogNormalize(copy=False, prior_count=1).fit_transform(sparse)
    np.testing.assert_array_equal(sparse.toarray(), counts)
    dense = counts.copy()
    found = bc.LogNormalize(copy=False, prior_count=1).fit_transform(dense)
    assert found is dense


@each_prior
@quiet_dense
def test_threads_and_blocks_do_not_matter(prior_count, threads):
    rng = np.random.default_rng(0)
    counts = rng.poisson(1.5, (300, 1800)).astype(np.float32)
    step = bc.LogNormalize(prior_count=prior_count)
    several = list(map(step.fit_transform, _as_kinds(counts)))
    threads(1)
    single = list(map(step.fit_transform, _as_kinds(counts)))
    rows = [values(step.transform(counts[[i]]))[0] for i in range(300)]
    for a, b in zip(several, single, strict=True):
        np.testing.assert_array_equal(values(a), values(b))
        np.testing.assert_array_equal(values(a), rows)


def _as_kinds(counts):
    return [counts, sp.csr_matrix(counts), sp.csc_matrix(counts)]


# -- what is odd -------------------------------------------------------------------


@each_method
@pytest.mark.parametrize("of", [np.asarray, sp.csr_array, sp.csc_array])
def test_samples_without_counts_stay_zero(method, of):
    counts = np.insert(make_counts(), [2, 9], 0, axis=0)
    step = bc.LogNormalize(method)
    with pytest.warns(EmptySampleWarning, match=r"2 of 16 samples .*\(rows 2, 10\)"):
        found = step.fit_transform(of(counts))
    filled = counts.any(axis=1)
    np.testing.assert_array_equal(values(found)[~filled], 0)
    np.testing.assert_array_equal(step.size_factors_[~filled], 1)
    expected = bc.LogNormalize(method).fit_transform(counts[filled])
    np.testing.assert_allclose(values(found)[filled], expected, rtol=1e-13)
    with pytest.warns(EmptySampleWarning, match="1 of 1 samples"):
        np.testing.assert_array_equal(values(step.transform(of(counts[[2]]))), 0)


@each_method
def test_with_a_prior_zeros_are_alike_in_all_samples(method):
    counts = np.insert(make_counts(), 4, 0, axis=0)
    with pytest.warns(EmptySampleWarning):
        found = bc.LogNormalize(method, prior_count=2).fit_transform(counts)
    np.testing.assert_allclose(found[counts == 0], found[4, 0], rtol=1e-12)


def test_features_without_counts_stay_zero():
    found = bc.LogNormalize("tmm").fit_transform(make_counts())
    np.testing.assert_array_equal(found[:, -10:], 0)
    assert np.isfinite(found).all()


def test_fractions_are_counts_too():
    counts = make_counts() + 0.25
    found = bc.LogNormalize(target_sum=10).fit_transform(counts)
    expected = np.log1p(10 * counts / counts.sum(axis=1, keepdims=True))
    np.testing.assert_allclose(found, expected, rtol=1e-14)


@pytest.mark.parametrize("of", [np.asarray, sp.csr_array, sp.csc_array])
def test_logarithms_are_not_counts(of):
    logs = of(np.log1p(make_counts()))
    with pytest.warns(LogScaleWarning, match="look like logarithms"):
        bc.LogNormalize().fit(logs)
    of_counts = bc.LogNormalize().fit(make_counts())
    with pytest.warns(LogScaleWarning, match="look like logarithms"):
        of_counts.transform(logs)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (-1.0, "negative values, down to -1"),
        (np.nan, "missing or infinite"),
        (np.inf, "missing or infinite"),
        (-np.inf, "missing or infinite"),
    ],
)
@pytest.mark.parametrize("of", [np.asarray, sp.csr_array, sp.csc_array])
def test_what_is_no_count_is_refused_in_fit_and_transform(of, bad, message):
    counts = make_counts()
    step = bc.LogNormalize().fit(counts)
    counts[3, 40] = bad
    for use in (bc.LogNormalize().fit, step.transform, step.size_factors):
        with pytest.raises(InputError, match=message):
            use(of(counts))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "tnm"}, "Did you mean 'tmm'"),
        ({"target_sum": 0}, "target_sum must be a positive number"),
        ({"target_sum": np.inf}, "target_sum must be a positive number"),
        ({"base": -2}, "base must be a positive number"),
        ({"base": "e"}, "base must be a positive number"),
        ({"base": 1}, "base must not be 1"),
        ({"prior_count": 0}, "prior_count must be a positive number or None"),
        ({"prior_count": np.nan}, "prior_count must be a positive number"),
    ],
)
def test_options_that_make_no_sense(options, message):
    with pytest.raises(InputError, match=message):
        bc.LogNormalize(**options).fit(make_counts())


@pytest.mark.parametrize("shape", [(0, 5), (5, 0)])
def test_nothing_to_learn_from(shape):
    with pytest.raises(InputError, match=r"nothing to fit|no features"):
        bc.LogNormalize().fit(np.zeros(shape))


@pytest.mark.filterwarnings("ignore::batchcorr.errors.EmptySampleWarning")
def test_no_counts_at_all():
    with pytest.raises(InputError, match="All counts are 0"):
        bc.LogNormalize().fit(np.zeros((3, 4)))


def test_other_features_are_refused():
    counts = make_counts()
    columns = [f"gene {j}" for j in range(counts.shape[1])]
    step = bc.LogNormalize().fit(pd.DataFrame(counts, columns=columns))
    with pytest.raises(InputError, match="119 features"):
        step.transform(counts[:, 1:])
    with pytest.raises(InputError, match="another order"):
        step.transform(pd.DataFrame(counts, columns=columns[::-1]))
    with pytest.raises(InputError, match="more than once"):
        bc.LogNormalize().fit(pd.DataFrame(counts, columns=[*columns[1:], "gene 1"]))


def test_before_fit():
    with pytest.raises(sklearn.exceptions.NotFittedError, match=r"call fit\(X\) first"):
        bc.LogNormalize().transform(make_counts())
    with pytest.raises(sklearn.exceptions.NotFittedError):
        bc.LogNormalize().save("nowhere.npz")


# -- among scikit-learn's ----------------------------------------------------------


def test_parameters_are_scikit_learn_s():
    step = bc.LogNormalize("tmm", base=2)
    other = clone(step).set_params(method="rle")
    assert other.get_params() == step.get_params() | {"method": "rle"}
    assert "tmm" in repr(step)
    assert other.fit(make_counts()).reference_.method == "rle"


def test_in_a_pipeline_before_combat():
    counts = make_counts(n=24)
    counts[::2] = np.rint(counts[::2] * np.linspace(0.5, 3, counts.shape[1]))
    batch = np.resize(["a", "b"], 24)
    with sklearn.config_context(enable_metadata_routing=True):
        pipeline = make_pipeline(bc.LogNormalize("tmm", base=2), bc.ComBat())
        found = pipeline.fit_transform(counts, batch=batch)
        again = pipeline.transform(counts[5:9], batch=batch[5:9])
    logs = bc.LogNormalize("tmm", base=2).fit_transform(counts)
    expected = bc.ComBat().fit_transform(logs, batch=batch)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_allclose(again, found[5:9], rtol=1e-12)


# -- on AnnData --------------------------------------------------------------------


def make_adata(of=np.asarray, dtype="float32"):
    counts = make_counts(n=24).astype(dtype)
    obs = pd.DataFrame(
        {"batch": ["a", "b"] * 12}, index=[f"cell{i}" for i in range(24)]
    )
    return ad.AnnData(of(counts), obs=obs)


@each_sparse
def test_x_is_replaced_and_sized(of):
    adata = make_adata(of)
    counts = adata.X.copy()
    bc.pp.log_normalize(adata, method="tmmwsp")
    step = bc.LogNormalize("tmmwsp")
    expected = step.fit_transform(counts)
    np.testing.assert_array_equal(values(adata.X), values(expected))
    np.testing.assert_array_equal(adata.obs["size_factor"], step.size_factors_)
    record = json.loads(adata.uns["batchcorr"]["X"])
    assert record["method"] == "log_normalize"
    assert record["parameters"]["method"] == "tmmwsp"
    assert record["target_sum"] == step.target_sum_


@pytest.mark.parametrize("of", [np.array, sp.csr_matrix, sp.csc_matrix])
def test_in_place_where_nobody_else_looks(of):
    adata = make_adata(of)
    x = adata.X
    bc.pp.log_normalize(adata)
    assert adata.X is x


@pytest.mark.parametrize("of", [np.array, sp.csr_matrix, sp.csc_matrix])
@pytest.mark.parametrize("share", ["layer", "raw", "obsm", "copy", "key", "int"])
def test_nobody_s_counts_are_changed(of, share):
    adata = make_adata(of, "int64" if share == "int" else "float32")
    counts, x = values(adata.X).copy(), adata.X
    expected = bc.pp.log_normalize(adata, copy=True).X
    np.testing.assert_array_equal(values(adata.X), counts)
    if share == "layer":
        adata.layers["counts"] = adata.X
    elif share == "raw":
        adata.raw = adata
        adata.raw._X = x
    elif share == "obsm":
        adata.obsm["X_counts"] = adata.X
    result = bc.pp.log_normalize(
        adata,
        copy=share == "copy",
        key_added="logs" if share == "key" else None,
    )
    np.testing.assert_array_equal(values(x), counts)
    found = adata.layers["logs"] if share == "key" else (result or adata).X
    np.testing.assert_array_equal(values(found), values(expected))
    assert ("log1p" in adata.uns) == (share not in {"copy", "key"})


@pytest.mark.parametrize("of", [np.array, sp.csr_matrix])
def test_layers_and_views(of):
    adata = make_adata(of)
    adata.layers["counts"] = adata.X.copy()
    adata.X = adata.X * 0
    bc.pp.log_normalize(adata, layer="counts", key_added="logs")
    assert list(adata.uns["batchcorr"]) == ["logs"]
    view = adata[3:11]
    with pytest.warns(ViewWarning):
        bc.pp.log_normalize(view, layer="counts", target_sum=adata_target(adata))
    assert not view.is_view
    found, expected = view.layers["counts"], adata.layers["logs"][3:11]
    np.testing.assert_allclose(values(found), values(expected), rtol=1e-6)
    assert values(adata.layers["counts"]).max() == make_counts(n=24).max()


def adata_target(adata):
    return json.loads(adata.uns["batchcorr"]["logs"])["target_sum"]


def test_a_prior_on_sparse_counts_is_asked_for():
    adata = make_adata(sp.csr_matrix)
    before = adata.X.copy()
    with pytest.raises(TooLargeError):
        bc.pp.log_normalize(adata, prior_count=2, dense=False)
    np.testing.assert_array_equal(values(adata.X), values(before))
    assert list(adata.uns) == list(adata.obs.columns.drop("batch")) == []
    bc.pp.log_normalize(adata, prior_count=2, dense=True)
    expected = bc.LogNormalize(prior_count=2).fit_transform(values(before))
    np.testing.assert_allclose(adata.X, expected, rtol=1e-6)
    assert "log1p" not in adata.uns


def test_nothing_is_changed_if_anything_fails():
    adata = make_adata()
    adata.X[2, 3] = -1
    before = adata.copy()
    with pytest.raises(InputError, match="negative"):
        bc.pp.log_normalize(adata)
    with pytest.raises(MissingKeyError, match="no layer 'cuonts'"):
        bc.pp.log_normalize(adata, layer="cuonts")
    np.testing.assert_array_equal(adata.X, before.X)
    assert list(adata.obs) == ["batch"]
    assert not adata.uns


def test_warnings_are_given_and_recorded():
    adata = make_adata()
    adata.X[4] = 0
    with pytest.warns(EmptySampleWarning) as caught:
        bc.pp.log_normalize(adata)
    assert [warning.filename for warning in caught] == [__file__]
    record = json.loads(adata.uns["batchcorr"]["X"])
    assert record["warnings"] == [f"EmptySampleWarning: {caught[0].message}"]
    with pytest.warns(LogScaleWarning), pytest.warns(EmptySampleWarning):
        bc.pp.log_normalize(adata)


def test_combat_follows_without_a_word_and_files_keep_both(tmp_path):
    adata = make_adata(np.array, "float64")
    bc.pp.log_normalize(adata)
    bc.pp.combat(adata, "batch")
    record = json.loads(adata.uns["batchcorr"]["X"])
    assert record["method"] == "combat"
    assert [step["method"] for step in record["earlier"]] == ["log_normalize"]
    adata.write_h5ad(tmp_path / "adata.h5ad")
    read = ad.read_h5ad(tmp_path / "adata.h5ad")
    assert dict(read.uns["batchcorr"]) == adata.uns["batchcorr"]
