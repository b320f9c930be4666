"""What in a Dask array is unlike the rest: counted in its blocks, where they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
from dask.delayed import delayed

from batchcorr.arrays.dask_passes import merge_tree, slices_of
from batchcorr.arrays.differing import Unlike, count_unlike, on_host

if TYPE_CHECKING:
    from numpy.typing import NDArray


@count_unlike.register(da.Array)
def _count_unlike(
    x: Any,
    codes: NDArray[np.int32],
    common: NDArray[np.float64],
    centre: NDArray[np.float64],
) -> Unlike:
    blocks, count = x.to_delayed(), delayed(_count, pure=False)
    totals = []
    for column, features in enumerate(slices_of(x.chunks[1])):
        sent = [
            delayed(np.ascontiguousarray(values[:, features]), pure=False)
            for values in (common, centre)
        ]
        parts = [
            count(block, codes[rows], *sent)
            for block, rows in zip(
                blocks[:, column], slices_of(x.chunks[0]), strict=True
            )
            if rows.stop > rows.start  # filtering leaves empty blocks
        ]
        totals.append(merge_tree(parts, _merge))
    found = zip(*da.compute(*totals), strict=True)
    return Unlike(*(np.concatenate(part, axis=1) for part in found))


def _count(
    block: Any,
    codes: NDArray[np.int32],
    common: NDArray[np.float64],
    centre: NDArray[np.float64],
) -> Any:
    return count_unlike(on_host(block), codes, common, centre)


def _merge(parts: list[Unlike]) -> Unlike:
    total = parts[0]
    for part in parts[1:]:
        total = total.merge(part)
    return total
