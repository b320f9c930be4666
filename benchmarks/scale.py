"""Files larger than memory: how fast and in how little, beside a plain copy.

python benchmarks/scale.py --only file                 1,000,000 × 2,000, about 20 GB of disk
python benchmarks/scale.py --only cluster              the same by two worker processes
python benchmarks/scale.py --only file --rows 50000    smaller: does it run?
python benchmarks/scale.py --only make --folder F      the files alone, kept in F for later runs

Every run is a process of its own; its peak is what the kernel says of that process. The
copy reads and writes the matrix by rows of chunks, with the same chunks and compressor.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from measure import machine, seconds, table, times_floor, verdict

PACKAGES = ["batchcorr", "numpy", "numba", "anndata", "zarr", "numcodecs", "dask"]
BATCHES = 10
CORRECT = "from batchcorr.cli import app; app()"
GIB = 1 << 30


class Run(NamedTuple):
    """What a process took."""

    seconds: float
    peak: int


def run(*command: str) -> Run:
    """Run a command to its end, or stop with what it said."""
    start = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, *command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as process:
        assert process.stderr is not None
        said = process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{said.decode()}")
    unit = 1 if sys.platform == "darwin" else 1024
    return Run(time.perf_counter() - start, usage.ru_maxrss * unit)


# -- what the processes do --------------------------------------------------------------


def make(path: str, rows: int, features: int) -> None:
    """Write an AnnData in zarr's own chunks and compressor, block by block.

    Values are multiples of 1/64: like logarithms of counts, they repeat.
    """
    import inputs
    import pandas as pd
    import zarr
    from anndata.io import write_elem

    group = zarr.open_group(path, mode="w", zarr_format=3)
    group.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
    obs = inputs.labels(rows, BATCHES)
    write_elem(group, "obs", obs)
    write_elem(group, "var", pd.DataFrame(index=[f"gene {g}" for g in range(features)]))
    x = group.create_array("X", shape=(rows, features), dtype=np.float32)
    x.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
    codes = obs["batch"].cat.codes.to_numpy()
    rng = np.random.default_rng(1)
    level = rng.normal(5, 1, features) + rng.normal(0, 0.5, (BATCHES, features))
    level = level.astype(np.float32)
    for start in range(0, rows, x.chunks[0]):
        part = slice(start, start + x.chunks[0])
        shape = (len(codes[part]), features)
        values = rng.standard_normal(shape, dtype=np.float32)
        values += level[codes[part]]
        np.multiply(values, 64, out=values)
        np.rint(values, out=values)
        values /= 64
        x[part] = values


def copy(source: str, target: str) -> None:
    """Copy the matrix of a store, a row of chunks at a time."""
    import zarr

    x = zarr.open_group(source, mode="r")["X"]
    group = zarr.open_group(target, mode="w", zarr_format=x.metadata.zarr_format)
    made = group.create_array(
        "X",
        shape=x.shape,
        dtype=x.dtype,
        chunks=x.chunks,
        compressors=x.compressors,
        filters=x.filters or None,
    )
    for start in range(0, x.shape[0], x.chunks[0]):
        rows = slice(start, start + x.chunks[0])
        made[rows] = x[rows]


def cluster(source: str, target: str, memory: str) -> None:
    """Correct on two worker processes, and say what each of them took at most."""
    import distributed

    from batchcorr.cli import app

    with distributed.LocalCluster(
        n_workers=2,
        processes=True,
        threads_per_worker=1,
        memory_limit=memory,
        dashboard_address=None,
    ) as workers:
        sys.argv[1:] = [
            "correct", source, target, "--batch", "batch", "--force",
            "--memory", memory, "--scheduler", workers.scheduler_address,
        ]  # fmt: skip
        app(standalone_mode=False)
        with distributed.Client(workers) as client:
            peaks = client.run(_peak)
    Path(f"{target}.peaks").write_text(" ".join(map(str, peaks.values())))


def _peak() -> int:
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


# -- what is measured -------------------------------------------------------------------


def prepared(folder: Path, rows: int, options: Any) -> Path:
    path = folder / f"{rows}.zarr"
    if not path.exists():
        run(__file__, "make", str(path), str(rows), str(options.features))
        size = sum(p.stat().st_size for p in path.rglob("*") if p.is_file())
        dense = rows * options.features * 4
        print(f"{rows:,} × {options.features:,}: {dense / GIB:.2f} GiB, ", end="")
        print(f"{size / GIB:.2f} GiB in the file", flush=True)
    return path


def correct(source: Path, target: Path, memory: str) -> Run:
    return run(
        "-c", CORRECT, "correct", str(source), str(target), "--batch", "batch",
        "--memory", memory, "--force",
    )  # fmt: skip


def file(folder: Path, options: Any) -> None:
    """From .zarr to .zarr within a bound of memory, beside a plain copy."""
    tiny = prepared(folder, 1000, options)
    begin = min(
        correct(tiny, folder / "out.zarr", options.memory).seconds
        for _ in range(options.turns)
    )
    found: dict[int, dict[str, list[Run]]] = {}
    for rows in (options.rows // 10, options.rows):
        source = prepared(folder, rows, options)
        out, plain = folder / "out.zarr", folder / "copy.zarr"
        turns = found[rows] = {"copy": [], "correct": []}
        for _ in range(options.turns):
            turns["copy"].append(run(__file__, "copy", str(source), str(plain)))
            shutil.rmtree(plain)
            turns["correct"].append(correct(source, out, options.memory))
            shutil.rmtree(out)
    lines, each = [], []
    for rows, turns in found.items():
        took = [turn.seconds for turn in turns["correct"]]
        ratio = [
            one.seconds / other.seconds
            for one, other in zip(turns["correct"], turns["copy"], strict=True)
        ]
        each.append((statistics.median(took) - begin) / rows)
        lines.append(
            [
                f"{rows:,}",
                seconds([turn.seconds for turn in turns["copy"]]),
                seconds(took),
                times_floor(ratio),
                verdict(ratio, 2),
                f"{each[-1] * 1e6:.1f} µs",
                f"{max(turn.peak for turn in turns['correct']) / GIB:.2f} GiB",
            ]
        )
    header = ["rows", "copy", "correct", "ratio", "≤ 2", "a row", "peak"]
    table(header, lines)
    print(f"{begin:.1f} s of start (1,000 rows take them) are not in the time a row, ")
    print(f"which is {each[1] / each[0]:.2f} with more rows to fewer (0.8 to 1.2)")
    print(f"bound: {options.memory}; the peak may be 15 % over it")


def by_cluster(folder: Path, options: Any) -> None:
    """The same by two worker processes of a dask.distributed LocalCluster."""
    import zarr

    source = prepared(folder, options.rows, options)
    one, other = folder / "out.zarr", folder / "cluster.zarr"
    alone = correct(source, one, options.memory)
    together = run(__file__, "cluster", str(source), str(other), options.memory)
    a, b = (zarr.open_group(str(path), mode="r")["X"] for path in (one, other))
    worst = 0.0
    for start in range(0, a.shape[0], a.chunks[0]):
        rows = slice(start, start + a.chunks[0])
        worst = max(worst, float(np.abs(a[rows] - b[rows]).max()))
    peaks = [int(text) for text in Path(f"{other}.peaks").read_text().split()]
    table(
        ["", "time", "peak"],
        [
            ["one process", f"{alone.seconds:.1f} s", f"{alone.peak / GIB:.2f} GiB"],
            [
                "two workers",
                f"{together.seconds:.1f} s, of which starting them is a part",
                " and ".join(f"{peak / GIB:.2f}" for peak in peaks) + " GiB",
            ],
        ],
    )
    print(f"largest difference {worst:.1e}, {verdict([worst], 1e-6)}")


def make_files(folder: Path, options: Any) -> None:
    """Only make the files, for later runs with the same --folder."""
    for rows in (1000, options.rows // 10, options.rows):
        prepared(folder, rows, options)


ITEMS = {"make": make_files, "file": file, "cluster": by_cluster}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", action="append", choices=ITEMS, help="these alone")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--features", type=int, default=2_000)
    parser.add_argument("--memory", default="2GiB")
    parser.add_argument("--turns", type=int, default=3, help="of copy and correction")
    parser.add_argument("--folder", help="keep the files here; else they are removed")
    options = parser.parse_args()
    print(machine(PACKAGES))
    with ExitStack() as stack:
        folder = options.folder or stack.enter_context(tempfile.TemporaryDirectory())
        for name in options.only or ITEMS:
            print(f"\n## {name}: {(ITEMS[name].__doc__ or '').partition(chr(10))[0]}\n")
            ITEMS[name](Path(folder), options)


if __name__ == "__main__":
    if sys.argv[1:2] == ["make"]:
        make(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
    elif sys.argv[1:2] == ["copy"]:
        copy(*sys.argv[2:])
    elif sys.argv[1:2] == ["cluster"]:
        cluster(*sys.argv[2:])
    else:
        main()
