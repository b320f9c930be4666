"""Dask arrays: the results of memory, every block read once, nothing computed early."""

from __future__ import annotations

import os
import threading
from collections import Counter

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import batchcorr as bc
from batchcorr.errors import InputError
from batchcorr.methods import registry
from batchcorr.methods.base import LocationScaleMethod

dask = pytest.importorskip("dask")
da = pytest.importorskip("dask.array")

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*zarr.*"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::anndata.ImplicitModificationWarning"),
]

METHODS = {
    name: method
    for name, method in registry().items()
    if issubclass(method, LocationScaleMethod)
}
OPTIONS = {
    "combat": [{}, {"mean_only": True}, {"parametric": False}, {"reference": 2}],
    "standardize": [{}, {"reference": 2}, {"center": False}],
}
CASES = [(name, options) for name in METHODS for options in OPTIONS.get(name, [{}])]
CHUNKS = {
    "whole": (-1, -1),
    "regular": (10, -1),
    "ragged": ((1, 20, 3, 0, 20), -1),
    "features": (15, 7),
    "single": ((43, 1), 1),
}

every_case = pytest.mark.parametrize(("name", "options"), CASES, ids=str)
every_chunking = pytest.mark.parametrize("chunks", CHUNKS.values(), ids=CHUNKS)


@pytest.fixture(autouse=True)
def in_this_thread():
    with dask.config.set(scheduler="synchronous"):
        yield


@pytest.fixture
def data(request):
    return request.getfixturevalue("small")


def beside(data, name):
    """Return the metadata that go with the samples."""
    found = {"batch": data.batch, "covariates": data.table[["cell_type", "sex"]]}
    if name == "remove_batch_effect":
        found["nuisance"] = data.table[["age"]]
    return found


def as_blocks(x, chunks, storage=np.asarray):
    return da.from_array(x, chunks=chunks).map_blocks(storage, dtype=x.dtype)


def counted(x, chunks, storage=np.asarray):
    """Return a Dask array, and how often each of its blocks was read."""
    reads, lock = Counter(), threading.Lock()

    def read(block_info):
        place = block_info[None]["array-location"]
        with lock:
            reads[tuple(start for start, _ in place)] += 1
        return storage(x[tuple(slice(*part) for part in place)])

    sizes = da.core.normalize_chunks(chunks, x.shape)
    array = da.map_blocks(
        read, chunks=sizes, dtype=x.dtype, meta=storage(np.empty((0, 0), x.dtype))
    )
    reads.clear()
    return array, reads


def close(found, expected, tolerance=1e-10):
    found = found.compute() if hasattr(found, "compute") else found
    assert isinstance(found, np.ndarray)
    assert found.dtype == expected.dtype
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)


# -- the results of memory --------------------------------------------------------------


@every_case
@every_chunking
@pytest.mark.parametrize("storage", [np.asarray, sp.csr_matrix], ids=["dense", "csr"])
def test_equal_to_memory(data, name, options, chunks, storage):
    x, about = as_blocks(data.x, chunks, storage), beside(data, name)
    memory = METHODS[name](**options).fit(data.x, **about)
    lazy = METHODS[name](**options).fit(x, **about)
    close(lazy.correction_.shift, memory.correction_.shift)
    close(lazy.correction_.scale, memory.correction_.scale)
    close(lazy.transform(x, **about), memory.transform(data.x, **about))
    close(lazy.fit_transform(x, **about), memory.transform(data.x, **about))
    back = lazy.inverse_transform(lazy.transform(x, **about), **about)
    close(back, data.x)


@pytest.mark.filterwarnings("ignore::batchcorr.errors.CountsWarning")
@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("dtype", [np.float32, np.int64, bool])
@pytest.mark.parametrize("storage", [np.asarray, sp.csr_array], ids=["dense", "csr"])
def test_dtypes(data, name, dtype, storage):
    values = (data.x * 3).astype(dtype)
    about = beside(data, name)
    model = METHODS[name]().fit(values, **about)
    x = as_blocks(values, (15, 9), storage)
    found = METHODS[name]().fit_transform(x, **about)
    assert found.dtype == np.float32
    close(found, model.transform(values, **about), 1e-6)


@pytest.mark.parametrize("name", METHODS)
@every_chunking
def test_missing_values(data, name, chunks):
    values = data.x.copy()
    values[np.random.default_rng(0).random(values.shape) < 0.1] = np.nan
    values[:, 5] = data.x[:, 5]
    values[data.batch == 1, 7] = np.nan
    about = beside(data, name)
    expected = METHODS[name]().fit_transform(values, **about)
    close(METHODS[name]().fit_transform(as_blocks(values, chunks), **about), expected)


