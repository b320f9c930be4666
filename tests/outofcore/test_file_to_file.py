"""From file to file in blocks: the same file as in memory, or none at all."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import anndata
import h5py
import numcodecs
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import zarr
from typer.testing import CliRunner

from batchcorr._anndata import records
from batchcorr._anndata.step import Place
from batchcorr._files.atomic import replacing, replacing_folder
from batchcorr._files.chunks import require_whole_chunks
from batchcorr.cli import app
from batchcorr.cli.arguments import memory_bytes
from batchcorr.errors import FileError
from batchcorr.outofcore import correct
from batchcorr.outofcore import source as opened
from batchcorr.outofcore.stored_matrix import StoredMatrix

ROOT = Path(__file__).resolve().parents[2]
MEMORY = "8GiB"  # blocks are made small below; this is more than any test process takes

# anndata writes zarr 2 stores and says that it will not do so for ever.
pytestmark = [
    pytest.mark.filterwarnings("ignore::batchcorr.errors.DensifyWarning"),
    pytest.mark.filterwarnings("ignore:Writing zarr v2"),
    pytest.mark.filterwarnings("ignore:.*zarr.*:FutureWarning"),
]
needs_posix = pytest.mark.skipif(os.name != "posix", reason="signals differ")

needs_linux = pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="reads the peak from /proc"
)

KINDS = ("h5ad", "zarr")


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Blocks of 8 KiB: 40 rows of 24 floats of 8 bytes."""
    monkeypatch.setattr(opened, "LARGEST", 1 << 13)


def slow(*values):
    return pytest.param(*values, marks=pytest.mark.slow)


@pytest.fixture(scope="session")
def samples():
    """500 samples, a layer and a title."""
    rng = np.random.default_rng(3)
    n, g = 500, 24
    x = np.round(rng.gamma(2, 1, (n, g)) * (rng.random((n, g)) < 0.6) * 1024) / 1024
    batch = rng.choice(["a", "b", "c"], n)
    x[batch == "b"] += 0.5 * (x[batch == "b"] > 0)
    obs = pd.DataFrame(
        {
            "batch": pd.Categorical(batch),
            "type": rng.choice(["T", "B"], n),
            "age": rng.normal(50, 9, n),
        },
        index=[f"cell{i}" for i in range(n)],
    )
    adata = anndata.AnnData(x, obs=obs)
    adata.layers["log"] = x + 1
    adata.uns["title"] = "ours"
    return adata


@pytest.fixture(scope="session")
def everything(samples):
    """The samples with all that an AnnData can hold."""
    adata, rng = samples.copy(), np.random.default_rng(4)
    n, g = adata.shape
    adata.var["long"] = [f"gene {i}" for i in range(g)]
    adata.layers["counts"] = sp.csr_matrix(adata.X)
    adata.obsm["X_pca"] = rng.normal(size=(n, 3))
    adata.obsm["table"] = adata.obs[["age"]].copy()
    adata.obsp["near"] = sp.csr_matrix(sp.random(n, n, 0.01, random_state=1))
    adata.varm["PCs"] = rng.normal(size=(g, 3))
    adata.uns["nested"] = {"a": np.arange(3)}
    adata.raw = adata
    return adata


def put(adata, path, *, sparse=False, dtype=np.float64, **options):
    adata = adata.copy()
    x = adata.X.astype(dtype)
    adata.X = sp.csr_matrix(x) if sparse else x
    if path.suffix == ".zarr":
        adata.write_zarr(path, **options)
    else:
        adata.write_h5ad(path, **options)
    return path


def in_format(version):
    """Have anndata write zarr stores in a format, where it can write more than one."""
    if not version or not hasattr(anndata.settings, "zarr_write_format"):
        if version == "3":
            pytest.skip("this anndata writes zarr stores of format 2 only")
        return contextlib.nullcontext()
    return anndata.settings.override(zarr_write_format=int(version))


def read(path):
    return (anndata.read_zarr if path.suffix == ".zarr" else anndata.read_h5ad)(path)


def batchcorr(*arguments):
    return CliRunner().invoke(app, list(map(str, arguments)))


def done(*arguments):
    result = batchcorr(*arguments)
    assert result.exit_code == 0, result.output
    return result


