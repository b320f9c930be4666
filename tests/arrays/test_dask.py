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
from batchcorr.errors import EmptySampleWarning, InputError, LogScaleWarning
from batchcorr.methods import registry

dask = pytest.importorskip("dask")
da = pytest.importorskip("dask.array")

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*zarr.*"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::anndata.ImplicitModificationWarning"),
]

METHODS = {name: method for name, method in registry().items() if method.record.streams}
OPTIONS = {
    "combat": [{}, {"mean_only": True}, {"parametric": False}, {"reference": 2}],
    "standardize": [{}, {"reference": 2}, {"center": False}],
}
CASES = [(name, options) for name in METHODS for options in OPTIONS.get(name, [{}])]
LIBRARIES = [
    "total",
    "tmm",
    "tmmwsp",
    "rle",
    "upperquartile",
    "median_of_ratios",
    "poscounts",
]
CHUNKS = {
    "ragged": ((1, 20, 3, 0, 20), -1),
    "features": (15, 7),
    "single": ((43, 1), "one and the rest"),
}

every_case = pytest.mark.parametrize(("name", "options"), CASES, ids=str)
every_library = pytest.mark.parametrize("method", LIBRARIES)
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


def sizes_of(chunks, shape):
    """Return the chunks of an array of this shape."""
    if chunks[1] == "one and the rest":
        chunks = (chunks[0], (1, shape[1] - 1))
    return da.core.normalize_chunks(chunks, shape)


def as_blocks(x, chunks, storage=np.asarray):
    blocks = da.from_array(x, chunks=sizes_of(chunks, x.shape))
    return blocks.map_blocks(storage, dtype=x.dtype)


def counted(x, chunks, storage=np.asarray):
    """Return a Dask array, and how often each of its blocks was read."""
    reads, lock = Counter(), threading.Lock()

    def read(block_info):
        place = block_info[None]["array-location"]
        with lock:
            reads[tuple(start for start, _ in place)] += 1
        return storage(x[tuple(slice(*part) for part in place)])

    sizes = sizes_of(chunks, x.shape)
    array = da.map_blocks(
        read, chunks=sizes, dtype=x.dtype, meta=storage(np.empty((0, 0), x.dtype))
    )
    reads.clear()
    return array, reads


DENSE_OR_CSR = [pytest.param(np.asarray, marks=pytest.mark.slow), sp.csr_matrix]


def close(found, expected, tolerance=1e-10):
    found = found.compute() if hasattr(found, "compute") else found
    assert isinstance(found, np.ndarray)
    assert found.dtype == expected.dtype
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)


# -- the results of memory --------------------------------------------------------------


@every_case
@every_chunking
@pytest.mark.parametrize("storage", DENSE_OR_CSR, ids=["dense", "csr"])
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
    assert found.dtype == (np.float64 if dtype is np.int64 else np.float32)
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


def test_the_corrected_view_is_fitted_in_one_read(data):
    x, reads = counted(data.x, (10, -1))
    adata = anndata.AnnData(x, obs=data.table)
    adata.obs["batch"] = data.batch
    for method, options in (("combat", {}), ("combat", {"mean_only": True})):
        reads.clear()
        view = bc.corrected(
            adata, "batch", method=method, covariates=["cell_type", "age"], **options
        )
        assert set(reads.values()) == {1}
        made = view[:, :].compute()
        np.testing.assert_allclose(view.mean(), made.mean(axis=0), rtol=1e-10)
        np.testing.assert_allclose(view.var(), made.var(axis=0, ddof=1), rtol=1e-10)


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


# -- counts and their logarithms --------------------------------------------------------


@pytest.fixture(scope="module")
def counts():
    """44 samples whose depths differ; three features in all of them, ten in none."""
    rng = np.random.default_rng(0)
    level = rng.gamma(0.6, 12, 31) * rng.gamma(9, 0.1, (44, 1))
    found = rng.poisson(level * rng.gamma(4, 0.25, (44, 31))).astype(float)
    found[:, :3] += 1
    found[:, -10:] = 0
    return found


