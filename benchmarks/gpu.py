"""Both passes on a CUDA device, beside the speed at which the device copies memory.

python benchmarks/gpu.py                           float32, 1,000,000 × 2,000, 10 batches
python benchmarks/gpu.py --rows 20000 --features 500     smaller: does it run?

A pass is timed between two events of the device, kernels compiled before: what the CPU
does meanwhile counts too. `sums` and `affine` are the kernels with what they are given
already in cells; `moments` and `apply` are whole passes. The copy reads and writes, so its
bytes are two a byte of the matrix, as are those of `apply`; `moments` only reads. What is
in neither pass is labels, design and empirical Bayes, all on the CPU.
"""

from __future__ import annotations

import argparse
import statistics
import time
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
from measure import machine, table

import batchcorr as bc
from batchcorr.arrays import apply, moments
from batchcorr.arrays.cells import Cells
from batchcorr.arrays.operations import affine, sums
from batchcorr.arrays.passes import by_cell
from batchcorr.design.design import Design

if TYPE_CHECKING:
    from collections.abc import Callable

BATCHES = 10
REPETITIONS = 7
ENOUGH = 0.6
"""Share of the copy's bandwidth that a pass should have."""

CHECKED = 20_000
"""Rows that are corrected on the CPU too, in float64."""


def device_seconds(work: Callable[[], Any]) -> list[float]:
    """Time some work on the device, after one turn that is not counted."""
    import cupy

    work()
    found = []
    for _ in range(REPETITIONS):
        start, stop = cupy.cuda.Event(), cupy.cuda.Event()
        start.record()
        work()
        stop.record()
        stop.synchronize()
        found.append(cupy.cuda.get_elapsed_time(start, stop) / 1000)
    return found


def milliseconds(values: list[float]) -> str:
    low, mid, high = min(values), statistics.median(values), max(values)
    return f"{1e3 * mid:.2f} ms ({1e3 * low:.2f}–{1e3 * high:.2f})"


def wall_seconds(work: Callable[[], Any]) -> float:
    """Time some work by the wall, median of a few turns."""
    import cupy

    found = []
    for _ in range(REPETITIONS):
        start = time.perf_counter()
        work()
        cupy.cuda.Device().synchronize()
        found.append(time.perf_counter() - start)
    return statistics.median(found)


def make(rows: int, features: int) -> tuple[Any, np.ndarray]:
    """Make float32 values on the device, with effects of batches on mean and scale."""
    import cupy

    rng = np.random.default_rng(0)
    batch = rng.integers(0, BATCHES, rows)
    random = cupy.random.RandomState(0)
    x = cupy.empty((rows, features), dtype=cupy.float32)
    shift = cupy.asarray(rng.normal(0, 1, (BATCHES, features)).astype(np.float32))
    for start in range(0, rows, 10_000):
        part = slice(start, min(start + 10_000, rows))
        noise = random.standard_normal(
            (part.stop - start, features), dtype=cupy.float32
        )
        x[part] = 5 + noise + shift[cupy.asarray(batch[part])]
    return x, batch


def worst_difference(x: Any, batch: np.ndarray) -> float:
    """Return how far float32 on the device is from float64 on the CPU, relative."""
    some = slice(min(CHECKED, len(batch)))
    here = x[some].get().astype(np.float64)
    exact = bc.ComBat().fit_transform(here, batch=batch[some])
    found = bc.ComBat().fit_transform(x[some], batch=batch[some]).get()
    return float(np.max(np.abs(found - exact) / np.maximum(np.abs(exact), 1)))


def measure(rows: int, features: int) -> None:
    """Measure, and print a table."""
    import cupy

    name = cupy.cuda.runtime.getDeviceProperties(cupy.cuda.Device().id)["name"].decode()
    x, batch = make(rows, features)
    difference = worst_difference(x, batch)
    other = cupy.empty_like(x)
    design = Design.of(batch, BATCHES)
    model = bc.ComBat(copy=False).fit(x, batch=batch)
    size = x.nbytes
    cells = Cells.of(design)
    given = by_cell(design, cells, model.correction_)
    passes = {
        "copy": (2 * size, lambda: cupy.copyto(other, x)),
        "sums": (size, lambda: sums(x, cells, given.slopes)),
        "affine": (2 * size, lambda: affine(x, cells, given, other)),
        "moments": (size, lambda: moments(x, design)),
        "apply": (2 * size, lambda: apply(x, design, model.correction_, out=other)),
        "apply in place": (
            2 * size,
            lambda: apply(x, design, model.correction_, out=x),
        ),
    }
    lines, speeds, times = [], {}, {}
    for what, (moved, work) in passes.items():
        found = device_seconds(work)
        times[what] = statistics.median(found)
        speeds[what] = moved / times[what] / 1e9
        share = speeds[what] / speeds["copy"]
        verdict = "" if what == "copy" else "yes" if share >= ENOUGH else "no"
        lines.append(
            (
                what,
                milliseconds(found),
                f"{speeds[what]:.0f} GB/s",
                f"{share:.0%}",
                verdict,
            )
        )
    print(f"{name}; {machine(['batchcorr', 'numpy', 'cupy-cuda13x'])}")
    print(f"float32, {rows:,} × {features:,}, {BATCHES} batches\n")
    table(("pass", "time", "bandwidth", "of the copy", f"≥ {ENOUGH:.0%}"), lines)
    whole = wall_seconds(lambda: model.fit(x, batch=batch).transform(x, batch=batch))
    both = times["moments"] + times["apply in place"]
    print(
        f"\nfit and transform by the wall: {1000 * whole:.1f} ms, of which "
        f"{1 - both / whole:.0%} in neither pass (aim: under 10 %)"
    )
    print(f"worst difference from CPU float64: {difference:.1e} (aim: under 1e-5)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--features", type=int, default=2_000)
    given = parser.parse_args()
    if find_spec("cupy") is None:
        print("not measured: CuPy is not installed (the extra gpu)")
        return
    import cupy

    if not cupy.cuda.is_available():
        print("not measured: no CUDA device")
        return
    measure(given.rows, given.features)


if __name__ == "__main__":
    main()