def refused(*arguments):
    result = batchcorr(*arguments)
    assert result.exit_code == 1, result.output
    lines = [line for line in result.stderr.splitlines() if "Warning" not in line]
    assert len(lines) == 1
    assert lines[0].startswith("Error: ")
    return lines[0]


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def same(found, expected, tolerance=1e-12):
    """Both files hold the same, corrected values to rounding."""
    pd.testing.assert_frame_equal(found.obs, expected.obs)
    pd.testing.assert_frame_equal(found.var, expected.var)
    assert set(found.uns) == set(expected.uns)
    assert found.uns["title"] == expected.uns["title"]
    for one, other in [
        (found.X, expected.X),
        *((found.layers[k], expected.layers[k]) for k in expected.layers),
        *((found.obsp[k], expected.obsp[k]) for k in expected.obsp),
        *((found.varm[k], expected.varm[k]) for k in expected.varm),
        *((found.obsm[k], expected.obsm[k]) for k in {"X_pca"} & {*expected.obsm}),
        *([] if expected.raw is None else [(found.raw.X, expected.raw.X)]),
    ]:
        assert one.dtype == other.dtype
        assert sp.issparse(one) == sp.issparse(other)
        np.testing.assert_allclose(
            *(part.toarray() if sp.issparse(part) else part for part in (one, other)),
            rtol=tolerance,
            atol=tolerance,
        )
    if "table" in expected.obsm:
        pd.testing.assert_frame_equal(found.obsm["table"], expected.obsm["table"])
    for of in ("layers", "obsm", "obsp", "varm"):
        assert set(getattr(found, of)) == set(getattr(expected, of))


# -- equal to the road through memory ---------------------------------------------------


@pytest.mark.parametrize("sparse", [slow(False), True], ids=["dense", "csr"])
@pytest.mark.parametrize("target", KINDS)
@pytest.mark.parametrize("source", [KINDS[0], slow(KINDS[1])])
def test_the_file_is_the_same_as_through_memory(
    everything, tmp_path, source, target, sparse
):
    given = put(everything, tmp_path / f"in.{source}", sparse=sparse)
    out, memory = tmp_path / f"out.{target}", tmp_path / f"memory.{target}"
    options = ["--batch", "batch", "--covariate", "type", "--covariate", "age"]
    done("correct", given, memory, *options, "--dense")
    told = done("correct", given, out, *options, "--dense", "--memory", MEMORY)
    assert "X corrected by combat for 3 batches, keeping type (" in told.stdout
    found, expected = read(out), read(memory)
    same(found, expected)
    assert record_of(found, "X") == record_of(expected, "X")
    assert names_in(tmp_path) == sorted([given.name, out.name, memory.name])


@pytest.mark.parametrize(
    "options",
    [
        ["--method", "standardize", "--reference", "b"],
        ["--method", "remove_batch_effect", "--nuisance", "age"],
        ["--formula", "~ type + age", "--set", "mean_only=true"],
        ["--layer", "log"],
        ["--layer", "log", "--key-added", "corrected"],
        ["--key-added", "corrected"],
        ["--layer", "counts", "--dense"],
    ],
    ids=lambda options: " ".join(options).replace("--", ""),
)
def test_every_option_means_the_same(samples, everything, tmp_path, options):
    given = put(everything if "counts" in options else samples, tmp_path / "in.h5ad")
    for out, more in (("memory.h5ad", []), ("out.h5ad", ["--memory", MEMORY])):
        done("correct", given, tmp_path / out, "--batch", "batch", *options, *more)
    same(read(tmp_path / "out.h5ad"), read(tmp_path / "memory.h5ad"))


@pytest.mark.parametrize("dtype", [slow(np.float32), np.int32])
def test_dtypes_are_those_of_the_road_through_memory(samples, tmp_path, dtype):
    given = put(samples, tmp_path / "in.h5ad", dtype=dtype)
    out, memory = tmp_path / "out.h5ad", tmp_path / "memory.h5ad"
    done("correct", given, memory, "--batch", "batch")
    done("correct", given, out, "--batch", "batch", "--memory", MEMORY)
    same(read(out), read(memory), 1e-6)


@pytest.mark.parametrize("where", [[], ["--layer", "counts", "--key-added", "logs"]])
@pytest.mark.parametrize(
    ("dtype", "scheduler"),
    [
        slow(np.int64, ["--scheduler", "threads"]),
        (np.float32, []),
        slow(np.float64, []),
    ],
)
def test_logarithms_of_counts(samples, tmp_path, dtype, scheduler, where):
    counts = samples.copy()
    counts.X = np.round(samples.X * 8)
    counts.X[7] = 0
    counts.layers["counts"] = sp.csr_matrix(counts.X).astype(dtype)
    given = put(counts, tmp_path / "in.zarr", dtype=dtype)
    out, memory = tmp_path / "out.h5ad", tmp_path / "memory.h5ad"
    options = ["--batch", "batch", "--log-normalize", "--dense", *where]
    done("correct", given, memory, *options)
    told = done("correct", given, out, *options, "--memory", MEMORY, *scheduler)
    assert "1 of 500 samples have no counts (rows 7)" in told.stderr
    found, expected = read(out), read(memory)
    same(found, expected)
    record = record_of(found, "logs" if where else "X")
    assert record == record_of(expected, "logs" if where else "X")
    assert [step["method"] for step in record["earlier"]] == ["log_normalize"]
    assert any("EmptySample" in text for text in record["earlier"][0]["warnings"])


