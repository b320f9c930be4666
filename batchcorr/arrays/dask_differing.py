"""The differing values of a Dask array, counted in its blocks, where they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
from dask.delayed import delayed

from batchcorr.arrays.dask_passes import merge_tree, slices_of
from batchcorr.arrays.differing import Differing, count_differing, on_host

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from batchcorr.models.namespace import Matrix


@count_differing.register(da.Array)
def _count_differing(
    x: Matrix, codes: NDArray[np.int32], common: NDArray[np.float64]
) -> Differing:
    blocks, count = x.to_delayed(), delayed(_count, pure=False)
    totals = []
    for column, features in enumerate(slices_of(x.chunks[1])):
        sent = delayed(np.ascontiguousarray(common[:, features]), pure=False)
        parts = [
            count(block, codes[rows], sent)
            for block, rows in zip(
                blocks[:, column], slices_of(x.chunks[0]), strict=True
            )
            if rows.stop > rows.start  # filtering leaves empty blocks
        ]
        totals.append(merge_tree(parts, _merge))
    found = zip(*da.compute(*totals), strict=True)
    return Differing(*(np.concatenate(part, axis=1) for part in found))


def _count(block: Matrix, codes: NDArray[np.int32], common: NDArray[np.float64]) -> Any:
    return count_differing(on_host(block), codes, common)


def _merge(parts: list[Differing]) -> Differing:
    total = parts[0]
    for part in parts[1:]:
        total = total.merge(part)
    return total