def filled(x):
    """Return what a Dask array of whatever blocks holds, and whether it is sparse."""
    assert isinstance(x, da.Array)
    found = x.compute()
    return (found.toarray(), True) if sp.issparse(found) else (found, False)


@every_library
@every_chunking
@pytest.mark.parametrize("prior_count", [None, 0.5])
@pytest.mark.parametrize("storage", DENSE_OR_CSR, ids=["dense", "csr"])
def test_logarithms_are_those_of_memory(counts, method, prior_count, chunks, storage):
    memory = bc.LogNormalize(method, prior_count=prior_count).fit(counts)
    x = as_blocks(counts, chunks, storage)
    lazy = bc.LogNormalize(method, prior_count=prior_count)
    for logs in (lazy.fit_transform(x), lazy.transform(x)):
        found, sparse = filled(logs)
        assert sparse == (storage is sp.csr_matrix and prior_count is None)
        assert sp.issparse(logs._meta) == sparse
        assert logs.chunks == x.chunks
        close(found, memory.transform(counts), 1e-12)
    assert lazy.target_sum_ == pytest.approx(memory.target_sum_, rel=1e-12)
    assert lazy.mean_library_ == pytest.approx(memory.mean_library_, rel=1e-12)
    close(lazy.size_factors_, memory.size_factors_, 1e-12)
    close(lazy.size_factors(x[5:9]), memory.size_factors_[5:9], 1e-12)
    if method != "total":
        factors = bc.normalization_factors(counts, method)
        close(bc.normalization_factors(x, method), factors, 1e-12)


@every_library
@pytest.mark.parametrize("storage", [sp.csr_array, sp.csc_matrix, sp.coo_matrix])
def test_kinds_of_sparse_blocks(counts, method, storage):
    x = da.from_array(counts, chunks=(11, 13)).map_blocks(storage, dtype=float)
    found, sparse = filled(bc.LogNormalize(method).fit_transform(x))
    assert sparse
    close(found, bc.LogNormalize(method).fit_transform(counts), 1e-12)


@pytest.mark.parametrize("prior_count", [None, 2])
@pytest.mark.parametrize("given", ["float32", "float16", "int64", "uint8", "bool"])
def test_dtypes_of_counts(counts, prior_count, given):
    values = np.minimum(counts, 200).astype(given)
    step = bc.LogNormalize(prior_count=prior_count, base=10)
    found = step.fit_transform(as_blocks(values, (9, 7)))
    assert found.dtype == np.float32
    close(found, step.fit_transform(values), 1e-6)


def test_counts_beyond_32_bits_have_exact_totals():
    values = np.array([[2**40, 2**33, 1], [2**35, 0, 2**31 + 5]])
    step = bc.LogNormalize().fit(as_blocks(values, (1, 2)))
    assert step.target_sum_ == np.median(values.sum(axis=1))


def test_counts_with_entries_stored_twice(counts):
    def in_two_parts(block):
        x = sp.csr_matrix(block)
        halves = np.repeat(x.data / 2, 2), np.repeat(x.indices, 2), x.indptr * 2
        return sp.csr_matrix(halves, shape=x.shape)

    for chunks in ((9, -1), (9, 7)):
        x = as_blocks(counts, chunks, in_two_parts)
        found, _ = filled(bc.LogNormalize("rle").fit_transform(x))
        close(found, bc.LogNormalize("rle").fit_transform(counts), 1e-12)