@every_chunking
@pytest.mark.parametrize("shape", ["rows", "values"])
def test_weights(data, chunks, shape):
    rng = np.random.default_rng(0)
    weights = rng.gamma(2, 1, data.x.shape if shape == "values" else len(data.x))
    about = beside(data, "remove_batch_effect")
    one, other = (
        bc.RemoveBatchEffect().fit(x, weights=weights, **about)
        for x in (data.x, as_blocks(data.x, chunks))
    )
    close(other.correction_.shift, one.correction_.shift)
    close(other.correction_.nuisance, one.correction_.nuisance)


def test_long_matrices(tall):
    about = {"batch": tall.batch, "covariates": tall.table}
    expected = bc.ComBat().fit_transform(tall.x, **about)
    for chunks in ((1000, 3), (77, -1)):
        close(bc.ComBat().fit_transform(as_blocks(tall.x, chunks), **about), expected)


def test_partial_fit_and_new_batches(data):
    x, old = as_blocks(data.x, (9, 11)), data.batch < 3
    rows = np.flatnonzero(old), np.flatnonzero(~old)
    models = []
    for values in (data.x, x):
        model = bc.ComBat().fit(values[rows[0]], batch=data.batch[rows[0]])
        grown = model.add_batches(values[rows[1]], batch=data.batch[rows[1]])
        models.append(grown.transform(values, batch=data.batch))
        parts = bc.Standardize()
        for part in np.array_split(np.arange(len(data.x)), 3):
            parts.partial_fit(values[part], batch=data.batch[part], batches=[1, 2, 3])
        models.append(parts.transform(values, batch=data.batch))
    close(models[2], models[0])
    close(models[3], models[1])


@pytest.mark.parametrize("scheduler", ["synchronous", "threads"])
def test_schedulers(tall, scheduler):
    about = {"batch": tall.batch, "covariates": tall.table[["cell_type", "age"]]}
    expected = bc.ComBat().fit_transform(tall.x, **about)
    for storage in (np.asarray, sp.csr_matrix):
        with dask.config.set(scheduler=scheduler):
            x = as_blocks(tall.x, (200, -1), storage)
            close(bc.ComBat().fit_transform(x, **about), expected)


# -- what is read, and when -------------------------------------------------------------


@every_case
@pytest.mark.parametrize("chunks", [(10, -1), (15, 7)], ids=["rows", "both"])
@pytest.mark.parametrize("storage", [np.asarray, sp.csr_matrix], ids=["dense", "csr"])
def test_fit_reads_every_block_once_and_transform_none(
    data, name, options, chunks, storage
):
    x, reads = counted(data.x, chunks, storage)
    about = beside(data, name)
    model = METHODS[name](**options).fit(x, **about)
    assert len(reads) == x.npartitions
    assert set(reads.values()) == {1}
    corrected = model.transform(x, **about)
    assert set(reads.values()) == {1}
    assert isinstance(corrected, da.Array)
    assert corrected.chunks == x.chunks
    corrected.compute()
    assert set(reads.values()) == {2}
    corrected[:5].compute()
    assert sorted(reads.values())[-1] == 3
    assert min(reads.values()) == 2  # five rows need the blocks they are in


def test_missing_values_are_read_once_too(data):
    values = data.x.copy()
    values[3, 4] = np.nan
    x, reads = counted(values, (10, 7))
    bc.ComBat().fit(x, batch=data.batch)
    assert set(reads.values()) == {1}


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("storage", [np.asarray, sp.csr_matrix], ids=["dense", "csr"])
def test_anndata_is_read_once_and_corrected_lazily(data, name, storage):
    x, reads = counted(data.x, (10, 7), storage)
    obs = data.table.assign(batch=data.batch.astype(str))
    obs.index = obs.index.astype(str)
    memory = anndata.AnnData(data.x.copy(), obs=obs)
    lazy = anndata.AnnData(x, obs=obs, layers={"log": x})
    for place in ({}, {"layer": "log", "key_added": "b"}):
        reads.clear()
        bc.pp.correct(lazy, "batch", method=name, covariates=["sex"], **place)
        assert set(reads.values()) == {1}
    bc.pp.correct(memory, "batch", method=name, covariates=["sex"])
    assert isinstance(lazy.X, da.Array)
    close(lazy.X, memory.X)
    close(lazy.layers["b"], memory.X)
    assert lazy.layers["log"] is not lazy.X
    view = lazy[5:30]
    assert isinstance(view.X, da.Array)


@pytest.mark.parametrize("storage", [np.asarray, sp.csr_matrix], ids=["dense", "csr"])
@pytest.mark.filterwarnings("ignore::batchcorr.errors.FeatureWarning")
def test_apply_matches_features(data, storage):
    obs = pd.DataFrame({"batch": data.batch.astype(str)}).set_index(
        np.arange(len(data.x)).astype(str)
    )
    memory = anndata.AnnData(data.x.copy(), obs=obs)
    lazy = anndata.AnnData(as_blocks(data.x, (10, 7), storage), obs=obs)
    correction = bc.fit(lazy[:, 20:3:-1].copy(), "batch", method="standardize")
    bc.pp.apply(memory, correction)
    bc.pp.apply(lazy, correction)
    assert isinstance(lazy.X, da.Array)
    close(lazy.X, memory.X)


