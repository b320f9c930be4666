r"""How well a correction keeps the differences between samples of the same batch.

Differences between samples of the same batch are biology and noise, not batch effects:
a correction should not change them. For each batch

    r_b = Σ (x - x̄_b)(y - ȳ_b) / √(Σ (x - x̄_b)² Σ (y - ȳ_b)²)

over its samples and all features, x before and y after. Linear removal has r_b = 1;
scaling features differently in different batches does not. If coordinates differ before
and after (embeddings), the inner products of samples are compared, with the correlation

    r_b = ‖XᵀY‖² / (‖XᵀX‖ ‖YᵀY‖)             X, Y centred within the batch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from batchcorr.design.labels import BatchLabels
from batchcorr.errors import InputError
from batchcorr.estimators.inputs import check_order
from batchcorr.estimators.matrix import as_matrix

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

__all__ = ["products_kept", "structure_kept", "values_kept"]

BLOCK = 1 << 22
"""Values of a matrix that are made dense at a time."""


def structure_kept(before: Any, after: Any, labels: Any) -> Floats:
    """Return the correlation of values before and after a correction, within batches.

    Parameters
    ----------
    before, after
        Samples × features, dense or sparse: (n, G). For embeddings with different
        coordinates, (n, k), inner products of samples are compared.
    labels
        Batch of each sample: (n,).

    Returns
    -------
    One correlation per batch, in the sorted order of labels: (B,). 1 if only the means
    of the batch changed; NaN if nothing varies within the batch.

    Raises
    ------
    DesignError
        If labels are missing.
    InputError
        If shapes do not match.

    Notes
    -----
    Reads both matrices once; sparse matrices are made dense a few rows at a time.

    Examples
    --------
    >>> x = np.random.default_rng(0).normal(size=(6, 40))
    >>> batch = [0, 0, 0, 1, 1, 1]
    >>> structure_kept(x, x + np.array(batch)[:, None], batch).round(9).tolist()
    [1.0, 1.0]
    """
    check_order(before, after=after, labels=labels)
    before, after = as_matrix(before), as_matrix(after)
    if after.shape[0] != before.shape[0]:
        msg = (
            f"before has shape {before.shape} and after {after.shape}: rows must be "
            "the same samples."
        )
        raise InputError(msg)
    codes = BatchLabels.factorize(labels, name="labels", n_rows=before.shape[0])[1]
    if before.shape == after.shape:
        return values_kept(before, after, codes)
    every = slice(None)
    return products_kept(_dense(before, every), _dense(after, every), codes)


def values_kept(before: Any, after: object, codes: NDArray[np.generic]) -> Floats:
    """The correlation of values in each batch; features with missing ones left out."""
    found = []
    for batch in range(int(codes.max()) + 1):
        rows = np.flatnonzero(codes == batch)
        means = [_mean(matrix, rows) for matrix in (before, after)]
        products = np.zeros(3)
        known = np.isfinite(means[0]) & np.isfinite(means[1])
        for some in _blocks(rows, before.shape[1]):
            x = (_dense(before, some) - means[0])[:, known]
            y = (_dense(after, some) - means[1])[:, known]
            products += [np.vdot(x, y), np.vdot(x, x), np.vdot(y, y)]
        found.append(_ratio(*products))
    return np.array(found)


def products_kept(before: Floats, after: Floats, codes: NDArray[np.generic]) -> Floats:
    """The correlation of inner products of the samples of each batch."""
    found = []
    for batch in range(int(codes.max()) + 1):
        x, y = before[codes == batch], after[codes == batch]
        if not len(x):
            found.append(np.nan)
            continue
        x, y = x - x.mean(axis=0), y - y.mean(axis=0)
        xy, xx, yy = (np.sum((a.T @ b) ** 2) for a, b in ((x, y), (x, x), (y, y)))
        found.append(_ratio(xy, xx, yy))
    return np.array(found)


def _ratio(xy: float, xx: float, yy: float) -> float:
    scale = np.sqrt(xx) * np.sqrt(yy)
    return float(xy / scale) if scale > 0 else float("nan")


def _mean(matrix: Any, rows: NDArray[np.intp]) -> Floats:
    total = np.zeros(matrix.shape[1])
    for some in _blocks(rows, matrix.shape[1]):
        total += _dense(matrix, some).sum(axis=0)
    return total / max(len(rows), 1)


def _blocks(rows: NDArray[np.intp], width: int) -> Iterator[NDArray[np.intp]]:
    step = max(1, BLOCK // max(width, 1))
    for start in range(0, len(rows), step):
        yield rows[start : start + step]


def _dense(matrix: Any, rows: NDArray[np.intp] | slice) -> Floats:
    part = matrix[rows]
    part = part.compute() if hasattr(part, "compute") else part
    part = part.toarray() if hasattr(part, "toarray") else part
    values: Floats = np.asarray(part, dtype=np.float64)
    return values
