"""A few values of a matrix, or names, by which it is known again without a look at all."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

from batchcorr.estimators.matrix import is_sparse, on_device

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from batchcorr.models.namespace import Matrix

__all__ = ["digest_of", "digest_of_names", "digests", "sample"]

SAMPLED = 64
"""Values of a matrix by which it is known again."""

CHANGED = 8
"""Of these, how many a step must change for the values before it to be known again."""


def sample(x: Matrix) -> NDArray[np.float64] | None:
    """A few values of a matrix in memory, from all over it; None of any other."""
    sparse = is_sparse(x) and not on_device(x)
    whole = sparse and x.nnz == x.shape[0] * x.shape[1]
    if whole or isinstance(x, np.ndarray):
        if 0 in x.shape or x.dtype.kind not in "biuf":
            return None
        rows = np.linspace(0, x.shape[0] - 1, SAMPLED).astype(np.intp)
        columns = np.arange(SAMPLED) * 0.6180339887 % 1 * x.shape[1]
        values = np.asarray(x[rows, columns.astype(np.intp)]).ravel()
        return np.append(values.astype(np.float64), x.shape)
    if not is_sparse(x):
        return None
    places = np.linspace(0, max(x.nnz - 1, 0), SAMPLED).astype(np.intp)
    values = x.data[places] if x.nnz else np.zeros(0)
    return np.append(values.astype(np.float64), [x.nnz, *x.shape])


def digest_of(x: Matrix) -> str | None:
    """A short text that differs where sampled values do; None where none can be had."""
    values = sample(x)
    return None if values is None else _digest(values)


def digest_of_names(*indices: pd.Index) -> str:
    """A short text that differs where names or their order do, by a few of each index."""
    texts = [str(len(names)) for names in indices]
    for names in indices:
        places = np.linspace(0, max(len(names) - 1, 0), SAMPLED).astype(np.intp)
        texts += map(str, names[places[: len(names)]])
    return hashlib.blake2b("\n".join(texts).encode(), digest_size=8).hexdigest()


def digests(
    before: NDArray[np.float64] | None, result: Matrix
) -> tuple[str | None, str | None]:
    """What a step's values are known by, `before` it and after; None where they are not.

    It must have changed enough of the sampled values for the old ones to be known again.
    """
    after = sample(result)
    if before is None or not _changed(before, after):
        return None, None
    return _digest(before), None if after is None else _digest(after)


def _changed(before: NDArray[np.float64], after: NDArray[np.float64] | None) -> bool:
    if after is None or len(before) != len(after):
        return True
    missing = np.isnan(before) & np.isnan(after)
    return int(np.sum((before != after) & ~missing)) >= CHANGED


def _digest(values: NDArray[np.float64]) -> str:
    with np.errstate(all="ignore"):  # copies in float32 are known again
        narrow = values.astype(np.float32)
    return hashlib.blake2b(narrow.tobytes(), digest_size=8).hexdigest()
