"""How fast counts become logarithms, beside NumPy's own calls over the same nonzeros.

python benchmarks/log_normalize.py                   1e8 nonzeros, about 5 minutes
python benchmarks/log_normalize.py --nonzeros 1e7    smaller
python benchmarks/log_normalize.py --quick           does it run?

The floor is one thread of NumPy: `np.add.reduceat` over the rows, a multiplication in
place by one number, `np.log1p(out=)`.
"""

from __future__ import annotations

import argparse
import time
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import anndata as ad
import measure
import numpy as np
import scanpy as sc
import scipy.sparse as sp
from measure import Settings, Task, compare, seconds, table, times_floor, verdict

import batchcorr as bc
from batchcorr.models.counts.size_factors import METHODS

if TYPE_CHECKING:
    from collections.abc import Callable

PACKAGES = ["batchcorr", "numpy", "scipy", "numba", "anndata", "scanpy"]
FEATURES = 20_000
TARGET = 1.5


def cells(nonzeros: int, dtype: Any, seed: int = 0) -> sp.csr_matrix:
    """Counts of cells with 500 to 3,500 features each, geometric as UMI counts are."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(500, 3501, max(2, nonzeros // 2000))
    indptr = np.concatenate([[0], np.cumsum(lengths)])
    data = np.empty(indptr[-1], dtype=dtype)
    indices = np.empty(indptr[-1], dtype=np.int32)
    for start, stop in pairwise(indptr.tolist()):
        m = stop - start
        step = FEATURES // m
        indices[start:stop] = np.arange(m) * step + rng.integers(0, step, m)
        data[start:stop] = rng.geometric(0.4, m)
    return sp.csr_matrix((data, indices, indptr), shape=(len(lengths), FEATURES))


def floor(x: sp.csr_matrix) -> None:
    np.add.reduceat(x.data, x.indptr[:-1])
    np.multiply(x.data, x.dtype.type(1 + 1e-6), out=x.data)
    np.log1p(x.data, out=x.data)


def totals(settings: Settings, nonzeros: int) -> None:
    """Scaled totals of CSR, in place, beside the floor and scanpy."""
    rows = []
    for dtype in (np.float32, np.float64):
        x = cells(nonzeros, dtype)
        original = x.data.copy()
        held: dict[str, Any] = {}

        def restore(x=x, original=original, held=held):
            np.copyto(x.data, original)
            held["x"] = x
            held["new"] = type(x)((x.data, x.indices, x.indptr), shape=x.shape)
            held["adata"] = ad.AnnData(x)

        def scanpy(held=held):
            sc.pp.normalize_total(held["adata"])
            sc.pp.log1p(held["adata"])

        def estimator(name, held=held):
            bc.LogNormalize(copy=False).fit_transform(held[name])

        def face(held=held):
            bc.pp.log_normalize(held["adata"])

        assert x.has_canonical_format
        tasks = {
            "floor": Task(partial(floor, x), restore),
            "LogNormalize(copy=False)": Task(partial(estimator, "x"), restore),
            "the same, order of entries not yet known": Task(
                partial(estimator, "new"), restore
            ),
            "pp.log_normalize": Task(face, restore),
            "scanpy normalize_total + log1p": Task(scanpy, restore),
        }
        names = list(tasks)[1:]
        found = compare(tasks, settings)
        print(f"{np.dtype(dtype)}: {x.nnz:,} nonzeros, {found.remark()}")
        for name in ("floor", *names):
            ratio = found.ratio(name)
            kept = verdict(ratio, TARGET) if name != "floor" else ""
            times = seconds(found.times(name))
            rows.append([str(np.dtype(dtype)), name, times, times_floor(ratio), kept])
    table(["dtype", "what", "time", "times floor", f"at most {TARGET}×"], rows)


def run(x: Any, method: str) -> None:
    bc.normalization_factors(x, method)


def repeated(task: Callable[[], None], times: int = 3) -> list[float]:
    found = []
    for _ in range(times):
        start = time.perf_counter()
        task()
        found.append(time.perf_counter() - start)
    return found


def methods(settings: Settings) -> None:
    """Size factors by every method: 200 bulk samples, and 5,000 cells."""
    rng = np.random.default_rng(1)
    level = rng.lognormal(3, 2, FEATURES) + 1
    n = settings.size(200, 20)
    bulk = rng.poisson(level * rng.gamma(5, 0.2, (n, FEATURES))).astype(np.float64)
    single = cells(settings.size(10_000_000, 200_000), np.float32)
    single.data[single.indptr[:-1]] = 50  # so that some features are everywhere
    rows = []
    for method in [name for name in METHODS if name != "total"]:
        row = [method]
        for x in (bulk, single):
            try:
                bc.normalization_factors(x[:20], method)
                row.append(seconds(repeated(partial(run, x, method))))
            except bc.errors.InputError:
                row.append("too sparse")
        rows.append(row)
    shapes = [f"{x.shape[0]:,} × {x.shape[1]:,}" for x in (bulk, single)]
    table(["method", f"bulk {shapes[0]}", f"cells {shapes[1]}"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nonzeros", type=float, default=1e8)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", choices=["totals", "methods"])
    given = parser.parse_args()
    settings = Settings(quick=given.quick)
    print(measure.machine(PACKAGES))
    if given.only != "methods":
        totals(settings, int(1e5 if given.quick else given.nonzeros))
    if given.only != "totals":
        methods(settings)


if __name__ == "__main__":
    main()
