"""The AnnData face: where results go, whose memory is written to, what is recorded."""

from __future__ import annotations

import json
import warnings
from functools import partial

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import scipy.sparse as sp

import batchcorr as bc
from batchcorr.errors import (
    AssociationWarning,
    BatchSizeWarning,
    CountsWarning,
    CovariateWarning,
    DensifyWarning,
    DesignError,
    FeatureWarning,
    InputError,
    MissingKeyError,
    RepeatWarning,
    TooLargeError,
    UnknownBatchError,
    ViewWarning,
)

N, G = 36, 8
BATCH = np.repeat(["a", "b", "c"], N // 3)
FEW = np.where(np.arange(N) < 2, "a", np.resize(["b", "c"], N))
GENES = [f"g{j}" for j in range(G)]
METHODS = ["combat", "remove_batch_effect", "standardize"]

each_method = pytest.mark.parametrize("method", METHODS)


def values(dtype=np.float64):
    rng = np.random.default_rng(0)
    shift, scale = rng.normal(0, 1, (3, G)), rng.uniform(0.7, 1.5, (3, G))
    code = np.arange(N) // (N // 3)
    return (5 + shift[code] + scale[code] * rng.normal(size=(N, G))).astype(dtype)


def samples():
    rng = np.random.default_rng(1)
    return pd.DataFrame(
        {
            "batch": pd.Categorical(BATCH),
            "chip": np.resize(["one", "two", "two"], N),
            "sex": rng.choice(["f", "m"], N),
            "age": rng.normal(50, 9, N),
        },
        index=[f"s{i}" for i in range(N)],
    )


def annotated(x=None, **columns):
    x = values() if x is None else x
    return ad.AnnData(x, obs=samples().assign(**columns), var=pd.DataFrame(index=GENES))


def corrected(method="combat", x=None, **kwargs):
    """Return what the method makes of X, away from any AnnData."""
    kinds = {kind.record.name: kind for kind in (bc.ComBat, bc.RemoveBatchEffect)}
    kind = kinds.get(method, bc.Standardize)
    x = values() if x is None else x
    return kind().fit_transform(x, batch=BATCH, **kwargs)


def record(adata, key="X"):
    return json.loads(adata.uns["batchcorr"][key])


def address(array):
    return array.ctypes.data


# -- where the result goes ----------------------------------------------------------


@each_method
def test_x_is_corrected_in_place(method):
    adata = annotated()
    before = address(adata.X)
    assert bc.pp.correct(adata, "batch", method) is None
    np.testing.assert_array_equal(adata.X, corrected(method))
    assert address(adata.X) == before
    assert list(adata.uns["batchcorr"]) == ["X"]


@each_method
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_dtype_is_kept(method, dtype):
    adata = annotated(values(dtype))
    bc.pp.correct(adata, "batch", method)
    assert adata.X.dtype == dtype
    np.testing.assert_allclose(adata.X, corrected(method), rtol=1e-5)


def test_the_functions_are_the_methods():
    for method in METHODS:
        adata, other = annotated(), annotated()
        bc.pp.correct(adata, "batch", method, covariates="sex")
        getattr(bc.pp, method)(other, "batch", covariates="sex")
        np.testing.assert_array_equal(adata.X, other.X)
        assert record(adata) == record(other)


@each_method
def test_a_layer_is_corrected_in_place(method):
    adata = annotated(np.zeros((N, G)))
    adata.layers["log"] = values()
    before = address(adata.layers["log"])
    bc.pp.correct(adata, "batch", method, layer="log")
    np.testing.assert_array_equal(adata.layers["log"], corrected(method))
    assert address(adata.layers["log"]) == before
    assert not adata.X.any()
    assert list(adata.uns["batchcorr"]) == ["log"]
    assert record(adata, "log")["source"] == "log"


@each_method
@pytest.mark.parametrize("layer", [None, "log"])
def test_key_added_is_a_new_layer(method, layer):
    adata = annotated()
    adata.layers["log"] = values()
    bc.pp.correct(adata, "batch", method, layer=layer, key_added="new")
    np.testing.assert_array_equal(adata.X, values())
    np.testing.assert_array_equal(adata.layers["log"], values())
    np.testing.assert_array_equal(adata.layers["new"], corrected(method))
    assert list(adata.uns["batchcorr"]) == ["new"]
    assert record(adata, "new")["source"] == (layer or "X")


def test_key_added_replaces_a_layer_of_that_name():
    adata = annotated()
    adata.layers["new"] = np.zeros((N, G))
    bc.pp.combat(adata, "batch", key_added="new")
    np.testing.assert_array_equal(adata.layers["new"], corrected())


@each_method
@pytest.mark.parametrize(("key_added", "key"), [(None, "X"), ("new", "new")])
def test_copy_returns_another_anndata(method, key_added, key):
    adata = annotated()
    new = bc.pp.correct(adata, "batch", method, copy=True, key_added=key_added)
    np.testing.assert_array_equal(adata.X, values())
    assert "batchcorr" not in adata.uns
    assert not adata.layers
    found = new.layers[key_added] if key_added else new.X
    np.testing.assert_array_equal(found, corrected(method))
    assert list(new.uns["batchcorr"]) == [key]
    assert not np.shares_memory(new.X, adata.X)


def test_nothing_else_is_touched():
    adata = annotated()
    adata.obsm["X_pca"] = np.ones((N, 2))
    adata.uns["neighbors"] = {"k": 5}
    obs, var = adata.obs.copy(), adata.var.copy()
    bc.pp.combat(adata, "batch", covariates="~ sex + age")
    pd.testing.assert_frame_equal(adata.obs, obs)
    pd.testing.assert_frame_equal(adata.var, var)
    assert adata.uns["neighbors"] == {"k": 5}
    assert list(adata.obsm) == ["X_pca"]


# -- whose memory is written to -------------------------------------------------------


@each_method
def test_raw_keeps_its_values(method):
    adata = annotated()
    adata.raw = adata
    bc.pp.correct(adata, "batch", method)
    np.testing.assert_array_equal(adata.raw.X, values())
    np.testing.assert_array_equal(adata.X, corrected(method))


@each_method
@pytest.mark.parametrize("source", [None, "log"])
def test_a_layer_that_is_x_keeps_its_values(method, source):
    adata = annotated()
    adata.layers["log"] = adata.X
    assert np.shares_memory(adata.layers["log"], adata.X)
    bc.pp.correct(adata, "batch", method, layer=source)
    here, other = adata.X, adata.layers["log"]
    if source:
        here, other = other, here
    np.testing.assert_array_equal(other, values())
    np.testing.assert_array_equal(here, corrected(method))


@pytest.mark.parametrize("place", ["obsm", "varm", "uns"])
def test_x_kept_elsewhere_keeps_its_values(place):
    adata = annotated()
    shared = adata.X.T if place == "varm" else adata.X
    getattr(adata, place)["kept"] = shared
    kept = getattr(adata, place)["kept"]
    kept = getattr(kept, "to_numpy", lambda: kept)()
    if not np.shares_memory(kept, adata.X):
        pytest.skip(f"this anndata copies what is put into {place}")
    bc.pp.combat(adata, "batch")
    expected = values().T if place == "varm" else values()
    np.testing.assert_array_equal(getattr(adata, place)["kept"], expected)
    np.testing.assert_array_equal(adata.X, corrected())


@pytest.mark.parametrize(
    "part",
    [
        pytest.param(lambda parent: parent[:N, :G], id="corner"),
        pytest.param(lambda parent: parent[:N].reshape(-1)[: N * G], id="flat"),
        pytest.param(lambda parent: parent[: N * 2 : 2, G:], id="strided"),
        pytest.param(lambda parent: parent[N : 2 * N], id="rows"),
    ],
)
def test_a_parent_array_keeps_its_values(part):
    parent = np.tile(values(), (3, 2))
    x = part(parent)
    x = x.reshape(N, G) if x.ndim == 1 else x[:, :G]
    before, own = parent.copy(), x.copy()
    adata = annotated(x)
    bc.pp.combat(adata, "batch")
    np.testing.assert_array_equal(parent, before)
    np.testing.assert_array_equal(adata.X, corrected(x=own))


@pytest.mark.parametrize("rows", [slice(0, N), slice(0, N, 1), slice(2, N)])
@pytest.mark.parametrize("copy", [False, True])
def test_a_view_becomes_actual_and_its_parent_stays(rows, copy):
    parent = annotated()
    view = parent[rows, 1:]
    assert view.is_view
    if copy:
        found = bc.pp.standardize(view, "batch", copy=True)
    else:
        with pytest.warns(ViewWarning, match=r"part = adata\[:, genes\]\.copy") as one:
            bc.pp.standardize(view, "batch")
        assert one[0].filename == __file__
    np.testing.assert_array_equal(parent.X, values())
    assert "batchcorr" not in parent.uns
    assert view.is_view is copy
    found = found if copy else view
    expected = bc.Standardize().fit_transform(values()[rows, 1:], batch=BATCH[rows])
    np.testing.assert_array_equal(found.X, expected)
    assert list(found.uns["batchcorr"]) == ["X"]


def test_a_view_lacks_the_batches_that_were_left_out():
    part = bc.pp.combat(annotated()[: 2 * N // 3], "batch", copy=True)
    assert record(part)["batches"] == ["a", "b"]


@each_method
def test_fortran_order(method):
    adata = annotated(np.asfortranarray(values()))
    bc.pp.correct(adata, "batch", method)
    np.testing.assert_allclose(adata.X, corrected(method), rtol=1e-12)


def test_an_array_that_cannot_be_written_to():
    x = values()
    x.flags.writeable = False
    adata = annotated(x)
    bc.pp.combat(adata, "batch")
    np.testing.assert_array_equal(x, values())
    np.testing.assert_array_equal(adata.X, corrected())


@pytest.mark.parametrize("place", ["X", "layer", "key_added", "copy", "apply"])
@pytest.mark.parametrize("dtype", [np.int64, np.uint8, bool, np.float16, ">f8"])
def test_what_is_no_native_float_becomes_one(place, dtype):
    x = np.random.default_rng(3).integers(0, 9, (N, G))
    x = x % 2 == 0 if dtype is bool else x.astype(dtype)
    adata, key = annotated(x.copy()), None
    if place == "apply":
        bc.pp.apply(adata, bc.fit(annotated(x.copy()), "batch"))
    elif place == "copy":
        adata = bc.pp.combat(adata, "batch", copy=True)
    elif place == "layer":
        adata.layers["log"], key = x.copy(), "log"
        bc.pp.combat(adata, "batch", layer="log")
    else:
        key = "new" if place == "key_added" else None
        bc.pp.combat(adata, "batch", key_added=key)
    found = adata.X if key is None else adata.layers[key]
    expected = corrected(x=x.astype(np.float64))
    assert found.dtype == (np.float64 if dtype == ">f8" else np.float32)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    if key is not None:
        np.testing.assert_array_equal(adata.X, x)


def test_obs_names_may_repeat():
    adata = annotated()
    adata.obs_names = ["s"] * N
    bc.pp.combat(adata, "batch", covariates=["sex", "age"])
    expected = corrected(covariates=samples()[["sex", "age"]])
    np.testing.assert_array_equal(adata.X, expected)


def test_var_names_may_repeat():
    adata = annotated()
    adata.var_names = ["g"] * G
    bc.pp.combat(adata, "batch")
    np.testing.assert_array_equal(adata.X, corrected())


def test_unused_categories_are_no_batches():
    labels = pd.Categorical(BATCH, categories=["z", "c", "b", "y", "a"])
    adata = annotated(batch=labels)
    bc.pp.combat(adata, "batch")
    np.testing.assert_allclose(adata.X, corrected(), rtol=1e-12)
    assert record(adata)["batches"] == ["c", "b", "a"]
    assert list(adata.obs["batch"].cat.categories) == ["z", "c", "b", "y", "a"]


# -- sparse ---------------------------------------------------------------------------


def sparse(kind=sp.csr_matrix):
    return kind(np.where(values() < 5, 0, values()))


@each_method
@pytest.mark.parametrize("kind", [sp.csr_matrix, sp.csc_matrix, sp.csr_array])
def test_a_sparse_x_becomes_dense_with_a_warning(method, kind):
    adata = annotated(sparse(kind))
    with pytest.warns(DensifyWarning, match=r"36 × 8 values take 2\.2 KiB") as caught:
        bc.pp.correct(adata, "batch", method)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert type(adata.X) is np.ndarray
    expected = corrected(method, sparse().toarray())
    np.testing.assert_allclose(adata.X, expected, rtol=1e-9)


@each_method
def test_dense_true_is_quiet(method):
    adata = annotated(sparse())
    bc.pp.correct(adata, "batch", method, dense=True, key_added="new")
    assert sp.issparse(adata.X)
    assert type(adata.layers["new"]) is np.ndarray


@each_method
def test_dense_false_is_refused(method):
    adata = annotated(sparse())
    with pytest.raises(TooLargeError, match="dense=True"):
        bc.pp.correct(adata, "batch", method, dense=False)
    assert (sparse() != adata.X).nnz == 0
    assert "batchcorr" not in adata.uns


def test_dense_says_nothing_of_a_dense_x():
    for dense in (None, True, False):
        bc.pp.combat(annotated(), "batch", dense=dense)


@pytest.mark.parametrize(("free", "error"), [(1 << 20, None), (4000, TooLargeError)])
def test_half_of_the_free_memory_is_the_limit(monkeypatch, free, error):
    monkeypatch.setattr("batchcorr.estimators.densify.free_memory", lambda: free)
    adata = annotated(sparse())
    if error is None:
        with pytest.warns(DensifyWarning):
            bc.pp.combat(adata, "batch")
    else:
        with pytest.raises(error, match=r"2\.2 KiB"):
            bc.pp.combat(adata, "batch")
        assert sp.issparse(adata.X)


# -- failing leaves everything as it was ------------------------------------------------


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda adata, _: bc.pp.combat(adata, "plate"), MissingKeyError),
        (lambda adata, _: bc.pp.combat(adata, "batch", covariates="sx"), KeyError),
        (lambda adata, _: bc.pp.combat(adata, "batch", covariates="twin"), DesignError),
        (lambda adata, _: bc.pp.combat(adata, "batch", reference="z"), ValueError),
        (lambda adata, _: bc.pp.apply(adata, _, batch_key="new"), UnknownBatchError),
        (lambda adata, _: bc.pp.apply(adata[:, 1:], _), MissingKeyError),
    ],
    ids=["batch", "covariate", "confounded", "reference", "unseen", "features"],
)
def test_a_failure_changes_nothing(call, error):
    adata = annotated(twin=BATCH == "a", new="z")
    before = address(adata.X)
    correction = bc.fit(adata, "batch", method="standardize")
    with pytest.raises(error):
        call(adata, correction)
    np.testing.assert_array_equal(adata.X, values())
    assert address(adata.X) == before
    assert "batchcorr" not in adata.uns


