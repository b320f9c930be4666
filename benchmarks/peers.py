"""Other packages on the same input: time, memory, and how far from ours.

Each runs in a process of its own and is stopped after 300 s; it is called on a small
matrix first, so that imports and compilation do not count. If it is stopped, it runs on
fewer rows, and the table says so.
"""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import subprocess
import sys
import tempfile
import warnings
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import anndata as ad
import inputs
import measure
import numpy as np
import pandas as pd
from measure import Settings, Task

import batchcorr as bc

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

LIMIT = 300
"""Seconds a peer's process may take, making the input included."""

PATIENCE = 60
"""Seconds after which five turns are enough, quiet or not."""


def ours(x: NDArray[Any], obs: pd.DataFrame, kind: str) -> Any:
    est = bc.ComBat(parametric=kind == "parametric", copy=False)
    return est.fit_transform(x, batch=obs["batch"])


def ours_copy(x: NDArray[Any], obs: pd.DataFrame, kind: str) -> Any:
    est = bc.ComBat(parametric=kind == "parametric")
    return est.fit_transform(x, batch=obs["batch"])


def scanpy(x: NDArray[Any], obs: pd.DataFrame, _kind: str) -> Any:
    import scanpy as sc

    adata = ad.AnnData(x, obs=obs[["batch"]])
    sc.pp.combat(adata, "batch")
    return adata.X


def inmoose(x: NDArray[Any], obs: pd.DataFrame, kind: str) -> Any:
    from inmoose.pycombat import pycombat_norm

    batch = list(obs["batch"])
    return np.asarray(pycombat_norm(x.T, batch, par_prior=kind == "parametric")).T


def combatlearn(x: NDArray[Any], obs: pd.DataFrame, _kind: str) -> Any:
    from combatlearn import ComBat

    frame = pd.DataFrame(x, index=obs.index, copy=False)
    return np.asarray(ComBat(obs["batch"]).fit_transform(frame))


def combaters(x: NDArray[Any], obs: pd.DataFrame, kind: str) -> Any:
    import combaters

    found = combaters.combat(
        x, obs["batch"].cat.codes.to_numpy(), par_prior=kind == "parametric"
    )
    return np.asarray(found["adjusted"])


def combat(x: NDArray[Any], obs: pd.DataFrame, kind: str) -> Any:
    from combat.pycombat import pycombat

    frame = pd.DataFrame(x.T, copy=False)
    return (
        pycombat(frame, list(obs["batch"]), par_prior=kind == "parametric").to_numpy().T
    )


class Peer(NamedTuple):
    """A package, how it is called, and why it differs from ours."""

    run: Callable[[NDArray[Any], pd.DataFrame, str], Any] | None
    title: str
    why: str
    nonparametric: bool = True


PEERS = {
    "ours": Peer(ours, "**batchcorr**, in place", ""),
    "ours_copy": Peer(ours_copy, "**batchcorr**, new matrix", ""),
    "combat": Peer(
        combat,
        "combat (pyComBat)",
        "ddof 0 where sva has ddof 1; parametric: one gene's location for all genes",
    ),
    "inmoose": Peer(inmoose, "inmoose", "variances with ddof 0 where sva has ddof 1"),
    "combatlearn": Peer(
        combatlearn,
        "combatlearn",
        "priors over batches per feature, not over features per batch",
        nonparametric=False,
    ),
    "scanpy": Peer(
        scanpy,
        "scanpy",
        "the prior's variance of locations with ddof 0, sva 1",
        nonparametric=False,
    ),
    "combaters": Peer(combaters, "combaters", "rounding"),
    "sva": Peer(None, "R sva", "rounding"),
}


def compare_all(settings: Settings) -> None:
    """The same matrix through other packages, and the non-parametric form."""
    sizes = [(50_000, 2000), (10_000, 2000), (2000, 2000)]
    sizes = sizes[2:] if settings.quick else sizes
    _table("parametric", [name for name in PEERS if _there(name)], sizes)
    few = [name for name in PEERS if PEERS[name].nonparametric and _there(name)]
    _table("nonparametric", few, [(60, 500 if settings.quick else 2000)])
    absent = [PEERS[name].title for name in PEERS if not _there(name)]
    if absent:
        print(f"Not installed, so not run: {', '.join(absent)}.")


