"""From AnnData to AnnData for the steps before correction: logarithms and quantiles.

Their records stand beside those of corrections, under a name of their own: a matrix is
normalized first and corrected then, and both are told.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from batchcorr._anndata import matrices
from batchcorr._anndata.interrupts import uninterrupted
from batchcorr._anndata.labels import read_labels
from batchcorr._anndata.noting import Noting
from batchcorr.estimators.densify import allow_dense
from batchcorr.estimators.matrix import FLOATS, is_sparse
from batchcorr.estimators.metadata import Labels
from batchcorr.estimators.saving import versions
from batchcorr.methods.log_normalize import LogNormalize
from batchcorr.methods.quantile_normalize import QuantileNormalize

if TYPE_CHECKING:
    from anndata import AnnData

__all__ = ["log_normalize", "mark_logs", "quantile_normalize", "record_of"]


def log_normalize(
    adata: AnnData,
    *,
    method: str = "total",
    target_sum: float | None = None,
    base: float | None = None,
    prior_count: float | None = None,
    layer: str | None = None,
    key_added: str | None = None,
    dense: bool | None = None,
    copy: bool = False,
) -> AnnData | None:
    """Take logarithms of an AnnData's counts; see `pp.log_normalize`."""
    matrices.require_adata(adata)
    target = adata.copy() if copy else adata
    x = matrices.get_matrix(target, layer)
    if is_sparse(x) and prior_count is not None:
        allow_dense(x.shape, 8 if x.dtype == np.float64 else 4, dense=dense)
    estimator = LogNormalize(
        method, target_sum=target_sum, base=base, prior_count=prior_count
    )
    noting = Noting()
    counts, libraries = noting(estimator.fit_counts, x)
    record = record_of(target, estimator, layer, noting.texts)
    keeps_storage = prior_count is None or not is_sparse(x)
    here = key_added is None and counts is x and keeps_storage
    out = x if here and _owned(target, x, layer) else None
    with uninterrupted():
        result = estimator.logarithms(counts, libraries, out, dense=True)
        _set(target, result, layer, key_added)
        mark_logs(target, estimator, layer, key_added, record)
    return target if copy else None


def mark_logs(
    adata: AnnData,
    estimator: LogNormalize,
    layer: str | None,
    key_added: str | None,
    record: dict[str, Any],
) -> None:
    """Write beside logarithms how they were taken, for people and for scanpy."""
    _mark(adata, layer, key_added, record)
    if estimator.size_factors_ is not None:
        adata.obs["size_factor"] = estimator.size_factors_
    if estimator.prior_count is None and (key_added or layer) is None:
        adata.uns["log1p"] = {"base": estimator.base}


def quantile_normalize(
    adata: AnnData,
    batch_key: str | None = None,
    *,
    ties: bool = True,
    reference: Any = None,
    layer: str | None = None,
    key_added: str | None = None,
    dense: bool | None = None,
    copy: bool = False,
) -> AnnData | None:
    """Give an AnnData's samples one distribution; see `pp.quantile_normalize`."""
    matrices.require_adata(adata)
    target = adata.copy() if copy else adata
    x = matrices.get_matrix(target, layer)
    if is_sparse(x):
        allow_dense(x.shape, 8 if x.dtype == np.float64 else 4, dense=dense)
    estimator = QuantileNormalize(ties=ties, reference=reference)
    batch = None
    if batch_key is not None:
        batch = read_labels(target, batch_key, None, None).batch
    noting = Noting()
    noting(estimator.fit, x, batch=batch)
    estimator.obs_columns_ = {"batch": batch_key}
    record = record_of(target, estimator, layer, noting.texts)
    here = key_added is None and not is_sparse(x) and _owned(target, x, layer)
    with uninterrupted():
        result = estimator.apply(x, Labels(), out=x if here else None, dense=True)
        _set(target, result, layer, key_added)
        _mark(target, layer, key_added, record)
    return target if copy else None


def _set(adata: AnnData, result: Any, layer: str | None, key_added: str | None) -> None:
    if adata.is_view:
        adata._init_as_actual(adata.copy())
    matrices.set_matrix(adata, result, layer, key_added)


def _mark(
    adata: AnnData, layer: str | None, key_added: str | None, record: dict[str, Any]
) -> None:
    """Write the record, which stands beside that of a correction."""
    key = f"{key_added or layer or 'X'}.{record['method']}"
    matrices.write_record(adata, key, record)


def _owned(adata: AnnData, x: Any, layer: str | None) -> bool:
    """Whether the values of a matrix may be overwritten: nobody else sees them."""
    if adata.is_view:
        return False
    if not is_sparse(x):
        return x.dtype in FLOATS and matrices.writable(adata, x, layer)
    whole = x.data.base is None or x.data.base.shape == x.data.shape
    if x.dtype not in FLOATS or not whole or not x.data.flags.writeable:
        return False
    others: list[Any] = [value for key, value in adata.layers.items() if key != layer]
    for mapping in (adata.obsm, adata.varm, adata.obsp, adata.varp, adata.uns):
        others += mapping.values()
    others += [adata.X] if layer is not None else []
    others += [adata.raw.X] if adata.raw is not None else []
    values = [other.data if is_sparse(other) else other for other in others]
    return not any(
        isinstance(other, np.ndarray) and np.may_share_memory(x.data, other)
        for other in values
    )


def record_of(
    adata: AnnData,
    estimator: LogNormalize | QuantileNormalize,
    layer: str | None,
    noted: list[str],
) -> dict[str, Any]:
    """Return the record of what is done; refuse if records cannot be kept."""
    matrices.read_record(adata, layer or "X")
    parameters = estimator.get_params(deep=False)
    hidden = {"copy", "batch_column"}
    return {
        "method": estimator.record.name,
        "parameters": {k: v for k, v in parameters.items() if k not in hidden},
        "source": layer or "X",
        "batch": (estimator.obs_columns_ or {}).get("batch"),
        "n_obs": adata.n_obs,
        "n_vars": adata.n_vars,
        "warnings": noted,
        "for_testing": estimator.record.testable,
        "note": "",
        "versions": versions(),
    } | estimator.summary()