def test_a_failure_leaves_a_view_a_view():
    correction = bc.fit(annotated(), "batch", method="standardize")
    view = annotated(batch="z")[4:]
    with pytest.raises(UnknownBatchError):
        bc.pp.apply(view, correction)
    assert view.is_view


def test_a_warning_made_an_error_changes_nothing():
    adata = annotated(batch=FEW)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(BatchSizeWarning):
            bc.pp.combat(adata, "batch")
    np.testing.assert_array_equal(adata.X, values())
    assert "batchcorr" not in adata.uns


def test_a_record_that_cannot_be_kept_changes_nothing():
    adata = annotated()
    adata.uns["batchcorr"] = "somebody's note"
    with pytest.raises(InputError):
        bc.pp.combat(adata, "batch")
    np.testing.assert_array_equal(adata.X, values())
    assert adata.uns["batchcorr"] == "somebody's note"


# -- the record -------------------------------------------------------------------------


def test_the_record_says_what_was_done():
    adata = annotated()
    bc.pp.combat(adata, "batch", covariates=["sex", "age"], reference="b")
    found = record(adata)
    assert found["method"] == "combat"
    assert found["parameters"] == {
        "parametric": True,
        "mean_only": False,
        "reference": "b",
        "formula": None,
    }
    assert found["source"] == "X"
    assert found["batch"] == "batch"
    assert found["batches"] == ["a", "b", "c"]
    assert found["kept"] == ["sex", "age"]
    assert (found["n_obs"], found["n_vars"]) == (N, G)
    assert found["features_unchanged"] == 0
    assert found["warnings"] == []
    assert found["versions"]["numpy"] == np.__version__
    assert {"batchcorr", "scipy", "numba"} <= found["versions"].keys()


