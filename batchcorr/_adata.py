"""Get a matrix and its metadata out of an AnnData, set a result, keep a record.

The result is written into X's own memory only where nothing else looks at it: not a
layer, not `raw`, not an array that X is a piece of.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from batchcorr.errors import InputError, MissingKeyError, did_you_mean

if TYPE_CHECKING:
    from anndata import AnnData

__all__ = [
    "get_matrix",
    "read_record",
    "require_adata",
    "set_matrix",
    "writable",
    "write_record",
]

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
            msg = f"This AnnData has no X. {did_you_mean('X', adata.layers)} Name one."
            raise MissingKeyError(msg)
    elif layer in adata.layers:
        matrix = adata.layers[layer]
    else:
        msg = f"There is no layer {layer!r}. {did_you_mean(layer, adata.layers)}"
        raise MissingKeyError(msg)
    return np.asarray(matrix) if isinstance(matrix, np.ndarray) else matrix


def writable(adata: AnnData, x: Any, layer: str | None) -> bool:
    """Whether a matrix of `adata` may be overwritten: nobody else sees its memory."""
    if not (isinstance(x, np.ndarray) and x.flags.c_contiguous and x.flags.writeable):
        return False
    own = x if x.base is None else x.base
    if not (isinstance(own, np.ndarray) and own.base is None and own.shape == x.shape):
        return False
    others = [value for key, value in adata.layers.items() if key != layer]
    others += list(adata.obsm.values())
    others += [adata.X] if layer is not None else []
    others += [adata.raw.X] if adata.raw is not None else []
    return not any(
        isinstance(other, np.ndarray) and np.may_share_memory(x, other)
        for other in others
    )


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


def read_record(adata: AnnData, key: str) -> dict[str, Any] | None:
    """Return the record of an earlier correction, None if there is none."""
    records = adata.uns.get(RECORDS)
    text = records.get(key) if hasattr(records, "get") else None
    return json.loads(text) if isinstance(text, str) else None


def write_record(adata: AnnData, key: str, record: dict[str, Any]) -> None:
    """Keep a record as one JSON string: lists of dicts cannot be written to .h5ad."""
    records = dict(adata.uns.get(RECORDS, {}))
    records[key] = json.dumps(record, ensure_ascii=False, default=str)
    adata.uns[RECORDS] = records
