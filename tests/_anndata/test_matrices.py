"""Whose memory is written to: nobody's who does not expect it."""

from __future__ import annotations

import re
import warnings

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import batchcorr as bc
from batchcorr.errors import (
    InputError,
    ViewWarning,
)
from tests.pp.annotated import (
    BATCH,
    G,
    N,
    annotated,
    corrected,
    each_method,
    record,
    samples,
    values,
)


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
    assert found.dtype == (np.float64 if dtype in (np.int64, ">f8") else np.float32)
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


def test_x_kept_deep_in_uns_keeps_its_values():
    adata = annotated()
    adata.uns["kept"] = {"by": {"me": adata.X}}
    assert adata.uns["kept"]["by"]["me"] is adata.X
    bc.pp.combat(adata, "batch")
    np.testing.assert_array_equal(adata.uns["kept"]["by"]["me"], values())
    np.testing.assert_array_equal(adata.X, corrected())


def test_what_a_mask_hides_is_missing():
    hidden = np.zeros((N, G), dtype=bool)
    hidden[3, 5] = True
    x = values()
    adata = annotated(x.copy())
    x[hidden] = 1e6
    adata.layers["masked"] = np.ma.masked_array(x, hidden)
    assert isinstance(adata.layers["masked"], np.ma.MaskedArray)
    bc.pp.combat(adata, "batch", layer="masked", key_added="new")
    expected = corrected(x=np.where(hidden, np.nan, values()))
    np.testing.assert_array_equal(adata.layers["new"], expected)
    assert adata.layers["masked"].mask[3, 5]


@pytest.mark.parametrize("copy", [False, True])
def test_a_view_does_not_forget_what_a_mask_hides(copy):
    hidden = np.zeros((N, G), dtype=bool)
    hidden[3, 5] = True
    whole = annotated(np.ma.masked_array(np.where(hidden, 1e6, values()), hidden))
    whole.layers["masked"] = whole.X.copy()
    expected = corrected(x=np.where(hidden, np.nan, values()))
    for layer in (None, "masked"):
        view = whole[np.arange(N)]
        with warnings.catch_warnings(action="ignore", category=ViewWarning):
            made = bc.pp.combat(view, "batch", layer=layer, key_added="new", copy=copy)
        made = made if copy else view
        np.testing.assert_array_equal(made.layers["new"], expected)
        assert made.layers["masked"].mask[3, 5]


def test_a_backed_anndata_says_what_can_be_done(tmp_path):
    annotated().write_h5ad(tmp_path / "a.h5ad")
    adata = ad.read_h5ad(tmp_path / "a.h5ad", backed="r")
    with pytest.raises(InputError, match=r"to_memory\(\).*--memory.*Dask") as error:
        bc.fit(adata, "batch")
    named = re.search(r"anndata\.experimental\.(\w+)", str(error.value))
    assert hasattr(ad.experimental, named.group(1))
    adata.file.close()


def test_a_sparse_matrix_in_a_file_is_refused_by_its_type(tmp_path):
    ad.AnnData(sp.csr_matrix(values())).write_h5ad(tmp_path / "a.h5ad")
    adata = ad.read_h5ad(tmp_path / "a.h5ad", backed="r")
    with pytest.raises(InputError, match=r"CSRDataset.*Dask"):
        bc.ComBat().fit(adata.X, batch=["a", "b"] * (N // 2))
    adata.file.close()