@each_method
def test_the_record_warns_of_testing(method):
    adata = annotated()
    bc.pp.correct(adata, "batch", method)
    assert record(adata)["testable"] is False
    assert "not for differential testing" in record(adata)["note"]


def test_the_record_keeps_a_formula():
    adata = annotated()
    bc.pp.combat(adata, "batch", covariates="~ sex * poly(age, 2)")
    assert record(adata)["parameters"]["formula"] == "~ sex * poly(age, 2)"
    assert record(adata)["kept"][:2] == ["sex", "poly(age, 2)"]


def test_the_record_names_features_left_as_they_were():
    x = values()
    x[BATCH == "b", 2] = 4.0
    adata = annotated(x)
    bc.pp.combat(adata, "batch")
    assert record(adata)["features_unchanged"] == 1
    assert record(adata)["features_unchanged_names"] == ["g2"]


def test_the_record_names_what_was_removed():
    adata = annotated()
    bc.pp.remove_batch_effect(adata, ["batch", "chip"], nuisance=["age"])
    found = record(adata)
    assert found["batch"] == ["batch", "chip"]
    assert '"age"' in json.dumps(found), "the nuisance is not recorded"


def test_the_record_keeps_the_warnings():
    adata = annotated(sparse(), batch=FEW)
    with pytest.warns(BatchSizeWarning), pytest.warns(DensifyWarning):
        bc.pp.combat(adata, "batch")
    kinds = [text.partition(":")[0] for text in record(adata)["warnings"]]
    assert sorted(kinds) == ["BatchSizeWarning", "DensifyWarning"]
    with pytest.warns(BatchSizeWarning), pytest.warns(RepeatWarning):
        bc.pp.combat(adata, "batch")
    kinds = [text.partition(":")[0] for text in record(adata)["warnings"]]
    assert sorted(kinds) == ["BatchSizeWarning", "RepeatWarning"]


