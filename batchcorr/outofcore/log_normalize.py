"""Counts in a file, seen as logarithms: totals in one read, the rest block by block.

    L_i = Σ_j x_ij,    y = log(1 + T x / L_i),    T the median of L

Nothing in between is written: a block is scaled and logged whenever it is read.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from batchcorr._anndata import records
from batchcorr._anndata.normalize import mark_logs, steps_before_logs
from batchcorr.arrays.counts import (
    CountRows,
    canonical,
    checked_totals,
    effective_library_sizes,
)
from batchcorr.errors import collected
from batchcorr.estimators.matrix import FLOATS
from batchcorr.methods.log_normalize import LogNormalize
from batchcorr.outofcore.dask_blocks import as_dask, scheduled

if TYPE_CHECKING:
    from anndata import AnnData

    from batchcorr._anndata.records import Record
    from batchcorr.models.namespace import Matrix
    from batchcorr.outofcore.stored_matrix import StoredMatrix

__all__ = ["take_logs"]


def take_logs(
    x: StoredMatrix,
    adata: AnnData,
    layer: str | None,
    key_added: str | None,
    *,
    earlier: list[Record],
    scheduler: str | None,
) -> tuple[StoredMatrix, list[Record]]:
    """The logarithms of a matrix of counts, and the steps that make them."""
    with collected() as texts:
        estimator = _fit(x.seen(canonical), scheduler)
    steps = steps_before_logs(earlier, texts)
    record = records.finish(records.make(adata, estimator, None, layer, steps), texts)
    mark_logs(adata, estimator, key_added or layer)
    del record["earlier"]
    return x.seen(partial(_take_logs, estimator)), [*steps, record]


def _fit(counts: StoredMatrix, scheduler: str | None) -> LogNormalize:
    """Find in one read what counts are scaled to."""
    slices, estimator = counts.slices(), LogNormalize()
    if scheduler is not None:
        with scheduled(scheduler):
            return estimator.fit(as_dask(counts, slices))
    totals = [
        checked_totals(block, rows.start) for rows, block in counts.blocks(slices)
    ]
    estimator.fit_samples(CountRows(counts.head(), np.concatenate(totals)))
    estimator.n_features_ = counts.shape[1]
    return estimator


def _take_logs(estimator: LogNormalize, block: Matrix) -> Matrix:
    counts = canonical(block)
    sizes = effective_library_sizes(counts, estimator.reference_)
    out = counts if counts.dtype in FLOATS else None
    return estimator.logarithms(counts, sizes, out)