def record_of(adata, key):
    """The record, but for the digest of values that only a matrix in memory has."""
    record = records.read(adata, key)
    for step in (record, *record["earlier"]):
        del step["values_before"], step["values_after"]
    return record


def test_what_is_no_count_has_no_logarithm(samples, tmp_path):
    samples = samples.copy()
    samples.X[300, 3] = -2
    path = put(samples, tmp_path / "in.h5ad")
    options = ["--batch", "batch", "--log-normalize", "--memory", MEMORY]
    told = refused("correct", path, tmp_path / "o.h5ad", *options)
    assert "negative values, down to -2" in told
    samples.X[300, 3] = np.nan
    path = put(samples, tmp_path / "nan.h5ad")
    told = refused("correct", path, tmp_path / "o.h5ad", *options)
    assert "samples (first: number 301) contain missing or infinite values" in told
    assert names_in(tmp_path) == ["in.h5ad", "nan.h5ad"]


def test_missing_values_stay_missing(samples, tmp_path):
    samples = samples.copy()
    samples.X[np.random.default_rng(0).random(samples.shape) < 0.1] = np.nan
    given = put(samples, tmp_path / "in.h5ad")
    out, memory = tmp_path / "out.h5ad", tmp_path / "memory.h5ad"
    done("correct", given, memory, "--batch", "batch")
    done("correct", given, out, "--batch", "batch", "--memory", MEMORY)
    same(read(out), read(memory), 1e-11)


def test_chunks_and_compressor_are_kept(samples, tmp_path):
    path = put(samples, tmp_path / "in.zarr", chunks=(64, 10))
    done("correct", path, tmp_path / "out.zarr", "--batch", "batch", "--memory", MEMORY)
    one, other = (
        zarr.open_group(str(p), mode="r")["X"] for p in (path, tmp_path / "out.zarr")
    )
    assert other.chunks == one.chunks == (64, 10)
    assert other.metadata.zarr_format == one.metadata.zarr_format
    assert other.compressors == one.compressors
    path = put(samples, tmp_path / "in.h5ad", compression="gzip")
    done("correct", path, tmp_path / "out.h5ad", "--batch", "batch", "--memory", MEMORY)
    with h5py.File(path) as one, h5py.File(tmp_path / "out.h5ad") as other:
        assert other["X"].compression == "gzip"
        assert other["X"].chunks == one["X"].chunks


def test_compress_and_force(samples, tmp_path):
    path, out = put(samples, tmp_path / "in.h5ad"), tmp_path / "out.h5ad"
    options = [path, out, "--batch", "batch", "--memory", MEMORY]
    done("correct", *options)
    assert "exists already" in refused("correct", *options)
    done("correct", *options, "--force", "--compress")
    with h5py.File(out) as file:
        assert file["X"].compression == "gzip"


def test_correcting_twice_warns(samples, tmp_path):
    path, once = put(samples, tmp_path / "in.h5ad"), tmp_path / "once.h5ad"
    done("correct", path, once, "--batch", "batch", "--memory", MEMORY)
    told = done(
        "correct", once, tmp_path / "twice.h5ad", "--batch", "batch", "--memory", MEMORY
    )
    assert "was corrected before" in told.stderr


# -- memory -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("2GiB", 2 << 30),
        ("500MB", 500_000_000),
        (" 1.5 gib ", 3 << 29),
        ("800M", 800_000_000),
        ("4096", 4096),
        ("1TiB", 1 << 40),
    ],
)
def test_sizes(text, size):
    assert memory_bytes(text) == size


@pytest.mark.parametrize("text", ["much", *map(slow, ["", "-2GiB", "1.2.3GB", "GiB"])])
def test_what_is_no_size_is_wrong_usage(samples, tmp_path, text):
    path = put(samples, tmp_path / "in.h5ad")
    result = batchcorr(
        "correct", path, tmp_path / "o.h5ad", "--batch", "batch", f"--memory={text}"
    )
    assert result.exit_code == 2
    told = " ".join(re.sub("[│╭╮╰╯─]", " ", result.stderr).split())
    assert "is not a memory size, such as 2GiB or 500MB" in told