def test_records_of_several_layers_stand_beside_each_other():
    adata = annotated()
    bc.pp.combat(adata, "batch", key_added="one")
    bc.pp.standardize(adata, "batch", key_added="two")
    assert record(adata, "one")["method"] == "combat"
    assert record(adata, "two")["method"] == "standardize"


def test_a_copy_has_its_own_records():
    adata = annotated()
    bc.pp.combat(adata, "batch", key_added="one")
    bc.pp.combat(adata, "batch", key_added="two", copy=True)
    assert list(adata.uns["batchcorr"]) == ["one"]


@pytest.mark.parametrize("file", ["data.h5ad", "data.zarr"])
@pytest.mark.filterwarnings("ignore::UserWarning:(anndata|zarr).*")
@pytest.mark.filterwarnings("ignore::FutureWarning:(anndata|zarr).*")
def test_records_survive_a_file(file, tmp_path):
    adata = annotated()
    bc.pp.combat(adata, "batch", covariates="~ sex + age", reference="a")
    adata.layers["more"] = values()
    bc.pp.standardize(adata, "chip", layer="more", key_added="chips")
    if file.endswith("zarr"):
        adata.write_zarr(tmp_path / file)
        again = ad.read_zarr(tmp_path / file)
    else:
        adata.write_h5ad(tmp_path / file)
        again = ad.read_h5ad(tmp_path / file)
    assert record(again) == record(adata)
    assert record(again, "chips") == record(adata, "chips")
    np.testing.assert_array_equal(again.X, adata.X)
    with pytest.warns(RepeatWarning, match="X was corrected before, by combat"):
        bc.pp.combat(again, "batch")


