"""Counts in a file, seen as logarithms: totals in one read, the rest block by block.

    L_i = Σ_j x_ij,    y = log(1 + T x / L_i),    T the median of L

Nothing in between is written: a block is scaled and logged whenever it is read.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from batchcorr._anndata.normalize import mark_logs, record_of
from batchcorr._anndata.noting import Noting
from batchcorr.arrays.counts import (
    CountRows,
    canonical,
    checked_totals,
    effective_libraries,
)
from batchcorr.estimators.matrix import FLOATS
from batchcorr.methods.log_normalize import LogNormalize
from batchcorr.outofcore.dask_blocks import as_dask, scheduled

if TYPE_CHECKING:
    from anndata import AnnData

    from batchcorr.outofcore.stored_matrix import StoredMatrix

__all__ = ["take_logs"]


def take_logs(
    x: StoredMatrix,
    adata: AnnData,
    layer: str | None,
    key_added: str | None,
    scheduler: str | None,
) -> StoredMatrix:
    """Return the logarithms of a matrix of counts, and note in `adata` how they are taken.

    Raises
    ------
    InputError
        For values that are no counts.
    """
    noting = Noting()
    estimator = noting(_learn, x.seen(canonical), scheduler)
    record = record_of(adata, estimator, layer, noting.texts)
    mark_logs(adata, estimator, layer, key_added, record)
    return x.seen(partial(_take_logs, estimator))


def _learn(counts: StoredMatrix, scheduler: str | None) -> LogNormalize:
    """Learn in one read what counts are scaled to."""
    slices, estimator = counts.slices(), LogNormalize()
    if scheduler is not None:
        with scheduled(scheduler):
            return estimator.fit(as_dask(counts, slices))
    totals = [
        checked_totals(block, rows.start) for rows, block in counts.blocks(slices)
    ]
    estimator.fit_samples(CountRows(counts.head(), np.concatenate(totals)))
    return estimator


def _take_logs(estimator: LogNormalize, block: Any) -> Any:
    counts = canonical(block)
    found = effective_libraries(counts, estimator.reference_)
    return estimator.logarithms(
        counts, found, counts if counts.dtype in FLOATS else None
    )