@every_library
@pytest.mark.parametrize("chunks", [(10, -1), (15, 7)], ids=["rows", "both"])
@pytest.mark.parametrize("storage", [np.asarray, sp.csr_matrix], ids=["dense", "csr"])
def test_counts_are_read_as_often_as_promised(counts, method, chunks, storage):
    x, reads = counted(counts, chunks, storage)
    step = bc.LogNormalize(method).fit(x)
    promised = {"total": 1, "tmm": 3}.get(method, 2)
    again = [n for n in reads.values() if n == promised + 1]
    blocks_of_a_row = x.numblocks[1] if method in {"tmm", "tmmwsp"} else 0
    assert len(again) == blocks_of_a_row  # those of the sample of reference
    assert set(reads.values()) - {promised + 1} == {promised}
    assert len(reads) == x.npartitions
    reads.clear()
    logs = step.transform(x)
    assert not reads
    logs.compute()
    assert set(reads.values()) == {1}
    reads.clear()
    step.size_factors(x)
    assert set(reads.values()) == {1}


def test_totals_against_a_number_need_no_read(counts, tmp_path):
    x, reads = counted(counts, (10, 7))
    step = bc.LogNormalize(target_sum=1e4)
    logs = step.fit_transform(x)
    assert not reads
    assert step.size_factors_ is step.mean_library_ is None
    close(logs, bc.LogNormalize(target_sum=1e4).fit_transform(counts), 1e-12)
    assert set(reads.values()) == {1}
    step.save(tmp_path / "step.npz")
    loaded = bc.load(tmp_path / "step.npz")
    close(loaded.transform(counts), step.transform(counts), 0)
    with pytest.raises(
        InputError, match=r"needs the mean library size.*call fit again"
    ):
        step.set_params(prior_count=2).transform(counts)
    reads.clear()
    prior = bc.LogNormalize(target_sum=1e4, prior_count=2)
    close(prior.fit(x).transform(counts), prior.fit_transform(counts), 1e-12)
    assert set(reads.values()) == {1}


@pytest.mark.parametrize("storage", [np.asarray, sp.csr_matrix], ids=["dense", "csr"])
@pytest.mark.parametrize(
    "scheduler", ["threads", pytest.param("processes", marks=pytest.mark.slow)]
)
def test_counts_on_schedulers(counts, storage, scheduler):
    with dask.config.set(scheduler=scheduler, num_workers=2):
        x = da.from_array(counts, chunks=(20, 16)).map_blocks(storage, dtype=float)
        found, _ = filled(bc.LogNormalize("tmm").fit_transform(x))
    close(found, bc.LogNormalize("tmm").fit_transform(counts), 1e-12)


def test_samples_without_counts_in_blocks(counts):
    values = np.insert(counts, [0, 9, 9], 0, axis=0)
    x = as_blocks(values, (3, 40))
    step = bc.LogNormalize("tmmwsp")
    with pytest.warns(
        EmptySampleWarning, match=r"3 of 47 samples .*\(rows 0, 10, 11\)"
    ):
        step.fit(x)
    found = step.transform(x).compute()
    empty = ~values.any(axis=1)
    np.testing.assert_array_equal(found[empty], 0)
    close(found[~empty], bc.LogNormalize("tmmwsp").fit_transform(counts), 1e-12)
    with pytest.warns(EmptySampleWarning, match="1 of 3 samples"):
        np.testing.assert_array_equal(step.size_factors(x[:3])[[0]], 1)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (-1.0, "negative values, down to -1"),
        (np.nan, r"first: row 23\) contain missing or infinite"),
        (np.inf, r"first: row 23\) contain missing or infinite"),
    ],
)
@every_library
def test_what_is_no_count_is_refused_when_it_is_read(counts, method, bad, message):
    values = counts.copy()
    values[23, 5] = bad
    x, step = as_blocks(values, (10, 7)), bc.LogNormalize(method)
    for read in (step.fit, step.fit_transform):
        with pytest.raises(InputError, match=message):
            read(x)
    step.fit(counts)
    for logs in (step.transform(x), bc.LogNormalize(target_sum=9).fit_transform(x)):
        with pytest.raises(InputError, match=message):
            logs.compute()
        assert np.isfinite(logs[:20].compute()).all()  # rows of other blocks are fine