# -- warnings, when due and at the line of the caller ---------------------------------------


def test_correcting_twice_warns():
    adata = annotated()
    bc.pp.combat(adata, "batch")
    with pytest.warns(RepeatWarning, match="X was corrected before, by combat") as one:
        bc.pp.standardize(adata, "batch")
    with pytest.warns(RepeatWarning, match="by standardize") as two:
        bc.pp.combat(adata, "batch", key_added="new")
    assert [w.filename for w in (*one, *two)] == [__file__] * 2
    with pytest.warns(RepeatWarning, match="layer 'new'"):
        bc.pp.combat(adata, "batch", layer="new")


def test_correcting_a_layer_after_another_does_not_warn():
    adata = annotated()
    adata.layers["log"] = values()
    bc.pp.combat(adata, "batch")
    bc.pp.combat(adata, "batch", layer="log")
    adata = annotated()
    bc.pp.combat(adata, "batch", key_added="combat")
    bc.pp.standardize(adata, "batch", key_added="standardized")


def test_a_layer_called_x_is_not_x():
    adata = annotated()
    bc.pp.combat(adata, "batch", key_added="X")
    bc.pp.standardize(adata, "batch", key_added="standardized")


def test_applying_to_what_was_corrected_warns():
    adata = annotated()
    correction = bc.fit(adata, "batch")
    bc.pp.apply(adata, correction)
    with pytest.warns(RepeatWarning, match="X was corrected before") as caught:
        bc.pp.apply(adata, correction)
    assert caught[0].filename == __file__


TIED = np.where(np.arange(N) % 12 < 10, BATCH == "a", BATCH == "b").astype(str)
COUNTS = np.random.default_rng(4).poisson(30, (N, G))

DUE = {
    AssociationWarning: (
        lambda: annotated(group=TIED),
        {"covariates": "group"},
        r"'group' is strongly associated with batch \(0\.\d\d.*uncorrected",
    ),
    BatchSizeWarning: (
        lambda: annotated(batch=FEW),
        {},
        r"fewer than 3 samples: 'a' \(2\)",
    ),
    CountsWarning: (
        lambda: annotated(COUNTS * 1.0),
        {},
        "look like raw counts.*log1p",
    ),
    CovariateWarning: (
        lambda: annotated(grade=np.resize([1, 2, 3, 4], N)),
        {"covariates": "grade"},
        "'grade' has only the values 1, 2, 3, 4.*category",
    ),
}


def fit_estimator(adata, batch_key, covariates=None):
    table = None if covariates is None else adata.obs[[covariates]]
    return bc.ComBat().fit(adata.X, batch=adata.obs[batch_key], covariates=table)


