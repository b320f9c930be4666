"""Principal components of a corrected sparse matrix: time, memory, accuracy.

python benchmarks/pca.py                         all items, about 5 minutes
python benchmarks/pca.py --only planted          one item
python benchmarks/pca.py --rows 10000            smaller: does it run?
python benchmarks/pca.py --folder F              keep the matrices in F for the next run

The matrix is made by one process and saved. Another loads it, warms up on a small one,
and runs; the peak is the high-water mark of that whole process, Python, libraries and
matrix included. Residuals are computed afterwards in float64.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anndata as ad
import inputs
import numba
import numpy as np
import pandas as pd
import scipy.sparse as sp
from measure import Others, machine, table

if TYPE_CHECKING:
    from numpy.typing import NDArray

PACKAGES = ["batchcorr", "numpy", "scipy", "numba", "anndata", "scanpy"]
GIB = 1 << 30
N_COMPS = 50
BATCHES = 8
TOPICS = 40
ARRAYS = ("data", "indices", "indptr")


# -- matrices ---------------------------------------------------------------------------


@numba.njit(parallel=True, error_model="numpy", cache=True)
def _draw(rates, effect, cells, into):
    """Draw counts and write their logs; without room for them, count the nonzeros."""
    batch, one, other, share, depth = cells
    indptr, indices, data = into
    for i in numba.prange(len(batch)):
        state = np.uint64(2 * i + 1) * np.uint64(0x9E3779B97F4A7C15)
        a, b, e = rates[one[i]], rates[other[i]], effect[batch[i]]
        found = 0
        for g in range(rates.shape[1]):
            state ^= state >> np.uint64(12)
            state ^= state << np.uint64(25)
            state ^= state >> np.uint64(27)
            u = (state * np.uint64(0x2545F4914F6CDD1D) >> np.uint64(11)) * 2.0**-53
            rate = depth[i] * e[g] * (share[i] * a[g] + (1 - share[i]) * b[g])
            if u <= 1 - rate:  # ≤ exp(-rate): zero
                continue
            p = np.exp(-rate)
            below, count = p, 0
            while u > below and count < 200:
                count += 1
                p *= rate / count
                below += p
            if count:
                if len(indices):
                    indices[indptr[i] + found] = g
                    data[indptr[i] + found] = np.log1p(count / depth[i])
                found += 1
        if not len(indices):
            indptr[i + 1] = found


def planted(
    n: int, n_features: int, per_row: int
) -> tuple[sp.csr_matrix, pd.DataFrame]:
    """Logs of Poisson counts: each cell mixes two of 40 programs, a batch scales genes.

    Genes differ in their level as in cells (lognormal, σ 1.5), cells in their depth.
    """
    rng = np.random.default_rng(0)
    strength = np.linspace(1.2, 0.3, TOPICS)[:, None]
    marker = strength * (rng.random((TOPICS, n_features)) < 0.1)
    rates = rng.lognormal(0, 1.5, n_features) * np.exp(
        marker * rng.normal(0, 1, marker.shape)
    )
    one, other = rng.integers(0, TOPICS, (2, n))
    share, depth = rng.beta(2, 0.5, n), rng.lognormal(0, 0.4, n)
    obs = inputs.labels(n, BATCHES)
    obs["type"] = pd.Categorical([f"type {k}" for k in one // 8])
    batch = obs["batch"].cat.codes.to_numpy()
    effect = np.exp(rng.normal(0, 0.2, (BATCHES, n_features)))
    nothing = np.empty(0, np.int32), np.empty(0, np.float32)

    def draw(scale: float, rows: slice, *into: NDArray[Any]) -> None:
        cells = tuple(each[rows] for each in (batch, one, other, share, depth))
        _draw(rates * scale, effect, cells, into)

    def count(scale: float, rows: slice) -> NDArray[np.int64]:
        indptr = np.zeros(len(batch[rows]) + 1, np.int64)
        draw(scale, rows, indptr, *nothing)
        return indptr

    low, high, some = 1e-5, 10.0, slice(0, min(n, 4000))
    for _ in range(25):
        mid = float(np.sqrt(low * high))
        short = count(mid, some)[1:].mean() < per_row
        low, high = (mid, high) if short else (low, mid)
    indptr = np.cumsum(count(low, slice(None)))
    indices, data = np.empty(indptr[-1], np.int32), np.empty(indptr[-1], np.float32)
    draw(low, slice(None), indptr, indices, data)
    arrays = data, indices, indptr.astype(np.int32)
    return sp.csr_matrix(arrays, shape=(n, n_features)), obs


def flat(n: int, n_features: int, per_row: int) -> tuple[sp.csr_matrix, pd.DataFrame]:
    """Values at random places: nothing but noise and batches, the hardest spectrum."""
    obs = inputs.labels(n, BATCHES)
    return inputs.sparse(obs, n_features, per_row), obs


SPECTRA = {"planted": planted, "flat": flat}


def make(kind: str, folder: str, rows: str, features: str) -> None:
    """Make a matrix with 5 % of its values stored, and save it."""
    x, obs = SPECTRA[kind](int(rows), int(features), int(features) // 20)
    Path(folder).mkdir(parents=True)
    for name in ARRAYS:
        np.save(Path(folder, f"{name}.npy"), getattr(x, name))
    obs[["batch", "type"]].to_csv(Path(folder, "obs.csv"))
    Path(folder, "features").write_text(features)


def load(folder: str) -> ad.AnnData:
    types = {"batch": "category", "type": "category"}
    obs = pd.read_csv(Path(folder, "obs.csv"), index_col=0, dtype=types)
    shape = len(obs), int(Path(folder, "features").read_text())
    arrays = tuple(np.load(Path(folder, f"{name}.npy")) for name in ARRAYS)
    return ad.AnnData(sp.csr_matrix(arrays, shape=shape), obs=obs)


# -- what is run in a process of its own ------------------------------------------------


def peak() -> int:
    """Return the high-water mark of this process; a child's is its own on Linux."""
    mark = Path("/proc/self/status").read_text("utf-8").partition("VmHWM:")[2]
    return int(mark.split()[0]) * 1024