# -- refusals ---------------------------------------------------------------------------


def test_unknown_chunks(data):
    x = as_blocks(data.x, (10, -1))
    x = x[x[:, 2] > -1]
    with pytest.raises(
        InputError, match=r"chunks are not known: call x\.compute_chunk"
    ):
        bc.ComBat().fit(x, batch=data.batch)
    x.compute_chunk_sizes()
    close(
        bc.ComBat().fit_transform(x, batch=data.batch),
        bc.ComBat().fit_transform(data.x, batch=data.batch),
    )


def test_infinite_values(data):
    values = data.x.copy()
    values[40, 3] = np.inf
    with pytest.raises(InputError, match="infinite"):
        bc.ComBat().fit(as_blocks(values, (10, 7)), batch=data.batch)


def test_what_needs_memory_says_so(data):
    obs = pd.DataFrame({"batch": data.batch.astype(str)})
    obs.index = obs.index.astype(str)
    x, reads = counted(np.round(data.x), (10, -1))
    lazy = anndata.AnnData(x, obs=obs)
    reads.clear()
    with pytest.raises(InputError, match="must be in memory"):
        bc.pp.combat_seq(lazy, "batch")
    assert not reads


# -- lazily read files ------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["zarr", "h5ad"])
@pytest.mark.parametrize("sparse", [False, True], ids=["dense", "csr"])
def test_from_file_to_file(data, tmp_path, kind, sparse):
    pytest.importorskip("xarray")
    obs = data.table.assign(batch=pd.Categorical(data.batch.astype(str)))
    obs.index = obs.index.astype(str)
    memory = anndata.AnnData(data.x.copy(), obs=obs)
    stored = memory.copy()
    if sparse:
        stored.X = sp.csr_matrix(stored.X)
    path = tmp_path / f"in.{kind}"
    (stored.write_zarr if kind == "zarr" else stored.write_h5ad)(path)

    lazy = anndata.experimental.read_lazy(path)
    lazy.obs, lazy.var = lazy.obs.to_memory(), lazy.var.to_memory()
    assert isinstance(lazy.X, da.Array)
    bc.pp.combat(lazy, "batch", covariates=["cell_type", "age"])
    assert isinstance(lazy.X, da.Array)
    out = tmp_path / f"out.{kind}"
    (lazy.write_zarr if kind == "zarr" else lazy.write_h5ad)(out)

    bc.pp.combat(memory, "batch", covariates=["cell_type", "age"])
    found = (anndata.read_zarr if kind == "zarr" else anndata.read_h5ad)(out)
    close(found.X, memory.X)
    assert "batchcorr" in found.uns


def test_columns_that_are_lazy_too(data, tmp_path):
    pytest.importorskip("xarray")
    obs = data.table.assign(batch=pd.Categorical(data.batch.astype(str)))
    obs.index = obs.index.astype(str)
    memory = anndata.AnnData(data.x.copy(), obs=obs)
    memory.write_zarr(tmp_path / "in.zarr")
    for covariates in (["cell_type", "age"], "~ cell_type + age", None):
        lazy = anndata.experimental.read_lazy(tmp_path / "in.zarr")
        found = bc.fit(lazy, "batch", covariates=covariates)
        expected = bc.fit(memory, "batch", covariates=covariates)
        close(found.correction_.shift, expected.correction_.shift)


# -- many processes ---------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("storage", [np.asarray, sp.csr_matrix], ids=["dense", "csr"])
def test_a_worker_killed_in_mid_run_costs_time_only(tall, tmp_path, storage):
    distributed = pytest.importorskip("distributed")
    mark = tmp_path / "killed"

    def read(block, block_info=None):
        """Die once, in the middle."""
        import time

        time.sleep(0.05)
        if block_info[0]["chunk-location"][0] == 12 and not mark.exists():
            mark.touch()
            os._exit(1)
        return storage(block)

    about = {"batch": tall.batch, "covariates": tall.table}
    expected = bc.ComBat().fit_transform(tall.x, **about)
    with (
        distributed.LocalCluster(
            n_workers=2, processes=True, threads_per_worker=1, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster),
        dask.config.set(scheduler=None),
    ):
        x = da.from_array(tall.x, chunks=(200, -1)).map_blocks(read, dtype=float)
        model = bc.ComBat().fit(x, **about)
        assert mark.exists()
        mark.unlink()
        close(model.transform(x, **about), expected)
        assert mark.exists()
