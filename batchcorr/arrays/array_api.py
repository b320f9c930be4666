"""Matrices of any other library that follows the array API standard: torch, say.

The sums are those of `generic`, on the device of the matrix; what is as small as (B, G)
comes to the CPU, so that every method knows these matrices.
"""

from __future__ import annotations

from abc import ABC
from typing import TYPE_CHECKING

import numpy as np

from batchcorr.arrays.generic import (
    accumulator,
    affine_rows,
    row_slices,
    rows_of,
    tensor_moments,
)
from batchcorr.arrays.operations import (
    Maps,
    Sums,
    affine,
    has_infinite,
    modules_of,
    sums,
    sums_by_feature,
)
from batchcorr.models.namespace import (
    Array,
    asarray_like,
    namespace,
    packages_of,
    to_numpy,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from batchcorr.arrays.cells import Cells
    from batchcorr.design.design import Design
    from batchcorr.models.moments import Moments

__all__ = [
    "StandardArray",
    "standard_has_infinite",
    "standard_sums",
    "standard_sums_by_feature",
]


class StandardArray(ABC):  # noqa: B024 - only ever asked, never inherited
    """Any array that follows the standard, of a library without a module of its own."""

    @classmethod
    def __subclasshook__(cls, kind: type) -> bool:
        """Whether a type is one: torch's tensors follow it through a wrapper."""
        packages = packages_of(kind)
        if "torch" in packages:
            return hasattr(kind, "new_zeros")
        own = any(map(modules_of, packages))
        return not own and hasattr(kind, "__array_namespace__")


@sums.register(StandardArray)
def standard_sums(x: Array, cells: Cells, slopes: NDArray[np.float64]) -> Sums:
    """Gather first and second moments per cell, and products with the slopes."""
    own = tensor_moments(x, cells.codes, cells.n_cells, slopes)
    whole = own
    if cells.flat:
        whole = own.collapse(cells.batch.tolist(), cells.n_batches)
    return Sums(to_numpy(own.mean), to_numpy(own.squares), to_numpy(whole.cross))


@sums_by_feature.register(StandardArray)
def standard_sums_by_feature(
    x: Array, design: Design, weights: NDArray[np.float64] | None
) -> Moments:
    """Gather moments feature by feature: values may be missing or weighted."""
    if weights is not None and weights.ndim == 1:
        weights = weights[:, None]
    found = tensor_moments(
        x, design.codes, design.n_batches, design.columns, weights, missing=True
    )
    return found.map(to_numpy)


@has_infinite.register(StandardArray)
def standard_has_infinite(x: Array) -> bool:
    """Whether any value is infinite."""
    xp = namespace(x)
    return any(bool(xp.any(xp.isinf(x[rows, :]))) for rows in row_slices(x))


@affine.register(StandardArray)
def _affine(x: Array, cells: Cells, maps: Maps, out: Array | None) -> Array:
    xp, wide = namespace(x), accumulator(x)
    scale, shift, tilt = (
        asarray_like(x, values, wide) for values in (maps.scale, maps.shift, maps.tilt)
    )
    out = xp.empty_like(x) if out is None else out
    for rows in row_slices(x):
        cell = cells.codes[rows].astype(np.int64)
        batch = asarray_like(x, cells.batch[cell].astype(np.int64))
        out[rows, :] = affine_rows(
            x[rows, :],
            rows_of(scale, batch),
            rows_of(shift, asarray_like(x, cell)),
            maps.slopes[rows],
            rows_of(tilt, batch),
        )
    return out
