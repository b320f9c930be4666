r"""Products of a corrected Dask array: each block multiplied where it is, results summed.

    Cᵀ C V = Σ_blocks C_kᵀ C_k V,    Cᵀ C = Σ_blocks C_kᵀ C_k

Only V goes to the workers, and only results of its size come back, through a tree. Every
product computes the blocks once: keep those that are dear to read in the workers' memory
(``x.persist()``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
from dask.delayed import delayed

from batchcorr.arrays.dask_passes import merge_tree, slices_of
from batchcorr.arrays.products import gram, gram_times, times, transposed_times

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from batchcorr.design.design import Design
    from batchcorr.models.location_scale import LocationScale
    from batchcorr.models.namespace import Matrix


def _blocks(x: Matrix, design: Design) -> Iterator[tuple[Matrix, Design, slice]]:
    """Give each block of whole rows, and what is known of them."""
    whole = x.rechunk({1: -1})
    slices = slices_of(whole.chunks[0])
    for block, rows in zip(whole.to_delayed()[:, 0], slices, strict=True):
        if rows.stop > rows.start:  # filtering leaves empty blocks
            yield block, design.take(rows), rows


def _times(
    x: Matrix, design: Design, correction: LocationScale, right: NDArray[np.generic]
) -> NDArray[Any]:
    task = delayed(_in_block, pure=False)
    shared = delayed(correction), delayed(right)
    parts = [task(times, block, own, *shared) for block, own, _ in _blocks(x, design)]
    return np.concatenate(da.compute(*parts))


def _transposed_times(
    x: Matrix, design: Design, correction: LocationScale, left: NDArray[np.generic]
) -> NDArray[np.float64]:
    task, shared = delayed(_in_block, pure=False), delayed(correction)
    return _summed(
        [
            task(transposed_times, block, own, shared, left[rows])
            for block, own, rows in _blocks(x, design)
        ]
    )


def _gram_times(
    x: Matrix, design: Design, correction: LocationScale, right: NDArray[np.generic]
) -> NDArray[np.float64]:
    task = delayed(_in_block, pure=False)
    shared = delayed(correction), delayed(right)
    return _summed(
        [task(gram_times, block, own, *shared) for block, own, _ in _blocks(x, design)]
    )


def _gram(x: Matrix, design: Design, correction: LocationScale) -> NDArray[np.float64]:
    task, shared = delayed(_in_block, pure=False), delayed(correction)
    return _summed(
        [task(gram, block, own, shared) for block, own, _ in _blocks(x, design)]
    )


def _in_block(product: Callable[..., Any], *args: object) -> Any:
    return product(*args)


def _summed(parts: list[Any]) -> NDArray[np.float64]:
    """Add up results through a tree, so that nobody holds many."""
    total: NDArray[np.float64] = da.compute(merge_tree(parts, sum))[0]
    return total


times.register(da.Array, _times)
transposed_times.register(da.Array, _transposed_times)
gram.register(da.Array, _gram)
gram_times.register(da.Array, _gram_times)
