"""Get a matrix and its metadata out of an AnnData, set a result, keep a record.

The result is written into X's own memory only where nothing else looks at it: not a
layer, not `raw`, not an array that X is a piece of.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from batchcorr.errors import InputError, MissingKeyError, did_you_mean
from batchcorr.estimators.matrix import as_matrix, becomes_dense, is_sparse, is_writable
from batchcorr.models.namespace import asarray_like, is_foreign, namespace

if TYPE_CHECKING:
    from anndata import AnnData

__all__ = [
    "get_matrix",
    "read_record",
    "replace_features",
    "require_adata",
    "set_matrix",
    "take_features",
    "writable",
    "write_record",
]

WRITTEN = (np.dtype(np.float32), np.dtype(np.float64))
"""Dtypes that results have: in others they cannot be written in place."""

RECORDS = "batchcorr"
"""Where records are kept: `adata.uns[RECORDS][key]`, one JSON string each."""


def require_adata(adata: Any) -> AnnData:
    """Return `adata` if it is one that can be corrected in memory, else say what is."""
    import anndata

    if not isinstance(adata, anndata.AnnData):
        msg = (
            f"The first argument must be an AnnData, not a {type(adata).__name__}. For "
            "arrays and tables use the estimators, for example batchcorr.ComBat()."
        )
        raise InputError(msg)
    if adata.isbacked:
        msg = (
            "This AnnData is backed by a file, and its values are not in memory: load "
            "it with adata.to_memory() first."
        )
        raise InputError(msg)
    return adata


def get_matrix(adata: AnnData, layer: str | None) -> Any:
    """Return X, or a layer.

    Raises
    ------
    MissingKeyError
        If the layer does not exist; the message lists those that do.
    """
    if layer is None:
        matrix = adata.X
        if matrix is None:
            msg = (
                f"This AnnData has no X. {did_you_mean('', adata.layers)} Name a layer "
                "with layer=."
            )
            raise MissingKeyError(msg)
    elif layer in adata.layers:
        matrix = adata.layers[layer]
    else:
        msg = f"There is no layer {layer!r}. {did_you_mean(layer, adata.layers)}"
        raise MissingKeyError(msg)
    return np.asarray(matrix) if isinstance(matrix, np.ndarray) else matrix


def writable(adata: AnnData, x: Any, layer: str | None) -> bool:
    """Whether a matrix of `adata` may be overwritten: nobody else sees its memory."""
    if adata.is_view or not is_writable(x) or x.base is not None:
        return False
    if not (x.flags.c_contiguous and x.dtype in WRITTEN):
        return False
    others: list[Any] = [value for key, value in adata.layers.items() if key != layer]
    for mapping in (adata.obsm, adata.varm, adata.obsp, adata.varp, adata.uns):
        others += mapping.values()
    others += [adata.X] if layer is not None else []
    others += [adata.raw.X] if adata.raw is not None else []
    kind = np.ndarray if isinstance(x, np.ndarray) else type(x)
    may_share = namespace(x).may_share_memory
    return not any(isinstance(other, kind) and may_share(x, other) for other in others)


def take_features(x: Any, positions: Any) -> Any:
    """Return the columns of `x` at `positions`."""
    if is_foreign(x):
        return namespace(x).take(x, asarray_like(x, positions), axis=1)
    return x[:, positions]


def replace_features(x: Any, positions: Any, corrected: Any) -> Any:
    """Return `x` with the columns at `positions` replaced."""
    if hasattr(x, "dask"):
        from batchcorr.arrays import dask_passes

        return dask_passes.replace_features(x, positions, corrected)
    if is_sparse(corrected):
        import scipy.sparse as sp

        others = np.setdiff1d(np.arange(x.shape[1]), positions)
        order = np.argsort(np.concatenate([positions, others]))
        both = sp.hstack([corrected, x[:, others]], format="csc")
        return both[:, order].asformat(x.format)
    if is_foreign(corrected):
        x = x.toarray() if becomes_dense(x) else x
        xp, others = namespace(x), np.setdiff1d(np.arange(x.shape[1]), positions)
        rest = xp.astype(take_features(x, others), corrected.dtype)
        order = np.argsort(np.concatenate([positions, others]))
        return take_features(xp.concat([corrected, rest], axis=1), order)
    result = x.toarray() if is_sparse(x) else x.copy()
    if result.dtype != corrected.dtype:
        result = as_matrix(result)
    result[:, positions] = corrected
    return result


def set_matrix(
    adata: AnnData, matrix: Any, layer: str | None, key_added: str | None
) -> None:
    """Put a result where it was read from, or into the layer `key_added`."""
    target = key_added or layer
    if target is None:
        if adata.X is not matrix:
            adata.X = matrix
    else:
        adata.layers[target] = matrix


def read_record(adata: AnnData, layer: str | None) -> dict[str, Any] | None:
    """Return the record of an earlier correction of X or a layer, None if there is none.

    Raises
    ------
    InputError
        If something else is kept where records are kept.
    """
    records = adata.uns.get(RECORDS, {})
    text = records.get(_key(layer)) if isinstance(records, Mapping) else ""
    if text is None:
        return None
    try:
        record = json.loads(text)
    except (TypeError, ValueError):
        record = None
    if not isinstance(record, dict):
        msg = (
            f"adata.uns[{RECORDS!r}] is kept by batchcorr for its records, and holds "
            "something else: rename or delete it."
        )
        raise InputError(msg)
    return record


def write_record(adata: AnnData, layer: str | None, record: dict[str, Any]) -> None:
    """Keep a record as one JSON string: lists of dicts cannot be written to .h5ad."""
    records = dict(adata.uns.get(RECORDS, {}))
    records[_key(layer)] = json.dumps(record, ensure_ascii=False, default=str)
    adata.uns[RECORDS] = records


def _key(layer: str | None) -> str:
    """Return the key of a record: a layer may have the name of X."""
    if layer is None:
        return "X"
    return layer if layer != "X" else "layer X"