@pytest.mark.parametrize("kind", DUE, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize(
    "face",
    [
        pytest.param(bc.pp.combat, id="pp.combat"),
        pytest.param(partial(bc.pp.correct, method="standardize"), id="pp.correct"),
        pytest.param(bc.fit, id="fit"),
        pytest.param(fit_estimator, id="estimator"),
    ],
)
def test_a_warning_comes_when_due_and_points_at_the_caller(kind, face):
    make, options, message = DUE[kind]
    adata = make()
    with pytest.warns(kind, match=message) as caught:
        face(adata, "batch", **options)
    assert [w.category for w in caught] == [kind]
    assert caught[0].filename == __file__


def test_a_warning_of_fit_transform_points_at_the_caller():
    with pytest.warns(BatchSizeWarning) as caught:
        bc.ComBat().fit_transform(values(), batch=FEW)
    assert caught[0].filename == __file__


def test_a_warning_of_transform_points_at_the_caller():
    estimator = bc.ComBat().fit(values(), batch=BATCH)
    with pytest.warns(DensifyWarning) as caught:
        estimator.transform(sparse(), batch=BATCH)
    assert caught[0].filename == __file__


def test_warnings_are_not_given_without_need():
    bc.pp.combat(annotated(), "batch", covariates=["sex", "age"])
    bc.pp.combat(annotated(COUNTS % 15 * 1.0), "batch")  # small integers may be logs
    bc.pp.combat(annotated(COUNTS + 0.5), "batch")
    bc.pp.combat(annotated(batch=np.resize(["a", "b"], N)), "batch")


def test_counts_are_recognized_in_integers_and_sparse():
    for x in (COUNTS, COUNTS.astype(np.float32), sp.csr_matrix(COUNTS)):
        with pytest.warns(CountsWarning):
            bc.pp.standardize(annotated(x), "batch", dense=True)


def test_counts_are_recognized_when_a_correction_of_logs_is_applied():
    correction = bc.fit(annotated(), "batch")
    with pytest.warns(CountsWarning, match="ComBat expects values on a log scale"):
        bc.pp.apply(annotated(COUNTS), correction)


# -- covariates, factors, nuisances -----------------------------------------------------------


@each_method
@pytest.mark.parametrize(
    "given",
    [
        pytest.param(lambda _: "sex", id="column"),
        pytest.param(lambda _: ["sex"], id="list"),
        pytest.param(lambda _: ("sex",), id="tuple"),
        pytest.param(lambda _: pd.Index(["sex"]), id="index"),
        pytest.param(lambda _: "~ sex", id="formula"),
        pytest.param(lambda _: "~ C(sex) - 1", id="formula with a call"),
        pytest.param(lambda obs: obs[["sex"]], id="DataFrame"),
        pytest.param(lambda obs: obs["sex"], id="Series"),
        pytest.param(lambda obs: obs[["sex"]].iloc[::-1], id="DataFrame, reversed"),
        pytest.param(lambda obs: obs["sex"].iloc[::-1], id="Series, reversed"),
        pytest.param(
            lambda obs: pd.concat([obs, obs.rename(lambda s: f"x{s}")])[["sex"]],
            id="DataFrame of more samples",
        ),
        pytest.param(
            lambda obs: obs[["sex"]].reset_index(drop=True), id="DataFrame, by position"
        ),
        pytest.param(lambda obs: (obs[["sex"]] == "m").to_numpy(), id="boolean array"),
        pytest.param(lambda obs: (obs[["sex"]] == "m").to_numpy(float), id="array"),
    ],
)
def test_covariates_may_be_given_in_many_ways(method, given):
    adata = annotated()
    bc.pp.correct(adata, "batch", method, covariates=given(samples()))
    expected = corrected(method, covariates=samples()[["sex"]])
    np.testing.assert_allclose(adata.X, expected, rtol=1e-10)
    without = corrected(method)
    assert np.abs(expected - without).max() > 1e-3


def test_a_formula_uses_columns_of_obs():
    adata = annotated()
    bc.pp.combat(adata, "batch", covariates="~ sex + age + sex:age")
    obs = samples()
    male = (obs["sex"] == "m") * 1.0
    columns = np.column_stack([male, obs["age"], male * obs["age"]])
    np.testing.assert_allclose(adata.X, corrected(covariates=columns), rtol=1e-8)


def test_a_table_under_other_names_is_refused():
    table = samples()[["sex"]].rename(lambda name: f"{name}-1")
    with pytest.raises(InputError, match="index"):
        bc.pp.combat(annotated(), "batch", covariates=table)


def test_numbered_rows_in_another_order_are_not_taken_by_position():
    table = samples()[["age"]].reset_index(drop=True)
    adata = annotated()
    adata.obs_names = [str(i) for i in range(N)]
    with pytest.raises(InputError, match="index"):
        bc.pp.combat(adata, "batch", covariates=table.iloc[::-1])


def test_an_empty_list_is_no_covariate():
    adata = annotated()
    bc.pp.combat(adata, "batch", covariates=[])
    np.testing.assert_array_equal(adata.X, corrected())


def test_several_batch_factors_and_nuisances():
    adata, obs = annotated(), samples()
    bc.pp.remove_batch_effect(
        adata, ["batch", "chip"], covariates="sex", nuisance=["age"]
    )
    estimator = bc.RemoveBatchEffect()
    expected = estimator.fit_transform(
        values(),
        batch=obs[["batch", "chip"]],
        covariates=obs[["sex"]],
        nuisance=obs[["age"]],
    )
    np.testing.assert_array_equal(adata.X, expected)
    # What was removed is gone: the same model finds nothing more.
    again = bc.RemoveBatchEffect().fit(
        adata.X,
        batch=obs[["batch", "chip"]],
        covariates=obs[["sex"]],
        nuisance=obs[["age"]],
    )
    np.testing.assert_allclose(again.details_["effect"], 0, atol=1e-12)
    np.testing.assert_allclose(again.correction_.nuisance, 0, atol=1e-12)


@pytest.mark.parametrize(
    "given",
    [
        pytest.param(lambda _: "age", id="column"),
        pytest.param(lambda obs: obs[["age"]].iloc[::-1], id="DataFrame, reversed"),
        pytest.param(lambda obs: obs["age"], id="Series"),
        pytest.param(lambda obs: obs[["age"]].to_numpy(), id="array"),
    ],
)
@pytest.mark.parametrize("batch_key", ["batch", None])
def test_nuisances_may_be_given_in_many_ways(given, batch_key):
    adata = annotated()
    bc.pp.remove_batch_effect(adata, batch_key, nuisance=given(samples()))
    expected = bc.RemoveBatchEffect().fit_transform(
        values(), batch=BATCH if batch_key else None, nuisance=samples()[["age"]]
    )
    np.testing.assert_allclose(adata.X, expected, rtol=1e-12)


def test_weights_reach_the_method():
    weights = np.linspace(0.2, 3, N)
    adata = annotated()
    bc.pp.remove_batch_effect(adata, "batch", weights=weights)
    estimator = bc.RemoveBatchEffect()
    expected = estimator.fit_transform(values(), batch=BATCH, weights=weights)
    np.testing.assert_array_equal(adata.X, expected)
    assert np.abs(expected - corrected("remove_batch_effect")).max() > 1e-3


# -- fit here, apply there -----------------------------------------------------------------


@each_method
def test_fit_leaves_the_anndata_as_it_is_and_apply_corrects_it(method):
    adata = annotated()
    correction = bc.fit(adata, "batch", method=method)
    np.testing.assert_array_equal(adata.X, values())
    assert "batchcorr" not in adata.uns
    before = address(adata.X)
    assert bc.pp.apply(adata, correction) is None
    np.testing.assert_array_equal(adata.X, corrected(method))
    assert address(adata.X) == before
    assert record(adata)["method"] == method


def test_fit_reads_a_layer():
    adata = annotated(np.zeros((N, G)))
    adata.layers["log"] = values()
    correction = bc.fit(adata, "batch", layer="log")
    bc.pp.apply(adata, correction, layer="log", key_added="new")
    np.testing.assert_array_equal(adata.layers["new"], corrected())
    np.testing.assert_array_equal(adata.layers["log"], values())


@pytest.mark.parametrize("copy", [False, True])
def test_apply_copies_when_asked(copy):
    adata = annotated()
    found = bc.pp.apply(adata, bc.fit(adata, "batch"), copy=copy)
    assert (found is None) is not copy
    np.testing.assert_array_equal(adata.X, values() if copy else corrected())
    np.testing.assert_array_equal((found or adata).X, corrected())


@pytest.mark.parametrize("convert", [np.array, sp.csr_matrix, np.asfortranarray])
def test_features_are_matched_by_name(convert):
    correction = bc.fit(annotated(), "batch")
    order = np.random.default_rng(5).permutation(G)
    adata = annotated(convert(values()))[:, order].copy()
    bc.pp.apply(adata, correction, dense=True)
    np.testing.assert_allclose(adata.X, corrected()[:, order], rtol=1e-12)
    assert list(adata.var_names) == [GENES[j] for j in order]


@pytest.mark.parametrize("convert", [np.array, sp.csr_matrix])
def test_unknown_features_stay_and_are_reported(convert):
    correction = bc.fit(annotated()[:, [4, 1, 6]].copy(), "batch")
    adata = annotated(convert(values()))
    with pytest.warns(FeatureWarning, match="5 of 8 features.*stay") as caught:
        bc.pp.apply(adata, correction, dense=True)
    assert caught[0].filename == __file__
    known, unknown = [4, 1, 6], [0, 2, 3, 5, 7]
    expected = bc.ComBat().fit_transform(values()[:, known], batch=BATCH)
    np.testing.assert_allclose(adata.X[:, known], expected, rtol=1e-12)
    np.testing.assert_array_equal(adata.X[:, unknown], values()[:, unknown])
    assert any("FeatureWarning" in text for text in record(adata)["warnings"])


def test_missing_features_are_an_error():
    correction = bc.fit(annotated(), "batch")
    adata = annotated()[:, [0, 1, 2, 4, 5]].copy()
    with pytest.raises(MissingKeyError, match=r"3 of 8 features.*g3, g6, g7"):
        bc.pp.apply(adata, correction)
    np.testing.assert_array_equal(adata.X, values()[:, [0, 1, 2, 4, 5]])


def test_other_samples_are_corrected_row_by_row():
    correction = bc.fit(annotated(), "batch", covariates=["sex", "age"])
    rows = [30, 3, 17]
    adata = annotated()[rows].copy()
    bc.pp.apply(adata, correction)
    expected = corrected(covariates=samples()[["sex", "age"]])[rows]
    np.testing.assert_allclose(adata.X, expected, rtol=1e-12)


@pytest.mark.parametrize("learned", [int, str, float, "category"], ids=str)
@pytest.mark.parametrize("met", [int, str, float, "category"], ids=str)
def test_batches_1_and_1_as_text_are_the_same(learned, met):
    codes = pd.Series(np.repeat([1, 2, 10], N // 3))
    correction = bc.fit(annotated(batch=codes.astype(learned).array), "batch")
    text = codes.astype(str).astype(met) if met == "category" else codes.astype(met)
    adata = annotated(batch=text.array)
    bc.pp.apply(adata, correction)
    np.testing.assert_allclose(adata.X, corrected(), rtol=1e-12)


def test_apply_takes_columns_of_other_names():
    correction = bc.fit(annotated(), "batch", covariates="sex")
    adata = annotated()
    adata.obs = adata.obs.rename(columns={"batch": "plate", "sex": "gender"})
    with pytest.raises(MissingKeyError, match="'batch'"):
        bc.pp.apply(adata, correction)
    table = adata.obs[["gender"]].rename(columns={"gender": "sex"})
    bc.pp.apply(adata, correction, batch_key="plate", covariates=table)
    np.testing.assert_array_equal(adata.X, corrected(covariates=samples()[["sex"]]))
    assert record(adata)["batch"] == "plate"


@pytest.mark.parametrize("covariates", [None, "sex", ["sex", "age"], "~ sex + age"])
def test_a_saved_correction_knows_its_columns(covariates, tmp_path):
    adata = annotated()
    correction = bc.fit(adata, "batch", covariates=covariates)
    correction.save(tmp_path / "correction.npz")
    loaded = bc.load(tmp_path / "correction.npz")
    other = annotated()[:, ::-1].copy()
    bc.pp.apply(adata, correction)
    bc.pp.apply(other, loaded)
    np.testing.assert_array_equal(other.X[:, ::-1], adata.X)
    direct = annotated()
    bc.pp.combat(direct, "batch", covariates=covariates)
    np.testing.assert_array_equal(adata.X, direct.X)


def test_a_saved_linear_correction_knows_factors_and_nuisances(tmp_path):
    adata = annotated()
    correction = bc.fit(
        adata,
        ["batch", "chip"],
        method="remove_batch_effect",
        covariates="sex",
        nuisance="age",
    )
    correction.save(tmp_path / "correction.npz")
    bc.pp.apply(adata, bc.load(tmp_path / "correction.npz"))
    direct = annotated()
    bc.pp.remove_batch_effect(
        direct, ["batch", "chip"], covariates="sex", nuisance="age"
    )
    np.testing.assert_array_equal(adata.X, direct.X)


def test_apply_asks_for_covariates_only_where_values_are_scaled():
    without = annotated()
    del without.obs["sex"]
    for options in ({"mean_only": True}, {"method": "remove_batch_effect"}):
        correction = bc.fit(annotated(), "batch", covariates="sex", **options)
        adata = without.copy()
        bc.pp.apply(adata, correction)
    scaled = bc.fit(annotated(), "batch", covariates="sex")
    with pytest.raises(MissingKeyError, match="covariate 'sex'"):
        bc.pp.apply(without, scaled)


def test_a_correction_learned_from_arrays_can_be_applied():
    estimator = bc.ComBat().fit(values(), batch=BATCH)
    adata = annotated()
    bc.pp.apply(adata, estimator, batch_key="batch")
    np.testing.assert_array_equal(adata.X, corrected())


def test_a_correction_learned_from_columns_of_a_table_can_be_applied():
    table = pd.DataFrame(values(), columns=GENES).assign(batch=BATCH)
    estimator = bc.ComBat(batch_column="batch").fit(table)
    adata = annotated()
    bc.pp.apply(adata, estimator, batch_key="batch")
    np.testing.assert_array_equal(adata.X, corrected())


def test_new_batches_join_a_correction():
    correction = bc.fit(annotated(), "batch")
    new = annotated(values() + 3, batch="new")
    grown = correction.add_batches(new.X, batch=new.obs["batch"])
    bc.pp.apply(new, grown)
    assert grown.batches_ == ("a", "b", "c", "new")
    assert abs(new.X.mean() - corrected().mean()) < 0.1


# -- beside scanpy ---------------------------------------------------------------------------


@pytest.mark.parametrize("convert", [np.asarray, sp.csr_matrix])
def test_a_step_of_a_scanpy_pipeline(convert):
    rng = np.random.default_rng(6)
    depth = rng.lognormal(0, 0.3, (90, 1))
    batch = np.repeat(["x", "y", "z"], 30)
    effect = rng.lognormal(0, 0.4, (3, 40))[np.repeat([0, 1, 2], 30)]
    counts = rng.poisson(8 * depth * effect).astype(np.float32)
    adata = ad.AnnData(
        convert(counts),
        obs=pd.DataFrame(
            {"batch": pd.Categorical(batch)}, index=[f"c{i}" for i in range(90)]
        ),
        var=pd.DataFrame(index=[f"g{j}" for j in range(40)]),
    )
    adata.layers["counts"] = adata.X.copy()
    sc.pp.normalize_total(adata, target_sum=1e4)
    sc.pp.log1p(adata)
    separate = spread_between(adata.X, batch)
    bc.pp.combat(adata, "batch", dense=True)
    assert adata.X.dtype == np.float32
    assert spread_between(adata.X, batch) < 0.05 * separate
    sc.pp.pca(adata, n_comps=5)
    assert adata.obsm["X_pca"].shape == (90, 5)
    assert np.isfinite(adata.obsm["X_pca"]).all()
    assert adata.uns["log1p"] is not None


def spread_between(x, batch):
    """Return the mean variance of batch means."""
    x = x.toarray() if sp.issparse(x) else x
    return np.var([x[batch == b].mean(axis=0) for b in "xyz"], axis=0).mean()


@pytest.mark.filterwarnings("ignore::UserWarning:scanpy.*")
def test_as_scanpy_s_combat():
    adata = annotated()
    expected = sc.pp.combat(adata, "batch", inplace=False)
    bc.pp.combat(adata, "batch")
    correlation = np.corrcoef(adata.X.ravel(), expected.ravel())[0, 1]
    assert correlation > 0.999
