"""Get a matrix out of an AnnData, and set a result.

The result is written into X's own memory only where nothing else looks at it: not a
layer, not `raw`, not an array that X is a piece of.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pandas as pd

from batchcorr._anndata.table_data import TableData
from batchcorr.errors import (
    InputError,
    MissingKeyError,
    ViewWarning,
    did_you_mean,
    warn,
)
from batchcorr.estimators.matrix import FLOATS, as_matrix, is_sparse, is_writable
from batchcorr.models.namespace import asarray_like, is_foreign, namespace

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anndata import AnnData
    from numpy.typing import NDArray

    from batchcorr.models.namespace import Matrix

__all__ = [
    "copied",
    "get_matrix",
    "make_actual",
    "may_overwrite",
    "replace_features",
    "require_adata",
    "set_matrix",
    "take_features",
]


def require_adata(adata: object) -> AnnData:
    """`adata`, if it is an AnnData whose values are in memory or in a Dask array."""
    if isinstance(adata, TableData):
        return cast("AnnData", adata)
    import anndata

    if not isinstance(adata, anndata.AnnData):
        msg = (
            f"The first argument must be an AnnData, not a {type(adata).__name__}. For "
            "arrays and DataFrames use the estimators, for example batchcorr.ComBat()."
        )
        raise InputError(msg)
    if adata.isbacked:
        msg = (
            "This AnnData is in backed mode, so that its values are not in memory: "
            "load it with adata.to_memory() first. If it does not fit into memory, "
            "correct the file itself (batchcorr correct in.h5ad out.h5ad --batch "
            "COLUMN --memory 4GB), or read X as a Dask array "
            "(anndata.experimental.read_elem_lazy)."
        )
        raise InputError(msg)
    return adata


def get_matrix(adata: AnnData, layer: str | None) -> Matrix:
    """X, or a layer; what a mask hides is missing.

    Raises
    ------
    MissingKeyError
        If the layer does not exist; the message lists those that do.
    """
    layers = [key for key in require_adata(adata).layers if key is not None]
    if layer is None:
        matrix = adata.X
        if matrix is None:
            msg = (
                f"This AnnData has no X. {did_you_mean('', layers)} Name a layer with "
                "layer=."
            )
            raise MissingKeyError(msg)
    elif layer in layers:
        matrix = adata.layers[layer]
    else:
        msg = f"There is no layer {layer!r}. {did_you_mean(layer, layers)}"
        raise MissingKeyError(msg)
    matrix = _with_mask(matrix)
    if isinstance(matrix, np.ma.MaskedArray):
        hidden = np.ma.getmaskarray(matrix).any()
        return as_matrix(matrix) if hidden else np.array(matrix.data)
    return np.asarray(matrix) if isinstance(matrix, np.ndarray) else matrix


def _with_mask(matrix: Matrix) -> Matrix:
    """A matrix of a view of an AnnData with its mask, which the view itself forgets."""
    base = getattr(matrix, "base", None)
    known = isinstance(base, np.ma.MaskedArray) and base.shape == matrix.shape
    return base if known else matrix


def copied(adata: AnnData) -> AnnData:
    """A copy, with the masks of layers that a view forgets."""
    copy = require_adata(adata).copy()
    if adata.is_view:
        for key in adata.layers:
            layer = _with_mask(adata.layers[key])
            if isinstance(layer, np.ma.MaskedArray):
                copy.layers[key] = layer.copy()
    return copy


def may_overwrite(adata: AnnData, x: Matrix, layer: str | None) -> bool:
    """Whether results may be written into X or a layer: nobody else sees its memory."""
    values = x.data if is_sparse(x) else x
    if adata.is_view or not is_writable(values) or x.dtype not in FLOATS:
        return False
    part = values.base is not None and not (
        is_sparse(x) and values.base.shape == values.shape
    )
    if part or not values.flags.c_contiguous:
        return False
    others: list[Any] = [adata.layers[key] for key in adata.layers if key != layer]
    others += [adata.obsm, adata.varm, adata.obsp, adata.varp, adata.uns]
    others += [adata.X] if layer is not None else []
    others += [adata.raw.X] if adata.raw is not None else []
    of_numpy = isinstance(values, np.ndarray)
    kind = np.ndarray if of_numpy else type(values)
    share = (np if of_numpy else namespace(values)).may_share_memory
    return not any(
        isinstance(other, kind) and share(values, other) for other in _arrays(others)
    )


def _arrays(kept: Any) -> Iterator[Any]:
    """The arrays in lists, mappings, tables and sparse matrices."""
    if isinstance(kept, list | tuple):
        for value in kept:
            yield from _arrays(value)
    elif isinstance(kept, Mapping):
        for value in kept.values():
            yield from _arrays(value)
    elif isinstance(kept, pd.DataFrame):
        if kept.dtypes.nunique() == 1:
            yield kept.to_numpy()
    else:
        yield kept.data if is_sparse(kept) else kept


def make_actual(adata: AnnData) -> None:
    """Make a view an AnnData of its own, with a warning; its parent is not touched."""
    if adata.is_view:
        msg = (
            "adata is a view of another AnnData: the result is written to the view, "
            "which becomes a copy, and the other AnnData is unchanged. With a "
            "temporary view, as in combat(adata[:, genes], …), the result is lost: use "
            "part = adata[:, genes].copy() first, and correct part."
        )
        warn(msg, ViewWarning)
        adata._init_as_actual(copied(adata))


def take_features(x: Matrix, positions: object) -> Matrix:
    """The columns of `x` at `positions`."""
    if is_foreign(x):
        return namespace(x).take(x, asarray_like(x, positions), axis=1)
    return x[:, positions]


def replace_features(
    x: Matrix, positions: NDArray[np.intp], corrected: Matrix
) -> Matrix:
    """`x` with the columns at `positions` replaced."""
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
        x = x.toarray() if is_sparse(x) else x
        xp, others = namespace(x), np.setdiff1d(np.arange(x.shape[1]), positions)
        rest = xp.astype(take_features(x, others), corrected.dtype)
        order = np.argsort(np.concatenate([positions, others]))
        return take_features(xp.concat([corrected, rest], axis=1), order)
    result = x.toarray() if is_sparse(x) else x.copy()
    if result.dtype != corrected.dtype:
        result = result.astype(np.promote_types(result.dtype, corrected.dtype))
    result[:, positions] = corrected
    return result


def set_matrix(
    adata: AnnData, matrix: Matrix, layer: str | None, key_added: str | None
) -> None:
    """Put a result where it was read from, or into the layer `key_added`."""
    target = key_added or layer
    if target is None:
        if adata.X is not matrix:
            adata.X = matrix
    else:
        adata.layers[target] = matrix