def test_too_little_memory_says_the_least(samples, tmp_path):
    path = put(samples, tmp_path / "in.h5ad")
    told = refused(
        "correct", path, tmp_path / "o.h5ad", "--batch", "batch", "--memory", "64MiB"
    )
    assert re.search(r"64 MiB of memory are too few: .* at least \d[\d,]* MiB", told)
    assert names_in(tmp_path) == ["in.h5ad"]


def test_chunks_taller_than_blocks_are_read_in_parts(samples, tmp_path, monkeypatch):
    monkeypatch.setattr(opened, "block_limit", lambda *_: 1 << 13)
    path, out = (
        put(samples, tmp_path / "in.zarr", chunks=(500, 24)),
        tmp_path / "o.zarr",
    )
    done("correct", path, out, "--batch", "batch", "--memory", MEMORY)
    done("correct", path, tmp_path / "memory.zarr", "--batch", "batch")
    same(read(out), read(tmp_path / "memory.zarr"))
    assert zarr.open_group(str(out), mode="r")["X"].chunks == (42, 24)


@pytest.mark.parametrize("dense", [False, True])
def test_blocks_fit_where_rows_are_fullest(tmp_path, dense):
    rng = np.random.default_rng(0)
    stored = np.r_[np.full(3000, 2), np.full(200, 90)]  # a dense data set comes last
    indptr = np.r_[0, np.cumsum(stored)]
    indices = np.concatenate([np.sort(rng.permutation(100)[:k]) for k in stored])
    x = sp.csr_matrix((np.ones(len(indices), np.float32), indices, indptr))
    anndata.AnnData(x).write_h5ad(tmp_path / "in.h5ad")
    with h5py.File(tmp_path / "in.h5ad") as file:
        found = StoredMatrix(
            tmp_path, "X", file, block_bytes=1 << 15, most_bytes=1 << 15
        )
        slices = found.slices(dense=dense)
        taken = [found.read(rows) for rows in slices]
    sizes = [b.nnz * 8 + (b.shape[0] * 400 if dense else 0) for b in taken]
    assert (1 << 14) < max(sizes) <= 1 << 15
    assert abs(sp.vstack(taken) - x).max() == 0


@needs_linux
@pytest.mark.slow
def test_peak_memory_stays_under_the_bound(tmp_path):
    rows, features = 40_000, 2_000  # 320 MB
    rng = np.random.default_rng(0)
    obs = pd.DataFrame({"batch": rng.choice(["a", "b"], rows)})
    file = zarr.open_group(str(tmp_path / "in.zarr"), mode="w", zarr_format=2)
    file.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
    anndata.io.write_elem(file, "obs", obs.set_index(obs.index.astype(str)))
    var = pd.DataFrame(index=np.arange(features).astype(str))
    anndata.io.write_elem(file, "var", var)
    x = file.create_array(
        "X", shape=(rows, features), chunks=(1000, 500), dtype=np.float32
    )
    x.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
    for start in range(0, rows, 1000):
        x[start : start + 1000] = rng.integers(0, 9, (1000, features))
    code = (
        "from pathlib import Path; from batchcorr.cli import app\n"
        "app(standalone_mode=False)\n"
        "print(Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0])"
    )
    found = {}
    for name, more in (("bound", ["--memory", "640MiB"]), ("free", [])):
        process = shell(
            "correct", "in.zarr", f"{name}.zarr", "--batch", "batch", *more,
            cwd=tmp_path, code=code,
        )  # fmt: skip
        out, err = process.communicate(timeout=100)
        assert process.returncode == 0, err
        assert "X corrected by combat for 2 batches" in out, err
        found[name] = int(out.split()[-1]) / 1024
    assert found["bound"] < 640
    assert found["bound"] < found["free"]


# -- refusals ---------------------------------------------------------------------------


def test_sparse_becomes_dense_only_when_told(samples, tmp_path):
    path = put(samples, tmp_path / "in.h5ad", sparse=True)
    told = refused(
        "correct", path, tmp_path / "o.h5ad", "--batch", "batch", "--memory", MEMORY,
        "--no-dense",
    )  # fmt: skip
    assert "500 × 24 values take 0.0 GiB in the file. Give --dense to write it." in told
    csc = samples.copy()
    csc.X = sp.csc_matrix(csc.X)
    csc.write_h5ad(tmp_path / "csc.h5ad")
    told = refused(
        "correct", tmp_path / "csc.h5ad", tmp_path / "o.h5ad", "--batch", "batch",
        "--memory", MEMORY, "--dense",
    )  # fmt: skip
    assert "is stored as csc_matrix, which cannot be read by rows" in told
    assert names_in(tmp_path) == ["csc.h5ad", "in.h5ad"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--method", "combat_seq"], "needs the whole matrix in memory"),
        (["--layer", "lag"], "There is no layer 'lag'"),
        (["--batch", "bach"], "Did you mean"),
        (["--covariate", "batch"], "is the batch and cannot be a covariate"),
    ],
    ids=str,
)
def test_mistakes_are_explained_and_leave_nothing(samples, tmp_path, options, message):
    path = put(samples, tmp_path / "in.h5ad")
    batch = [] if "--batch" in options else ["--batch", "batch"]
    told = refused(
        "correct", path, tmp_path / "o.h5ad", *batch, *options, "--memory", MEMORY
    )
    assert message in told
    assert names_in(tmp_path) == ["in.h5ad"]