def test_a_sample_that_cannot_be_measured_is_named(counts):
    values = counts.copy()
    values[31] = 0
    values[31, 30] = 4  # a feature that no other sample has
    step = bc.LogNormalize("poscounts").fit(counts)
    logs = step.transform(as_blocks(values, (10, -1)))
    with pytest.raises(InputError, match=r"1 of 10 samples \(rows 31\) have no size"):
        logs.compute()


def test_counts_that_are_none(counts):
    with pytest.warns(LogScaleWarning, match="look like logarithms"):
        bc.LogNormalize().fit(as_blocks(np.log1p(counts), (10, 7)))
    with pytest.raises(InputError, match="All counts are 0"):
        bc.LogNormalize("tmm").fit(as_blocks(counts * 0, (10, 7)))
    with pytest.raises(InputError, match="nothing to fit: the data are 0 samples"):
        bc.LogNormalize().fit(as_blocks(counts[:0], (10, 7)))
    x = as_blocks(counts.astype(int), (10, -1))
    with pytest.raises(InputError, match="chunks are not known"):
        bc.LogNormalize().fit(x[x[:, 2] > 3])


@pytest.mark.parametrize("storage", [np.asarray, sp.csr_matrix], ids=["dense", "csr"])
@pytest.mark.parametrize(
    "options", [{}, {"target_sum": 1e4}, {"method": "tmm"}], ids=str
)
def test_anndata_from_counts_to_corrected(counts, storage, options):
    obs = pd.DataFrame({"batch": ["a", "b"] * 22}).set_index(np.arange(44).astype(str))
    memory = anndata.AnnData(counts.copy(), obs=obs)
    x, reads = counted(counts, (10, -1), storage)
    lazy = anndata.AnnData(x, obs=obs, layers={"counts": x})
    reads.clear()
    bc.pp.log_normalize(memory, **options)
    bc.pp.log_normalize(lazy, **options)
    assert bool(reads) == ("target_sum" not in options)
    close(filled(lazy.X)[0], memory.X)
    assert lazy.uns["log1p"] == memory.uns["log1p"]
    if "target_sum" in options:
        assert list(lazy.obs) == ["batch"]
    else:
        close(lazy.obs["size_factor"].to_numpy(), memory.obs["size_factor"].to_numpy())
    bc.pp.combat(memory, "batch")
    bc.pp.combat(lazy, "batch")
    close(lazy.X, memory.X)
    close(filled(lazy.layers["counts"])[0], counts)
    assert '"log_normalize"' in lazy.uns["batchcorr"]["X"]


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


@pytest.mark.parametrize("kind", ["zarr", "h5ad"])
@pytest.mark.parametrize("sparse", [False, True], ids=["dense", "csr"])
def test_counts_from_file_to_file(counts, tmp_path, kind, sparse):
    pytest.importorskip("xarray")
    memory = anndata.AnnData(sp.csr_matrix(counts) if sparse else counts.copy())
    path, out = tmp_path / f"in.{kind}", tmp_path / f"out.{kind}"
    (memory.write_zarr if kind == "zarr" else memory.write_h5ad)(path)
    lazy = anndata.experimental.read_lazy(path)
    lazy.obs, lazy.var = lazy.obs.to_memory(), lazy.var.to_memory()
    bc.pp.log_normalize(lazy, method="tmm")
    (lazy.write_zarr if kind == "zarr" else lazy.write_h5ad)(out)
    found = (anndata.read_zarr if kind == "zarr" else anndata.read_h5ad)(out)
    bc.pp.log_normalize(memory, method="tmm")
    assert sp.issparse(found.X) == sparse
    one, other = (x.toarray() if sparse else x for x in (found.X, memory.X))
    close(one, other, 1e-12)
    close(found.obs["size_factor"].to_numpy(), memory.obs["size_factor"].to_numpy())


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
