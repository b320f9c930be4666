"""ComBat-seq beside R's sva and inmoose: time, memory, agreement, where time goes.

python benchmarks/combat_seq.py             about 5 minutes
python benchmarks/combat_seq.py --quick     does it run?
python benchmarks/combat_seq.py --only speed large memory profile

Calls take turns in one run. Of R only the call is timed, inside R, with the data passed
by file; R and inmoose use one thread, so ours is also timed on one.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import measure
import numba
import numpy as np
import pandas as pd
from measure import Settings, seconds, table, times_floor

import batchcorr as bc
from batchcorr.estimators import count_mapping, count_model
from batchcorr.models.counts import dispersion

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

PACKAGES = ["batchcorr", "numpy", "scipy", "numba", "inmoose"]
COPIES = 4
"""Dense float64 copies of the counts that ours may take beside the input."""

IN_R = """
a <- commandArgs(TRUE); n <- as.integer(a[2]); p <- as.integer(a[3])
suppressMessages(library(sva))
read <- function(name, k) readBin(file.path(a[1], name), "integer", k)
y <- matrix(read("counts", n * p), p, n)
batch <- read("batch", n); group <- read("group", n)
start <- proc.time()
invisible(capture.output(z <- ComBat_seq(y, batch, group)))
took <- proc.time() - start
write(took[["elapsed"]], file.path(a[1], "seconds"))
writeBin(as.integer(z), file.path(a[1], "corrected"))
"""


class Data(NamedTuple):
    """Counts, samples × genes, batch, and one group to keep."""

    counts: NDArray[np.int64]
    batch: NDArray[np.int64]
    group: pd.DataFrame


def simulate(n: int, n_genes: int, seed: int = 0) -> Data:
    """Three batches, two groups, a dispersion of its own for each gene and batch."""
    rng = np.random.default_rng(seed)
    batch, group = np.arange(n) % 3, np.arange(n) // 3 % 2
    level = rng.normal(3.5, 1.6, n_genes) + rng.normal(0, 0.35, (n, 1))
    level += rng.normal(0, 0.45, (3, n_genes))[batch]
    level += group[:, None] * rng.normal(0, 0.9, n_genes) * (rng.random(n_genes) < 0.25)
    phi = (rng.gamma(2, 0.09, n_genes) + 0.01) * np.exp([[-0.5], [0.05], [0.6]])
    mu = np.exp(level)
    counts = rng.poisson(mu * rng.gamma(1 / phi[batch], phi[batch]))
    return Data(counts, batch, pd.DataFrame({"group": group.astype(str)}))


# -- who corrects --------------------------------------------------------------------


def ours(data: Data) -> tuple[float, Any]:
    start = time.perf_counter()
    corrected = bc.ComBatSeq().fit_transform(
        data.counts, batch=data.batch, covariates=data.group
    )
    return time.perf_counter() - start, corrected


def on_one_thread(data: Data) -> tuple[float, Any]:
    before = numba.get_num_threads()
    numba.set_num_threads(1)
    try:
        return ours(data)
    finally:
        numba.set_num_threads(before)


def sva(data: Data) -> tuple[float, Any]:
    """Rows here are columns there, so that memory is passed as it is."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data.counts.astype(np.int32).tofile(folder / "counts")
        data.batch.astype(np.int32).tofile(folder / "batch")
        data.group["group"].astype(np.int32).to_numpy().tofile(folder / "group")
        command = ["Rscript", "-e", IN_R, name, *map(str, data.counts.shape)]
        subprocess.run(command, check=True, capture_output=True)
        took = float((folder / "seconds").read_text())
        found = np.fromfile(folder / "corrected", np.int32)
    return took, found.reshape(data.counts.shape)


def inmoose(data: Data) -> tuple[float, Any]:
    from inmoose.pycombat import pycombat_seq

    arguments = np.ascontiguousarray(data.counts.T), list(data.batch)
    group = list(data.group["group"])
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        start = time.perf_counter()
        corrected = pycombat_seq(*arguments, covar_mod=group)
        return time.perf_counter() - start, np.asarray(corrected).T