# -- faults -----------------------------------------------------------------------------


def chunks_of(array):
    """Files of chunks: 3.0 in a store of format 2, c/3/0 in one of format 3."""
    return [p for p in array.rglob("*") if p.is_file() and p.name[0] in "0123456789"]


def spoil(path, name, how):
    """Cut a chunk of an array short, near the end, or write rubbish into it."""
    if path.suffix == ".zarr":
        chunk = max(chunks_of(path / name), key=lambda p: (p.stat().st_size > 200, p))
        bytes_ = chunk.read_bytes()
        rubbish = bytes_[:20] + bytes([171] * 60) + bytes_[80:]
        chunk.write_bytes(bytes_[:-100] if how == "cut" else rubbish)
        return
    if how == "cut":
        with path.open("r+b") as file:
            file.truncate(path.stat().st_size - 100)
        return
    with h5py.File(path) as file:
        x = file[name]
        chunk = x.id.get_chunk_info(x.id.get_num_chunks() - 1)
    with path.open("r+b") as file:
        file.seek(chunk.byte_offset + 10)
        file.write(bytes(200))


@pytest.mark.parametrize("name", ["X", slow("layers/log")])
@pytest.mark.parametrize("how", ["cut", "rubbish"])
@pytest.mark.parametrize("kind", ["h5ad", "zarr 2", "zarr 3"])
@pytest.mark.filterwarnings("ignore:.*zarr v3:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:zarr v3 autosharding:UserWarning")
@pytest.mark.filterwarnings("ignore:Consolidated metadata:UserWarning")
def test_a_damaged_chunk_is_one_error_and_no_file(samples, tmp_path, kind, how, name):
    suffix, _, version = kind.partition(" ")
    options = {"chunks": (50, 24)} if version else {"compression": "gzip"}
    with in_format(version):
        path = put(samples, tmp_path / f"in.{suffix}", **options)
    out = tmp_path / "out.zarr"
    spoil(path, name, how)
    whole = refused("correct", path, out, "--batch", "batch")
    blocks = refused("correct", path, out, "--batch", "batch", "--memory", MEMORY)
    for told in (whole, blocks):
        assert "cannot be read" in told
        assert "damaged or incomplete" in told
        if version and how == "cut":
            assert f"{name} is damaged" in told
            blosc = version == "2"  # other packers notice by themselves
            assert ("is of another length than it says" in told) == blosc
    if how == "rubbish":
        assert f"{name} is damaged" in blocks
        assert ("between the rows" in blocks) == (name == "X")
    assert names_in(tmp_path) == [path.name]


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("packer", ["blosc", "zstd", None])
@pytest.mark.parametrize("nested", [False, True])
def test_whole_chunks_of_every_kind_are_welcome(tmp_path, version, packer, nested):
    if not hasattr(zarr, "create_array"):
        pytest.skip("zarr 2 writes one kind of store")
    codecs = {
        (2, "blosc"): numcodecs.Blosc(),
        (2, "zstd"): numcodecs.Zstd(),
        (3, "blosc"): zarr.codecs.BloscCodec(),
        (3, "zstd"): zarr.codecs.ZstdCodec(),
    }
    group = zarr.open_group(str(tmp_path / "in.zarr"), mode="w", zarr_format=version)
    encoding = {"name": "v2" if version == 2 else "default"}
    encoding["separator"] = "/" if nested else "."
    values = np.random.default_rng(0).random((30, 20))
    x = group.create_array(
        "layers/x",
        data=values,
        chunks=(7, 20),
        compressors=codecs.get((version, packer)),
        chunk_key_encoding=encoding,
    )
    group.create_array("number", shape=(), dtype=float)[()] = 3.0
    require_whole_chunks(tmp_path / "in.zarr", group)
    chunks = [p for p in (tmp_path / "in.zarr" / x.path).rglob("*") if p.is_file()]
    chunk = max(chunks, key=lambda p: p.stat().st_size)
    chunk.write_bytes(chunk.read_bytes()[:-1])
    if packer == "blosc":
        with pytest.raises(FileError, match=r"layers/x is damaged .* another length"):
            require_whole_chunks(tmp_path / "in.zarr", group)
    else:
        require_whole_chunks(tmp_path / "in.zarr", group)
        with pytest.raises((RuntimeError, ValueError)):
            x[:]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("how", ["write", "write late", "replace", "delete late"])
