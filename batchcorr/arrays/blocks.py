"""Work through the rows of a matrix in blocks that stay in cache, on all threads.

NumPy's ufuncs release the interpreter and use the processor's vector units, so that a
block that is worked on in several steps costs little more than reading it once.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

from batchcorr._numba import threads

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from numpy.typing import NDArray

    from batchcorr.models.namespace import Matrix

__all__ = ["BLOCK", "cuts", "dense_rows", "in_threads", "row_blocks"]

BLOCK = 1 << 17
"""Values in a block: a megabyte at most, which a core's own cache holds."""


def in_threads(work: Callable[[Any], None], blocks: Iterable[object]) -> None:
    """Do some work on every block, on as many threads as the caller may use.

    Every thread takes the next block until none is left: whoever has begun finishes, so
    that an interrupt from the keyboard does not leave a matrix half written.
    """
    todo = deque(blocks)

    def worker() -> None:
        while True:
            try:
                block = todo.popleft()
            except IndexError:
                return
            work(block)

    n = min(threads(), len(todo))
    if n < 2:
        worker()
        return
    with ThreadPoolExecutor(n) as pool:
        for done in [pool.submit(worker) for _ in range(n)]:
            done.result()


def cuts(indptr: NDArray[np.generic]) -> Iterator[slice]:
    """Cut rows (or columns) that store `indptr` values into blocks of about `BLOCK`."""
    n = len(indptr) - 1
    inner = np.searchsorted(indptr, np.arange(BLOCK, max(indptr[-1], 1), BLOCK))
    bounds = np.unique(np.concatenate([[0], np.minimum(inner, n), [n]]))
    for start, stop in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        yield slice(start, stop)


def row_blocks(shape: tuple[int, int], size: int = BLOCK) -> Iterator[slice]:
    """Cut the rows of a dense matrix into blocks of about `size` values."""
    step = max(1, size // max(shape[1], 1))
    for start in range(0, shape[0], step):
        yield slice(start, min(start + step, shape[0]))


def dense_rows(x: Matrix, rows: slice | NDArray[np.intp]) -> NDArray[np.float64]:
    """Return some rows of a NumPy or SciPy matrix as a new dense array in float64."""
    block = x[rows]
    if hasattr(block, "toarray"):
        block = block.toarray()
    return np.array(block, dtype=np.float64, order="C")