def there(name: str) -> bool:
    if name == "inmoose":
        return find_spec("inmoose") is not None
    command = ["Rscript", "-e", "suppressMessages(library(sva))"]
    found = shutil.which("Rscript") is not None
    return (
        found
        and not subprocess.run(command, capture_output=True, check=False).returncode
    )


def turns(
    who: dict[str, Callable[[Data], tuple[float, Any]]], data: Data, settings: Settings
) -> tuple[measure.Comparison, dict[str, Any]]:
    """As `measure.compare`, by the seconds that each says it took."""
    corrected = {name: run(data)[1] for name, run in who.items()}
    taken: list[measure.Turn] = []
    end = time.monotonic() + settings.patience
    while True:
        others = measure.Others()
        spent = {name: run(data)[0] for name, run in who.items()}
        taken.append(measure.Turn(spent, others.share()))
        quiet = [turn for turn in taken if turn.others <= measure.QUIET]
        if len(quiet) == settings.repetitions:
            return measure.Comparison(quiet, len(taken)), corrected
        if len(taken) >= settings.repetitions and time.monotonic() > end:
            best = sorted(taken, key=lambda turn: turn.others)[: settings.repetitions]
            return measure.Comparison(best, len(taken)), corrected
        if taken[-1].others > measure.QUIET:
            measure.wait_until_quiet(end - time.monotonic())


# -- the items -----------------------------------------------------------------------


def speed(settings: Settings) -> None:
    """The same counts through ours, sva and inmoose, turn by turn."""
    everybody: dict[str, Any] = {
        "batchcorr": ours,
        "batchcorr, one thread": on_one_thread,
        "R sva": sva,
        "inmoose": inmoose,
    }
    who = {
        name: run
        for name, run in everybody.items()
        if run in {ours, on_one_thread} or there(run.__name__)
    }
    absent = [name for name in everybody if name not in who]
    if absent:
        print(f"Not installed, so not run: {', '.join(absent)}.")
    for n_genes, aims in ((5000, {"R sva": 5.0}), (2000, {"inmoose": 50.0})):
        data = simulate(60, settings.size(n_genes, 200))
        if n_genes == 5000:
            some = {name: run for name, run in who.items() if name != "inmoose"}
        else:
            some = who
        found, corrected = turns(some, data, settings)
        rows = []
        for name in some:
            times = found.times(name)
            ratio = found.ratio(name, "batchcorr")
            reached = min(ratio) if min(ratio) < aims.get(name, 0) else None
            aim = "" if name not in aims else f"≥ {aims[name]:g}×: "
            if aim:
                aim += "yes" if np.median(ratio) >= aims[name] else "**no**"
                aim += f" (not in every turn: {reached:.1f}×)" if reached else ""
            away = corrected[name] - corrected["batchcorr"]
            rows.append(
                [
                    name,
                    seconds(times),
                    times_floor(ratio),
                    aim,
                    f"{np.mean(away != 0):.3%}, at most {np.abs(away).max():.0f}",
                ]
            )
        print(f"\n{data.counts.shape[1]:,} genes × 60 samples × 3 batches, one group.")
        print(found.remark() + ".")
        table(["", "time", "time / ours", "aim", "counts that differ from ours"], rows)


def large(settings: Settings) -> None:
    """20,000 genes × 200 samples."""
    data = simulate(200, settings.size(20_000, 500))
    found, _ = turns({"batchcorr": ours, "one thread": on_one_thread}, data, settings)
    print(found.remark() + ".")
    rows = []
    for name in ("batchcorr", "one thread"):
        times = found.times(name)
        aim = (
            "within 30 s: " + measure.verdict(times, 30) if name != "one thread" else ""
        )
        rows.append([name, seconds(times), aim])
    table([f"{data.counts.shape[1]:,} × 200", "time", "aim"], rows)