def test_a_source_that_changes_is_one_error_and_no_file(
    samples, tmp_path, monkeypatch, kind, how
):
    """Between the two reads, or when all blocks of the second are written."""
    path = put(samples, tmp_path / f"in.{kind}")
    file = path if kind == "h5ad" else max(path.rglob("*"), key=lambda p: p.name == "0")
    out = tmp_path / f"out.{kind}"
    out.mkdir() if kind == "zarr" else out.touch()

    def change():
        content = file.read_bytes()
        if "write" not in how:
            file.unlink()
        if "delete" not in how:
            file.write_bytes(content)

    write = correct.FileCorrection._write_here

    def after(self, made, slices):
        write(self, made, slices)
        change()

    if "late" in how:
        monkeypatch.setattr(correct.FileCorrection, "_write_here", after)
    with contextlib.ExitStack() as stack:
        resources = opened.Resources(memory_bytes(MEMORY))
        fitted = correct.fit_file(path, "batch", resources, Place())
        stack.callback(fitted.close)
        if "late" not in how:
            change()
        replace = replacing_folder if kind == "zarr" else replacing
        changed = pytest.raises(FileError, match=f"in.{kind} changed while it was read")
        with changed, replace(out) as part:
            fitted.write(part)
    assert {*names_in(tmp_path)} - {path.name} == {out.name}
    assert list(out.iterdir()) == [] if kind == "zarr" else out.read_bytes() == b""


def test_what_is_no_anndata_is_one_error(tmp_path):
    (tmp_path / "in.h5ad").write_text("nothing")
    (tmp_path / "in.zarr").mkdir()
    for name in ("in.h5ad", "in.zarr", "none.zarr"):
        refused(
            "correct", tmp_path / name, tmp_path / "out.zarr", "--batch", "batch",
            "--memory", MEMORY,
        )  # fmt: skip
    assert names_in(tmp_path) == ["in.h5ad", "in.zarr"]


def shell(*arguments, cwd, code, **options):
    search = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": search},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


LIMITED = """
import os, resource, sys
import anndata.io, h5py, numba, zarr
from batchcorr.outofcore import stored_matrix, correct
from batchcorr import pp
from batchcorr.cli import app
correct.LARGEST = 1 << 13
for limit in map(int, sys.argv.pop(1).split(",")):
    child = os.fork()
    if child == 0:
        if limit:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        app()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print(f"== {code}", file=sys.stderr, flush=True)
"""
"""Runs a command again and again, each time with a limit to the size of files."""


def contents(path):
    return {p: p.read_bytes() for p in [path, *path.rglob("*")] if p.is_file()}


def ends(process):
    """What runs of `LIMITED` said, and how they ended."""
    lines = process.communicate(timeout=300)[1].splitlines()
    while lines:
        end = next(k for k, line in enumerate(lines) if line.startswith("== "))
        yield lines[:end], int(lines[end].removeprefix("== "))
        lines = lines[end + 1 :]


ROADS = [
    pytest.param(*kinds, memory, marks=[] if quick else [pytest.mark.slow])
    for memory in ([], ["--memory", MEMORY])
    for kinds in itertools.product(KINDS, KINDS)
    for quick in [memory and kinds == ("h5ad", "h5ad")]
]


@needs_posix
@pytest.mark.parametrize(("source", "target", "memory"), ROADS)
@pytest.mark.slow
def test_what_cannot_be_written_is_one_error_and_no_file(
    everything, tmp_path, source, target, memory
):
    path, out = put(everything, tmp_path / f"in.{source}"), tmp_path / f"out.{target}"
    options = [path, out, "--batch", "batch", "--force", *memory]
    done("correct", *options)
    given, made = contents(path), read(out)
    size = max(map(len, contents(out).values()))
    limits = [int(size * share) for share in (0.002, 0.02, 0.2, 0.5, 0.99)]
    listed = ",".join(map(str, [*limits, 0]))
    process = shell(listed, "correct", *options, cwd=tmp_path, code=LIMITED)
    *failed, complete = ends(process)
    assert len(failed) == len(limits)
    for told, code in failed:
        assert code == 1
        reason = "could not be written and is unchanged: File too large."
        assert told == [f"Error: {out} {reason}"]
    assert complete == ([], 0)
    assert contents(path) == given
    same(read(out), made)
    assert names_in(tmp_path) == [path.name, out.name]


