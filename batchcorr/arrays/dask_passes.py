"""Dask arrays: moments by tree reduction, apply as lazy blocks; the scheduler is yours.

The blocks are matrices of the other kinds, and go through the operations of these. `moments`
reads every block once and holds none; `apply` computes nothing. Features may be cut
into chunks as well as rows.
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
from dask.delayed import delayed

from batchcorr.arrays.feature_parts import joined
from batchcorr.arrays.operations import has_infinite
from batchcorr.arrays.passes import apply, moments
from batchcorr.errors import InputError
from batchcorr.models.location_scale import LocationScale
from batchcorr.models.namespace import packages_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from batchcorr.design.design import Design
    from batchcorr.models.moments import Moments
    from batchcorr.models.namespace import Matrix

__all__ = ["merge_tree", "replace_features", "require_no_place", "slices_of"]

FAN_IN = 8
"""Results merged at a time."""


@moments.register(da.Array)
def _moments(
    x: Matrix, design: Design, *, weights: NDArray[np.float64] | None = None
) -> Moments:
    _require_known_chunks(x)
    blocks = x.to_delayed()
    rows_of, features_of = slices_of(x.chunks[0]), slices_of(x.chunks[1])
    gather = delayed(_gather_block, pure=False)
    totals = []
    for column, features in enumerate(features_of):
        parts = [
            gather(block, design.take(rows), _part_of(weights, rows, features))
            for block, rows in zip(blocks[:, column], rows_of, strict=True)
            if rows.stop > rows.start  # filtering leaves empty blocks
        ]
        totals.append(merge_tree(parts, _merge_all))
    return joined(da.compute(*totals))


@apply.register(da.Array)
def _apply(
    x: Matrix, design: Design, correction: LocationScale, *, out: Matrix | None = None
) -> Matrix:
    _require_known_chunks(x)
    require_no_place(out)
    rows, features = x.chunks
    everything = {
        field.name: da.from_array(
            getattr(correction, field.name), chunks=(-1, features), name=False
        )
        for field in fields(LocationScale)
    }
    codes = da.from_array(design.codes, chunks=(rows,), name=False)
    columns = da.from_array(design.columns, chunks=(rows, -1), name=False)
    return da.blockwise(
        _apply_block,
        "ij",
        x,
        "ij",
        codes,
        "i",
        columns,
        "ik",
        everything["scale"],
        "bj",
        everything["shift"],
        "bj",
        everything["coefficients"],
        "pj",
        everything["nuisance"],
        "qj",
        design=design.take(slice(0)),
        concatenate=True,
        dtype=x.dtype,
        meta=_empty(x, x.dtype),
    )


def merge_tree(parts: list[Any], merge: Callable[[list[Any]], Any]) -> Any:
    """Merge neighbours, a few at a time: so no worker holds many."""
    step = delayed(merge, pure=False)
    while len(parts) > 1:
        parts = [step(parts[k : k + FAN_IN]) for k in range(0, len(parts), FAN_IN)]
    return parts[0]


def require_no_place(out: Matrix) -> None:
    """Refuse to write into a Dask array, or any other place."""
    if out is not None:
        msg = "A Dask array cannot be changed in place: leave out=None."
        raise InputError(msg)


def replace_features(x: Matrix, positions: NDArray[np.intp], other: Any) -> Matrix:
    """Return `x` with the features at `positions` replaced by those of `other`, dense."""
    rest = np.setdiff1d(np.arange(x.shape[1]), positions)
    order = np.argsort(np.concatenate([positions, rest]))
    unchanged = x[:, rest].map_blocks(
        _dense, other.dtype, dtype=other.dtype, meta=_empty(x, other.dtype)
    )
    return da.concatenate([other, unchanged], axis=1)[:, order]


def _empty(x: Matrix, dtype: object) -> Matrix:
    """Return what the blocks of a corrected Dask array are: dense, NumPy's or CuPy's."""
    if packages_of(type(x._meta)) & {"cupy", "cupyx"}:
        import cupy

        return cupy.empty((0, 0), dtype)
    return np.empty((0, 0), dtype)


def _dense(block: Matrix, dtype: object) -> Matrix:
    return (block.toarray() if hasattr(block, "toarray") else block).astype(dtype)


@has_infinite.register(da.Array)
def _has_infinite(x: Matrix) -> bool:
    found = [delayed(has_infinite)(block) for block in x.to_delayed().ravel()]
    return any(da.compute(*found))


def _gather_block(
    block: Matrix, design: Design, weights: NDArray[np.float64] | None
) -> Moments:
    found: Moments = moments(block, design, weights=weights)
    return found


def _merge_all(parts: list[Moments]) -> Moments:
    total = parts[0]
    for part in parts[1:]:
        total = total.merge(part)
    return total


def _apply_block(
    block: Matrix,
    codes: NDArray[np.int32],
    columns: NDArray[np.float64],
    scale: NDArray[np.float64],
    shift: NDArray[np.float64],
    coefficients: NDArray[np.float64],
    nuisance: NDArray[np.float64],
    *,
    design: Design,
) -> Matrix:
    if len(codes) == 0:
        return block.toarray() if hasattr(block, "toarray") else block
    design = replace(design, codes=codes, columns=np.ascontiguousarray(columns))
    correction = LocationScale(scale, shift, coefficients, nuisance)
    return apply(block, design, correction)


def slices_of(chunks: tuple[int, ...]) -> list[slice]:
    """Return where along an axis the blocks are."""
    ends = np.cumsum(chunks).tolist()
    return [slice(end - size, end) for end, size in zip(ends, chunks, strict=True)]


def _part_of(weights: Any, rows: slice, features: slice) -> Any:
    if weights is None:
        return None
    return weights[rows] if weights.ndim == 1 else weights[rows, features]


def _require_known_chunks(x: Matrix) -> None:
    if np.isnan(x.shape[0]):
        msg = (
            "The lengths of this Dask array's chunks are not known: call "
            "x.compute_chunk_sizes() first."
        )
        raise InputError(msg)