def ours(folder: str) -> dict[str, float]:
    """Fit ComBat, keep a covariate, take 50 components."""
    import batchcorr as bc

    adata = load(folder)
    small = adata[:3000, :400].copy()
    bc.tl.pca(small, "batch", covariates=["type"], n_comps=3)  # load what is compiled
    others, start, busy = Others(), time.perf_counter(), time.process_time()
    correction = bc.fit(adata, "batch", covariates=["type"])
    fitted = time.perf_counter()
    bc.tl.pca(adata, correction=correction, n_comps=N_COMPS)
    end = time.perf_counter()
    found = {
        "fit": fitted - start,
        "pca": end - fitted,
        "busy": time.process_time() - busy,
        "others": others.share(),
        "peak": float(peak()),
        "matrix": float(sum(getattr(adata.X, name).nbytes for name in ARRAYS)),
        "nonzeros": float(adata.X.nnz),
    }
    centred = bc.corrected(adata, correction=correction).centred()
    vectors, values = adata.varm["PCs"], adata.uns["pca"]["variance"]
    values = values * (adata.n_obs - 1)
    residuals = centred.gram_times(vectors) - vectors * values
    share = np.linalg.norm(residuals, axis=0) / values
    return found | {"residual": float(share.max())}


def exact(folder: str) -> dict[str, float]:
    """Compare singular values with those of the matrix that is formed, in float64."""
    import batchcorr as bc

    adata = load(folder)
    bc.tl.pca(adata, "batch", covariates=["type"], n_comps=N_COMPS)
    found = np.sqrt(adata.uns["pca"]["variance"] * (adata.n_obs - 1))
    bc.pp.combat(adata, "batch", covariates=["type"], dense=True)
    full = adata.X.astype(np.float64)
    full -= full.mean(axis=0)
    true = np.sqrt(np.linalg.eigvalsh(full.T @ full)[::-1][:N_COMPS])
    return {"difference": float(np.abs(found / true - 1).max())}


def scanpy(folder: str, limit: str) -> dict[str, Any]:
    """Run scanpy's combat, and its PCA, within a limit of address space (0: none)."""
    import scanpy as sc

    adata = load(folder)
    before, start = peak(), time.perf_counter()
    if int(limit):
        resource.setrlimit(resource.RLIMIT_AS, (int(limit), int(limit)))
    try:
        adata.X = adata.X.toarray()  # its combat takes no sparse matrix
        sc.pp.combat(adata, "batch")  # with five levels its design is singular
        sc.pp.pca(adata, n_comps=N_COMPS)
        refused = ""
    except MemoryError as error:
        refused = str(error)
    took = time.perf_counter() - start
    return {"refused": refused, "time": took, "added": peak() - before}