@needs_linux
@pytest.mark.slow
@pytest.mark.parametrize("target", KINDS)
def test_a_full_disk_is_one_error_and_no_file(everything, tmp_path, target):
    """On a disk of its own, of each size, as far as this system lends one."""
    path, disk = put(everything, tmp_path / "in.h5ad"), tmp_path / "disk"
    disk.mkdir()
    given, out = contents(path), disk / f"out.{target}"
    code = f"""
import os, subprocess, sys
for size in (8, 24, 60, 150, 300):
    if subprocess.call(["mount", "-t", "tmpfs", "-o", f"size={{size}}k", "none", "disk"]):
        sys.exit("no disk")
    child = subprocess.run([sys.executable, "-c", {LIMITED!r}, "0", *sys.argv[1:]])
    left = os.listdir("disk")
    subprocess.check_call(["umount", "disk"])
    assert not left, left
"""
    search = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    arguments = ["correct", path, out, "--batch", "batch", "--memory", MEMORY]
    process = subprocess.Popen(
        ["unshare", "-rm", sys.executable, "-c", code, *arguments],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": search},
        stderr=subprocess.PIPE,
        text=True,
    )
    told = process.communicate(timeout=300)[1]
    if "no disk" in told or "unshare" in told:
        pytest.skip("disks cannot be mounted here")
    assert process.returncode == 0, told
    reason = "could not be written and is unchanged: No space left on device."
    assert told.splitlines() == [f"Error: {out} {reason}", "== 1"] * 5
    assert contents(path) == given


SERVER = """
import os, sys, time
import anndata.io, h5py, numba, zarr
from batchcorr.outofcore import stored_matrix, correct
from batchcorr import pp
from batchcorr.cli import app
correct.LARGEST = 1 << 13
read = stored_matrix.StoredMatrix.read
def slow(self, rows):
    time.sleep(0.01)
    return read(self, rows)
stored_matrix.StoredMatrix.read = slow
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        sys.argv[1:] = line.split()
        try:
            app()
        finally:
            os._exit(0)
    print(child, flush=True)
    os.waitpid(child, 0)
    print("ended", flush=True)
"""
"""Runs commands in processes of their own that need not import anything."""


def stop_at_random(samples, folder, times, how):
    """Stop runs at random moments; whatever the moment, the target is whole or absent."""
    rng = np.random.default_rng(11)
    path, expected = (
        put(samples, folder / "in.zarr", chunks=(40, 24)),
        folder / "all.zarr",
    )
    source = {p: p.read_bytes() for p in path.rglob("*") if p.is_file()}
    server = shell(cwd=folder, code=SERVER, stdin=subprocess.PIPE)

    def run(out, stop_after=None):
        command = f"correct {path} {out} --batch batch --memory {MEMORY}"
        print(command, file=server.stdin, flush=True)
        child, start = int(server.stdout.readline()), time.monotonic()
        if stop_after is not None:
            time.sleep(stop_after)
            with contextlib.suppress(ProcessLookupError):  # it was faster
                os.kill(child, how)
        while server.stdout.readline() != "ended\n":
            assert server.poll() is None
        return time.monotonic() - start

    run(expected)
    took = run(folder / "again.zarr")
    whole, complete = read(expected), 0
    for k in range(times):
        out = folder / f"out{k}.{KINDS[k % 2]}"
        run(out, stop_after=took * rng.uniform(0.05, 0.95))
        if out.exists():
            complete += 1
            same(read(out), whole)
        if how != signal.SIGKILL:
            assert [name for name in names_in(folder) if name[0] == "."] == []
    server.communicate(timeout=60)
    assert {p: p.read_bytes() for p in path.rglob("*") if p.is_file()} == source
    return complete


@needs_posix
@pytest.mark.slow
def test_killed_the_target_is_absent_or_complete(samples, tmp_path):
    stop_at_random(samples, tmp_path, 5, signal.SIGKILL)


@needs_posix
@pytest.mark.slow
def test_interrupted_nothing_is_left(samples, tmp_path):
    stop_at_random(samples, tmp_path, 2, signal.SIGINT)


@needs_posix
@pytest.mark.slow
def test_killed_twenty_times(samples, tmp_path):
    stop_at_random(samples, tmp_path, 20, signal.SIGKILL)


# -- Dask -------------------------------------------------------------------------------