def memory(settings: Settings) -> None:
    """Memory beside the input, in a process of its own."""
    size = settings.size(20_000, 500)
    rows = []
    # glibc otherwise keeps what was freed, and the peak is then measured from there
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": str(1 << 20)}
    for storage in ("dense int64", "dense int32", "CSR int64"):
        command = [sys.executable, __file__, "--child", storage, str(size)]
        done = subprocess.run(
            command, check=True, capture_output=True, text=True, env=environment
        )
        added = json.loads(done.stdout)
        copies = added / (8 * 200 * size)
        aim = "yes" if copies <= COPIES else "**no**"
        rows.append([storage, f"{added / measure.MIB:.0f} MiB", f"{copies:.1f}", aim])
    header = [f"{size:,} × 200", "added", "float64 copies", f"at most {COPIES}"]
    table([*header[:2], "in " + header[2], header[3]], rows)


def _child(storage: str, n_genes: int) -> None:
    """Measure what `fit_transform` adds, result included; print it."""
    import scipy.sparse as sp

    kind, dtype = storage.split()
    data = None
    for size in (300, n_genes):  # the first compiles
        data = simulate(200, size)
        counts: Any = data.counts.astype(dtype)
        counts = sp.csr_matrix(counts) if kind == "CSR" else counts
        data = data._replace(counts=counts)
        peak = measure.Peak()
        result = ours(data)
        added = peak.added()
        del result
    print(json.dumps(added))


@contextlib.contextmanager
def _timed(spent: dict[str, list[float]]) -> Iterator[None]:
    """Time the stages of a fit by wrapping the functions that do them."""

    def wrapped(
        run: Callable[..., Any], name: Callable[..., str]
    ) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            result = run(*args, **kwargs)
            spent.setdefault(name(*args, **kwargs), []).append(
                time.perf_counter() - start
            )
            return result

        return timed

    def profile(*args: Any, **_: Any) -> str:
        one = len(args[3]) == 1
        return "common dispersion" if one else "genewise profile, 11 points"

    def fits(*_: Any, **kwargs: Any) -> str:
        return "fits with prior count" if kwargs.get("prior") else "fit of the means"

    places: list[tuple[Any, str, Callable[..., str]]] = [
        (dispersion, "_profiles", profile),
        (dispersion, "maximize_spline", lambda *_: "spline maximum"),
        (count_model, "fit_features", fits),
        (count_mapping, "match_quantiles", lambda *_: "quantile map"),
    ]
    kept = [(place, name, getattr(place, name)) for place, name, _ in places]
    for place, name, label in places:
        setattr(place, name, wrapped(getattr(place, name), label))
    try:
        yield
    finally:
        for place, name, function in kept:
            setattr(place, name, function)


def profile(settings: Settings) -> None:
    """Where the time goes."""
    for n, n_genes in (
        (60, settings.size(5000, 200)),
        (200, settings.size(20_000, 500)),
    ):
        data = simulate(n, n_genes)
        ours(data)
        spent: dict[str, list[float]] = {}
        with _timed(spent):
            whole, _ = ours(data)
        spent["everything else"] = [whole - sum(map(sum, spent.values()))]
        rows = [
            [name, str(len(times)), f"{sum(times):.2f} s", f"{sum(times) / whole:.0%}"]
            for name, times in spent.items()
        ]
        table([f"{n_genes:,} × {n}", "calls", "time", f"of {whole:.2f} s"], rows)


ITEMS = {"speed": speed, "large": large, "memory": memory, "profile": profile}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--patience", type=float, default=120, help="seconds to wait")
    parser.add_argument("--only", nargs="+", choices=ITEMS, default=[*ITEMS])
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        _child(given.child[0], int(given.child[1]))
        return
    settings = Settings(given.quick, given.turns, given.patience)
    if given.quick:
        settings = Settings(quick=True, repetitions=2, patience=0)
    print(f"{measure.machine(PACKAGES)}; numba: {numba.get_num_threads()} threads")
    for name in given.only:
        print(f"\n## {name}: {ITEMS[name].__doc__}")
        ITEMS[name](settings)


if __name__ == "__main__":
    main()
