"""Chunks of a zarr store that are gone: found where they cannot hold zeros alone."""

from __future__ import annotations

import shutil

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import zarr

from batchcorr._files.chunks import require_whole_chunks
from batchcorr.errors import FileError, FileWarning

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*(Writing zarr v2|autosharding)"),
    pytest.mark.filterwarnings("ignore:.*zarr.*:FutureWarning"),
]
needs_zarr_3 = pytest.mark.skipif(
    not hasattr(zarr, "create_array"), reason="zarr 2 writes one kind of store"
)


@pytest.fixture(params=[2, pytest.param(3, marks=needs_zarr_3)])
def store(request, tmp_path):
    """40 samples × 12 features, sparse and dense, in chunks of 10."""
    x = sp.random(40, 12, 0.5, format="csr", random_state=0)
    obs = pd.DataFrame({"day": pd.Categorical(["mon", "tue"] * 20)})
    obs.index = [f"s{i}" for i in range(40)]
    adata = anndata.AnnData(x, obs=obs, layers={"dense": x.toarray()})
    kind = {"zarr_format": request.param} if hasattr(zarr, "create_array") else {}
    group = zarr.open_group(str(tmp_path / "in.zarr"), mode="w", **kind)
    anndata.io.write_elem(group, "/", adata)
    anndata.io.write_elem(group, "X", x, dataset_kwargs={"chunks": (10,)})
    return tmp_path / "in.zarr"


def check(store):
    require_whole_chunks(store, zarr.open_group(str(store), mode="r"))


def lose(store, array, place):
    folder = store / array
    if (folder / "values").is_dir():  # texts that may be missing
        folder = folder / "values"
    chunks = [file for file in folder.rglob("*") if file.name.isdecimal()]
    sorted(chunks, key=lambda file: int(file.name))[place].unlink()


@pytest.mark.parametrize("place", [0, -1])
@pytest.mark.parametrize(
    "array", ["X/indptr", "X/indices", "obs/_index", "obs/day/categories"]
)
def test_a_lost_chunk_that_cannot_hold_zeros_alone_is_refused(store, array, place):
    check(store)
    lose(store, array, place)
    named = f"in.zarr cannot be read: {array}(/values)? is damaged"
    with pytest.raises(FileError, match=named):
        check(store)


def test_a_lost_chunk_of_stored_values_is_named(store):
    lose(store, "X/data", 0)
    with pytest.warns(FileWarning, match=r"no chunk 0 of X/data, so that .* read as 0"):
        check(store)


def test_what_may_hold_zeros_alone_needs_no_chunks(store):
    """Rows without values, and a first column with one value a row."""
    group = zarr.open_group(str(store), mode="r+")
    options = {"chunks": (10,)}
    if hasattr(zarr, "create_array"):
        options["shards"] = None  # a file a chunk, or all are lost with one
    x = sp.csr_matrix(np.eye(1, 12).repeat(40, axis=0))
    empty = sp.vstack([sp.csr_matrix((20, 12)), x])
    for name, matrix in (("one", x), ("empty", empty)):
        anndata.io.write_elem(group["layers"], name, matrix, dataset_kwargs=options)
    for array in ("layers/one/indices", "layers/empty/indptr"):
        for chunk in (store / array).rglob("0"):  # where zarr wrote it
            chunk.unlink()
    shutil.rmtree(store / "layers" / "dense" / "c", ignore_errors=True)
    check(store)