@pytest.mark.parametrize("target", [KINDS[0], slow(KINDS[1])])
@pytest.mark.parametrize("sparse", [slow(False), True], ids=["dense", "csr"])
def test_on_dask_threads(samples, tmp_path, sparse, target):
    pytest.importorskip("distributed")
    given = put(samples, tmp_path / "in.zarr", sparse=sparse)
    out, memory = tmp_path / f"out.{target}", tmp_path / f"memory.{target}"
    options = ["--batch", "batch", "--covariate", "type", "--dense"]
    done("correct", given, memory, *options)
    done("correct", given, out, *options, "--memory", MEMORY, "--scheduler", "threads")
    same(read(out), read(memory))


@pytest.mark.slow
@pytest.mark.parametrize("target", KINDS)
def test_on_dask_processes(samples, tmp_path, target):
    counts = samples.copy()
    counts.X = np.round(samples.X * 8)
    given = put(counts, tmp_path / "in.zarr")
    out, memory = tmp_path / f"out.{target}", tmp_path / f"memory.{target}"
    options = ["--batch", "batch", "--log-normalize"]
    done("correct", given, memory, *options)
    done("correct", given, out, *options, "--scheduler", "processes")
    same(read(out), read(memory))


def test_no_scheduler_is_one_error(samples, tmp_path):
    pytest.importorskip("distributed")
    given = put(samples, tmp_path / "in.h5ad")
    told = refused(
        "correct", given, tmp_path / "out.h5ad", "--batch", "batch", "--scheduler", "nowhere",
    )  # fmt: skip
    assert "The Dask scheduler nowhere cannot be reached" in told
    assert names_in(tmp_path) == ["in.h5ad"]


CLUSTER = """
import time
from pathlib import Path
from distributed import Client, LocalCluster

def slow_once_writing():
    from batchcorr.outofcore import stored_matrix
    read = stored_matrix.read_rows
    def read_slowly(path, *rest):
        if any(Path(path).parent.glob(".out-*")):
            time.sleep(0.5)
        return read(path, *rest)
    stored_matrix.read_rows = read_slowly

if __name__ == "__main__":
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as it:
        with Client(it) as client:
            client.run(slow_once_writing)
        print(it.scheduler_address, flush=True)
        input()
"""
"""Two workers to be lost: writing 500 blocks takes them minutes, longer than closing."""


@needs_posix
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("how", ["closed", "killed"])
@pytest.mark.parametrize("target", KINDS)
def test_a_scheduler_lost_in_mid_run_is_one_error(samples, tmp_path, target, how):
    pytest.importorskip("distributed")
    long = anndata.concat([samples] * 40, index_unique="-")
    path = put(long, tmp_path / "in.zarr", chunks=(40, 24))
    out, given = tmp_path / f"out.{target}", contents(path)
    cluster = shell(cwd=tmp_path, code=CLUSTER, stdin=subprocess.PIPE)
    address = cluster.stdout.readline().strip()

    def lose():
        """Wait until the result is being written."""
        while not any(tmp_path.glob(".out-*")):
            time.sleep(0.001)
        if how == "killed":
            cluster.kill()
        else:
            print(file=cluster.stdin, flush=True)

    waiting = threading.Thread(target=lose, daemon=True)
    waiting.start()
    told = refused(
        "correct", path, out, "--batch", "batch", "--memory", MEMORY, "--scheduler", address
    )  # fmt: skip
    waiting.join(timeout=1)
    assert not waiting.is_alive()
    cluster.communicate(timeout=60)
    assert f"The Dask scheduler {address} cannot be reached, was lost" in told
    assert contents(path) == given
    assert names_in(tmp_path) == ["in.zarr"]


@pytest.mark.slow
def test_an_address_nobody_listens_at_is_one_error(samples, tmp_path):
    pytest.importorskip("distributed")
    given = put(samples, tmp_path / "in.zarr")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{unused.getsockname()[1]}"
    told = refused(
        "correct", given, tmp_path / "out.zarr", "--batch", "batch", "--scheduler", address,
    )  # fmt: skip
    assert f"The Dask scheduler {address} cannot be reached" in told
    assert names_in(tmp_path) == ["in.zarr"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("target", KINDS)
def test_on_a_cluster(samples, tmp_path, target):
    distributed = pytest.importorskip("distributed")
    given = put(samples, tmp_path / "in.zarr")
    out, memory = tmp_path / f"out.{target}", tmp_path / f"memory.{target}"
    options = ["--batch", "batch", "--covariate", "type"]
    done("correct", given, memory, *options)
    with distributed.LocalCluster(
        n_workers=2, processes=True, threads_per_worker=1, dashboard_address=None
    ) as cluster:
        address = cluster.scheduler_address
        done(
            "correct", given, out, *options, "--memory", MEMORY, "--scheduler", address
        )
    same(read(out), read(memory))