def _there(name: str) -> bool:
    if name == "sva":
        return shutil.which("Rscript") is not None and not subprocess.call(
            ["Rscript", "-e", "suppressMessages(library(sva))"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    return name.startswith("ours") or find_spec(name) is not None


def _table(kind: str, names: list[str], sizes: list[tuple[int, int]]) -> None:
    rows = []
    for name in names:
        for n, n_features in sizes:
            found = _child(name, kind, n, n_features)
            size = f"{n:,} × {n_features:,}"
            if "failed" not in found:
                rows.append(_row(PEERS[name], kind, size, found))
                break
            print(f"{PEERS[name].title}, {size}: {found['failed']}", flush=True)
    header = [kind, "input", "time", "added memory", "max difference", "because"]
    if kind == "parametric":
        header[3:3] = ["time / floor"]
    measure.table([*header, "others' share"], rows)


def _row(peer: Peer, kind: str, size: str, found: dict[str, Any]) -> list[str]:
    times, added = found["times"], f"{found['added'] / measure.MIB:,.0f} MiB"
    row = [peer.title, size, f"{measure.seconds(times)}, n = {len(times)}"]
    if kind == "parametric":
        ratios = [t / f for t, f in zip(times, found["floor"], strict=True)]
        row.append(measure.times_floor(ratios))
        added += f", {found['added'] / found['x']:.0%} of X"
    off = f"{found['difference']:.1g} SD"
    return [*row, added, off, peer.why, f"{found['others']:.0%}"]


def _child(name: str, kind: str, n: int, n_features: int) -> dict[str, Any]:
    command = [sys.executable, __file__, name, kind, str(n), str(n_features)]
    measure.wait_until_quiet(30)
    try:
        done = subprocess.run(
            command, check=False, capture_output=True, text=True, timeout=LIMIT
        )
    except subprocess.TimeoutExpired:
        return {"failed": f"stopped after {LIMIT} s"}
    if done.returncode:
        return {"failed": (done.stderr.strip().splitlines() or ["no message"])[-1]}
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _in_r(x: NDArray[Any], obs: pd.DataFrame, kind: str) -> dict[str, Any]:
    """Run sva through files of plain float64: rows here are columns there."""
    with tempfile.TemporaryDirectory() as folder:
        x.tofile(f"{folder}/x")
        obs["batch"].cat.codes.to_numpy(dtype=np.int32).tofile(f"{folder}/batch")
        script = Path(__file__).with_name("peer_sva.R")
        arguments = [folder, *map(str, x.shape), kind, "150"]
        subprocess.run(
            ["Rscript", str(script), *arguments],
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=LIMIT,
        )
        before, after, *times = np.loadtxt(f"{folder}/cost").tolist()
        result = np.fromfile(f"{folder}/y").reshape(x.shape)
    return {"times": times, "added": 1024 * (after - before), "result": result}


def _measure(name: str, x: NDArray[Any], obs: Any, kind: str) -> dict[str, Any]:
    run = PEERS[name].run
    if run is None:
        others = measure.Others()
        found = _in_r(x, obs, kind) | {"others": others.share()}
        floor = Settings(repetitions=len(found["times"]), patience=0)
        turns = measure.compare({"floor": Task(partial(_floor, x))}, floor)
        return found | {"floor": turns.times("floor")}
    small = inputs.labels(200, obs["batch"].nunique())
    run(inputs.dense(small, 50, np.float64), small, kind)
    original = x.copy() if name == "ours" else x
    peak, held = measure.Peak(), {}

    def before() -> None:
        held.pop("result", None)
        if name == "ours":
            np.copyto(x, original)

    def call() -> None:
        held["result"] = run(x, obs, kind)
        held.setdefault("added", peak.added())

    tasks = {"floor": Task(partial(_floor, x)), name: Task(call, before)}
    found = measure.compare(
        tasks, Settings(repetitions=5, patience=PATIENCE), warm=True
    )
    times = {"floor": found.times("floor"), "times": found.times(name)}
    return held | times | {"others": max(turn.others for turn in found.turns)}


def _floor(x: NDArray[Any]) -> None:
    """One read, and one write that changes nothing."""
    x.sum()
    np.multiply(x, 1.0, out=x)


def _difference(result: NDArray[Any], x: NDArray[Any], obs: Any, est: Any) -> float:
    """Return the largest difference in residual standard deviations of the feature."""
    est.fit(x, batch=obs["batch"])
    sd, worst = est.aim_.scale, 0.0
    for rows in inputs.blocks(len(x)):
        own = est.transform(x[rows], batch=obs["batch"].iloc[rows])
        worst = np.maximum(worst, np.max(np.abs(result[rows] - own) / sd))  # keeps NaN
    return float(worst)


def main(name: str, kind: str, n: str, n_features: str) -> None:
    obs = inputs.labels(int(n), 10 if kind == "parametric" else 3)
    x = inputs.dense(obs, int(n_features), np.float64)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        found = _measure(name, x, obs, kind)
        result = found.pop("result")
        if name == "ours":
            result, x = result.copy(), inputs.dense(obs, int(n_features), np.float64)
        est = bc.ComBat(parametric=kind == "parametric")
        found["difference"] = _difference(result, x, obs, est)
    print(json.dumps(found | {"x": x.nbytes}))


if __name__ == "__main__":
    main(*sys.argv[1:])
