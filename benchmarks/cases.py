"""The table of cases: what is made, at which sizes, and who takes part.

To add a package, write how it is called in `peers.py` and name it here.
"""

from __future__ import annotations

import tempfile
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from benchmarks import inputs, peers
from benchmarks.peers import Data

if TYPE_CHECKING:
    from collections.abc import Callable

Size = tuple[int, int, int]
"""Samples, features, batches."""


class Contender(NamedTuple):
    """A name, the module that must be installed for it, and what it does."""

    name: str
    module: str
    run: Callable[[Data], Any]


class Case(NamedTuple):
    """One thing to do, by batchcorr (the first contender) and others."""

    title: str
    make: Callable[[Size], Data]
    sizes: dict[str, list[Size]]
    contenders: list[Contender]
    note: str = ""


def dense(size: Size) -> Data:
    obs = inputs.labels(size[0], size[2])
    return Data(inputs.dense(obs, size[1], np.float64), obs[["batch"]])


def bulk(size: Size) -> Data:
    obs = inputs.labels(size[0], size[2])
    return Data(inputs.bulk(obs, size[1]), obs)


def counts(size: Size) -> Data:
    obs = inputs.labels(size[0], size[2])
    return Data(inputs.cells(obs, size[1]), obs[["batch"]])


def logs(size: Size) -> Data:
    data = counts(size)
    np.log1p(data.x.data, out=data.x.data)
    return data


def variable(size: Size) -> Data:
    data = logs(size)
    spread = data.x.power(2).mean(axis=0) - np.square(data.x.mean(axis=0))
    order = np.argsort(-np.asarray(spread).ravel())
    return data._replace(variable=np.isin(np.arange(size[1]), order[: size[1] // 10]))


@cache
def folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory()


def stored(size: Size) -> Data:
    obs = inputs.labels(size[0], size[2])
    path = f"{folder().name}/{size[0]}.zarr"
    return Data(
        inputs.store(path, obs, inputs.dense(obs, size[1], np.float32)), obs[["batch"]]
    )


COMPONENTS = [
    Contender("batchcorr", "batchcorr", peers.components),
    Contender("scanpy, arpack", "scanpy", peers.scanpy_pca),
    Contender("scanpy, covariance_eigh", "scanpy", peers.scanpy_covariance),
    Contender("scanpy, arpack, then harmonypy", "harmonypy", peers.harmony),
]

CASES = {
    "combat": Case(
        "ComBat, dense float64, in place",
        dense,
        {
            "samples": [(1_000, 2_000, 10), (5_000, 2_000, 10), (25_000, 2_000, 10)],
            "genes": [(1_000, 500, 10), (1_000, 2_000, 10), (1_000, 10_000, 10)],
            "batches": [(2_000, 2_000, 2), (2_000, 2_000, 10), (2_000, 2_000, 50)],
        },
        [
            Contender("batchcorr", "batchcorr", peers.combat),
            Contender("one read and one write", "numpy", peers.read_and_write),
            Contender("scanpy", "scanpy", peers.scanpy_combat),
            Contender("inmoose", "inmoose", peers.inmoose_combat),
            Contender("combatlearn", "combatlearn", peers.combatlearn),
            Contender("combaters", "combaters", peers.combaters),
            Contender("combat (pyComBat)", "combat", peers.pycombat),
            Contender("neuroCombat", "neuroCombat", peers.neurocombat),
        ],
        "Differences from batchcorr in standard deviations of the gene. scanpy and "
        "inmoose take variances with ddof 0 where sva takes 1; combatlearn has priors "
        "over batches; pyComBat uses one gene's location for all.",
    ),
    "means": Case(
        "Batch means removed, dense float64",
        dense,
        {"samples": [(500, 500, 5), (2_000, 500, 5)]},
        [
            Contender("batchcorr", "batchcorr", peers.remove),
            Contender("scanpy regress_out", "scanpy", peers.regress_out),
        ],
        "regress_out takes the mean of each batch away and gives nothing back, so "
        "that its values differ by the mean of the gene.",
    ),
    "counts": Case(
        "ComBat-seq, one group, counts of bulk samples",
        bulk,
        {"samples": [(30, 1_000, 3), (60, 2_000, 3)]},
        [
            Contender("batchcorr", "batchcorr", peers.combat_seq),
            Contender("inmoose", "inmoose", peers.inmoose_seq),
        ],
    ),
    "logs": Case(
        "Logarithms of counts, CSR float32, in place",
        counts,
        {"samples": [(2_000, 20_000, 8), (10_000, 20_000, 8)]},
        [
            Contender("batchcorr", "batchcorr", peers.log_normalize),
            Contender("scanpy", "scanpy", peers.scanpy_logs),
        ],
        "scanpy scales to the median of totals.",
    ),
    "pca": Case(
        "50 components of all genes, CSR float32",
        logs,
        {"samples": [(2_000, 20_000, 8), (10_000, 20_000, 8)]},
        [each for each in COMPONENTS if "eigh" not in each.name],
        "batchcorr corrects, by a fit to all genes; scanpy's components are uncorrected.",
    ),
    "variable": Case(
        "50 components of 2,000 variable genes of 20,000, CSR float32",
        variable,
        {"samples": [(2_000, 20_000, 8), (20_000, 20_000, 8)]},
        COMPONENTS,
        "The same; the fit is to all genes.",
    ),
    "files": Case(
        "From .zarr to .zarr in 1 GiB beside what is loaded, dense float32",
        stored,
        {"samples": [(10_000, 2_000, 10), (50_000, 2_000, 10)]},
        [
            Contender("batchcorr correct", "batchcorr", peers.corrected_file),
            Contender("a plain copy", "zarr", peers.copied_file),
        ],
    ),
}
