"""How fast the engine is, beside the least that memory allows.

python benchmarks/engine.py                 all items, about 10 minutes
python benchmarks/engine.py --quick         small inputs: does it run?
python benchmarks/engine.py --only sparse   one item
python benchmarks/engine.py --peers         other packages on the same input as well

The floor of a dense matrix is one read and one write by NumPy, in one thread:
`X.sum()` and `np.multiply(X, c, out=X)`.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anndata as ad
import inputs
import measure
import memory
import numba
import numpy as np
import peers
from measure import Task, compare, seconds, table, times_floor, verdict

import batchcorr as bc

if TYPE_CHECKING:
    from measure import Settings

PACKAGES = [
    "batchcorr", "numpy", "scipy", "pandas", "numba", "scikit-learn", "anndata",
    "scanpy",
]  # fmt: skip


def numpy_floor(x: Any) -> None:
    x.sum()
    np.multiply(x, x.dtype.type(1 + 1e-6), out=x)


def percent(values: list[float]) -> str:
    mid = statistics.median(values)
    return f"{mid:.1f} % ({min(values):.1f}–{max(values):.1f})"


def dense(settings: Settings) -> None:
    """Parametric ComBat in place: 10 batches, 50,000 × 2,000."""
    rows = []
    for dtype in (np.float64, np.float32):
        obs = inputs.labels(settings.size(50_000, 5_000), 10)
        original = inputs.dense(obs, 2000, dtype)
        x = original.copy()
        held: dict[str, Any] = {}
        restore = partial(np.copyto, x, original)

        def wrap(held=held, x=x, obs=obs, restore=restore):
            restore()
            held["adata"] = ad.AnnData(x, obs=obs[["batch"]])

        def through_pp(held=held):
            bc.pp.combat(held["adata"], "batch")

        def through_estimator(x=x, obs=obs):
            bc.ComBat(copy=False).fit_transform(x, batch=obs["batch"])

        found = compare(
            {
                "floor": Task(partial(numpy_floor, x), restore),
                "ComBat(copy=False)": Task(through_estimator, restore),
                "pp.combat": Task(through_pp, wrap),
            },
            settings,
        )
        rows += [
            [
                f"{name}, {np.dtype(dtype)}",
                seconds(found.times(name)),
                seconds(found.times("floor")),
                times_floor(found.ratio(name)),
                "2×",
                verdict(found.ratio(name), 2),
            ]
            for name in ("ComBat(copy=False)", "pp.combat")
        ]
        print(f"{np.dtype(dtype)}: {found.remark()}")
    header = ["in place, dense", "time", "floor", "time / floor", "target", "kept"]
    table(header, rows)


def dense_memory(settings: Settings) -> None:
    """Memory that the same adds beyond X, at its peak."""
    n, rows = settings.size(50_000, 5_000), []
    for what in memory.WHAT:
        for dtype in ("float64", "float32"):
            runs = [memory.added(what, dtype, n, 2000) for _ in range(5)]
            shares = [100 * run["added"] / run["x"] for run in runs]
            size = statistics.median(run["added"] for run in runs) / measure.MIB
            rows.append(
                [
                    f"{what}, {dtype}",
                    f"{runs[0]['x'] / measure.MIB:.0f} MiB",
                    f"{size:.1f} MiB",
                    percent(shares),
                    "3 %",
                    verdict(shares, 3),
                ]
            )
    table(["in place, dense", "X", "added", "added / X", "target", "kept"], rows)


def covariates(settings: Settings) -> None:
    """Two categorical covariates and a continuous one, against none."""
    rows = []
    for dtype in (np.float64, np.float32):
        obs = inputs.labels(settings.size(50_000, 5_000), 10)
        original = inputs.dense(obs, 2000, dtype)
        x = original.copy()
        restore = partial(np.copyto, x, original)
        given = {
            "none": None,
            "two categorical": obs[["sex", "type"]],
            "two categorical, one continuous": obs[["sex", "type", "age"]],
        }

        def run(kept, x=x, obs=obs):
            bc.ComBat(copy=False).fit_transform(x, batch=obs["batch"], covariates=kept)

        tasks = {"floor": Task(partial(numpy_floor, x), restore)}
        tasks |= {
            name: Task(partial(run, kept), restore) for name, kept in given.items()
        }
        found = compare(tasks, settings)
        for name in given:
            ratio = found.ratio(name, "none")
            rows.append(
                [
                    f"{name}, {np.dtype(dtype)}",
                    seconds(found.times(name)),
                    times_floor(found.ratio(name)),
                    times_floor(ratio),
                    "2×",
                    verdict(ratio, 2),
                ]
            )
        print(f"{np.dtype(dtype)}: {found.remark()}")
    header = [
        "covariates", "time", "time / floor", "time / without", "target", "kept"
    ]  # fmt: skip
    table(header, rows)


def sparse(settings: Settings) -> None:
    """Fit on 100,000 × 20,000 with 1e8 stored float32 values; floor: read them."""
    n, rows = settings.size(100_000, 5_000), []
    obs = inputs.labels(n, 10)
    x: Any = inputs.sparse(obs, 20_000, 1000)
    for kind in ("CSR", "CSC"):
        x = x if kind == "CSR" else x.tocsc()
        assert x.has_canonical_format
        held: dict[str, Any] = {}

        def anew(held=held, x=x):
            held["x"] = inputs.fresh(x)

        def floor(x=x):
            x.data.sum()
            x.indices.max()

        def check(held=held):
            assert held["x"].has_canonical_format

        def fit(held=held, obs=obs):
            bc.ComBat().fit(held["x"], batch=obs["batch"])

        def fit_again(x=x, obs=obs):
            bc.ComBat().fit(x, batch=obs["batch"])

        found = compare(
            {
                "floor": Task(floor),
                "fit": Task(fit, anew),
                "fit, order known": Task(fit_again),
                "SciPy's check of the order": Task(check, anew),
            },
            settings,
        )
        for name in ("fit", "fit, order known", "SciPy's check of the order"):
            aim = name.startswith("fit")
            rows.append(
                [
                    f"{kind}: {name}",
                    seconds(found.times(name)),
                    seconds(found.times("floor")),
                    times_floor(found.ratio(name)),
                    "1.5 s" if aim else "",
                    verdict(found.times(name), 1.5) if aim else "",
                ]
            )
        print(f"{kind}: {found.remark()}")
    table(["sparse", "time", "floor", "time / floor", "target", "kept"], rows)


def nonparametric(settings: Settings) -> None:
    """2,000 genes × 60 samples in 3 batches; floor: the B G² exponentials by NumPy."""
    n_features = settings.size(2000, 500)
    obs = inputs.labels(60, 3)
    x = inputs.dense(obs, n_features, np.float64)
    block = np.random.default_rng(0).uniform(-50, 0, (64, n_features))

    def floor():
        for _ in range(3 * n_features // len(block)):
            np.exp(block)

    def ours():
        bc.ComBat(parametric=False).fit_transform(x, batch=obs["batch"])

    found = compare({"floor": Task(floor), "ours": Task(ours)}, settings)
    print(found.remark())
    row = [
        f"{n_features} × 60",
        seconds(found.times("ours")),
        seconds(found.times("floor")),
        times_floor(found.ratio("ours")),
        "150 ms",
        verdict(found.times("ours"), 0.15),
    ]
    table(["non-parametric", "time", "floor", "time / floor", "target", "kept"], [row])


def imports(settings: Settings) -> None:
    """What `import batchcorr` costs beyond `import anndata`, from the shell."""
    tasks = {
        what: Task(partial(python, "-c", f"import {what}"))
        for what in ("anndata", "anndata, batchcorr")
    }
    found = compare(tasks, settings)
    more = found.more("anndata, batchcorr", "anndata")
    print(found.remark())
    rows = [
        ["import anndata", seconds(found.times("anndata")), "", ""],
        ["import batchcorr after it", seconds(more), "300 ms", verdict(more, 0.3)],
    ]
    table(["from the shell", "time", "target", "kept"], rows)


def demo(settings: Settings) -> None:
    """`python -m batchcorr demo` with no compiled kernels, and again."""
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder, "numba")
        run = partial(python, "-m", "batchcorr", "demo", folder=folder, cache=cache)
        forget = partial(shutil.rmtree, cache, ignore_errors=True)
        found = compare({"first": Task(run, forget), "again": Task(run)}, settings)
    print(found.remark())
    rows = [
        [name, seconds(found.times(name)), f"{aim} s", verdict(found.times(name), aim)]
        for name, aim in (("first", 15), ("again", 6))
    ]
    table(["demo, from the shell", "time", "target", "kept"], rows)


def python(*arguments: str, folder: str | None = None, cache: Path | None = None):
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=os.environ | ({"NUMBA_CACHE_DIR": str(cache)} if cache else {}),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"{' '.join(arguments)} failed:\n{done.stderr}")


ITEMS = {
    "dense": dense,
    "memory": dense_memory,
    "covariates": covariates,
    "sparse": sparse,
    "nonparametric": nonparametric,
    "imports": imports,
    "demo": demo,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="small inputs, no waiting")
    parser.add_argument("--peers", action="store_true", help="other packages as well")
    parser.add_argument(
        "--only", action="append", choices=[*ITEMS, "peers"], help="these items alone"
    )
    parser.add_argument(
        "--patience",
        type=float,
        default=120,
        metavar="SECONDS",
        help="how long each comparison may wait for a quiet machine (120)",
    )
    options = parser.parse_args()
    settings = (
        measure.Settings(quick=True, repetitions=5, patience=0)
        if options.quick
        else measure.Settings(patience=options.patience)
    )
    chosen = options.only or [*ITEMS, *(["peers"] if options.peers else [])]
    print(measure.machine(PACKAGES))
    print(
        f"numba: {numba.get_num_threads()} threads; floor: one thread. Median (least–"
        f"most) of {settings.repetitions} turns"
        + ("; small inputs, whose ratios mean little." if settings.quick else ".")
    )
    for name in chosen:
        item = peers.compare_all if name == "peers" else ITEMS[name]
        print(f"\n## {name}: {(item.__doc__ or '').partition(chr(10))[0]}\n")
        item(settings)


if __name__ == "__main__":
    main()
