"""Where the result of a correction goes; failing leaves everything as it was."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import batchcorr as bc
from batchcorr.errors import (
    BatchSizeWarning,
    DensifyWarning,
    DesignError,
    InputError,
    MissingKeyError,
    TooLargeError,
    UnknownBatchError,
)
from tests.pp.annotated import (
    BATCH,
    FEW,
    METHODS,
    G,
    N,
    address,
    annotated,
    corrected,
    each_method,
    record,
    sparse,
    values,
)


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


@pytest.mark.usefixtures("tiny_is_large")
@each_method
@pytest.mark.parametrize("kind", [sp.csr_matrix, sp.csc_matrix, sp.csr_array])
def test_a_sparse_x_becomes_dense_with_a_warning(method, kind):
    adata = annotated(sparse(kind))
    with pytest.warns(DensifyWarning, match=r"36 × 8 values take 2\.2 KiB") as caught:
        bc.pp.correct(adata, "batch", method)
    assert sum(w.category is DensifyWarning for w in caught) == 1
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


@pytest.mark.usefixtures("tiny_is_large")
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