def child(what: str, *arguments: str) -> dict[str, Any]:
    """Run one of the above in a process of its own, which says what it found."""
    done = subprocess.run(
        [sys.executable, __file__, what, *arguments],
        check=False,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        sys.exit(f"{what} failed:\n{done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


# -- items ------------------------------------------------------------------------------


def prepared(folder: Path, kind: str, rows: int, features: int) -> str:
    path = folder / f"{kind}-{rows}-{features}"
    if not path.exists():
        child("make", kind, str(path), str(rows), str(features))
    return str(path)


def of_spectrum(kind: str, folder: Path, options: Any) -> None:
    path = prepared(folder, kind, options.rows, options.features)
    lines = []
    for _ in range(options.turns):
        found = child("ours", path)
        total = found["fit"] + found["pca"]
        lines.append(
            [
                f"{found['nonzeros']:.3g}",
                f"{found['fit']:.1f} s",
                f"{found['pca']:.1f} s",
                f"{total:.1f} s",
                f"{found['busy']:.0f} s",
                f"{found['others']:.0%}",
                f"{found['peak'] / 1e9:.2f} GB",
                f"{found['peak'] / found['matrix']:.2f}×",
                f"{found['residual']:.1e}",
            ]
        )
    table(
        ["nonzeros", "fit", "pca", "both (30 s)", "of the cores", "others used",
         "peak", "beside the matrix (2.5×)", "largest residual (1e-3)"],
        lines,
    )  # fmt: skip


def of_planted(folder: Path, options: Any) -> None:
    """40 programs in Poisson counts."""
    of_spectrum("planted", folder, options)


def of_flat(folder: Path, options: Any) -> None:
    """Noise alone."""
    of_spectrum("flat", folder, options)


def of_exact(folder: Path, options: Any) -> None:
    """Singular values beside an exact computation on the dense corrected matrix."""
    rows, features = min(options.rows, 20_000), min(options.features, 4_000)
    lines = []
    for kind in SPECTRA:
        found = child("exact", prepared(folder, kind, rows, features))
        lines.append(
            [kind, f"{rows:,} × {features:,}", f"{found['difference']:.1e}", "1e-4"]
        )
    table(["spectrum", "size", "largest relative difference", "aim"], lines)


def of_scanpy(folder: Path, options: Any) -> None:
    """What scanpy takes, and what it says within a limit of 16 GiB."""
    small = max(options.rows // 25, 1000)
    found = child("scanpy", prepared(folder, "planted", small, options.features), "0")
    each = found["added"] / small / options.features
    print(
        f"{small:,} × {options.features:,}: {found['time']:.1f} s, {found['added'] / GIB:.1f} "
        f"GiB added, {each:.0f} bytes a value; at {options.rows:,} rows that is "
        f"{each * options.rows * options.features / GIB:.0f} GiB"
    )
    path = prepared(folder, "planted", options.rows, options.features)
    found = child("scanpy", path, str(16 * GIB))
    print(f"{options.rows:,} rows within 16 GiB, after {found['time']:.1f} s: ", end="")
    print(f"MemoryError: {found['refused']}" if found["refused"] else "it ran")


ITEMS = {
    "planted": of_planted,
    "flat": of_flat,
    "exact": of_exact,
    "scanpy": of_scanpy,
}
CHILDREN = {"make": make, "ours": ours, "exact": exact, "scanpy": scanpy}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", action="append", choices=ITEMS, help="these alone")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--features", type=int, default=20_000)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument(
        "--folder", help="keep the matrices here; else they are removed"
    )
    options = parser.parse_args()
    print(machine(PACKAGES))
    with ExitStack() as stack:
        folder = options.folder or stack.enter_context(tempfile.TemporaryDirectory())
        for name in options.only or ITEMS:
            print(f"\n## {name}: {(ITEMS[name].__doc__ or '').partition(chr(10))[0]}\n")
            ITEMS[name](Path(folder), options)


if __name__ == "__main__":
    if sys.argv[1:2] and sys.argv[1] in CHILDREN:
        print(json.dumps(CHILDREN[sys.argv[1]](*sys.argv[2:])))
    else:
        main()
