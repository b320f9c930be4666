r"""The two passes over a matrix, in terms of the operations of its kind.

`moments` gathers cells in one read and merges them into batches:

    M_b = Σ_c M_c + Σ_c n_c (x̄_c - x̄_b)²,      C_b = Σ_c n_c (z_c - z̄_b)(x̄_c - x̄_b)

`apply` lays the frozen correction out per cell and writes r x + s.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from batchcorr.arrays.cells import Cells, order_of
from batchcorr.arrays.operations import (
    Maps,
    Sums,
    affine,
    has_infinite,
    operation,
    sums,
    sums_by_feature,
)
from batchcorr.errors import InputError
from batchcorr.models.moments import Moments

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from batchcorr.design.design import Design
    from batchcorr.models.location_scale import LocationScale
    from batchcorr.models.namespace import Matrix

__all__ = ["apply", "by_cell", "moments"]

TINY = 1e-290
"""Squares below it lose digits, as float64 ends at 1e-308."""


@operation
def moments(
    x: Matrix, design: Design, *, weights: NDArray[np.float64] | None = None
) -> Moments:
    """Read a matrix once and return its moments per batch and feature.

    Parameters
    ----------
    x
        Matrix of n rows and G features; NaN stands for a missing value.
    design
        Batch and columns of each row.
    weights
        None, or a weight for each row (n,) or value (n, G); values whose weight is not
        positive take no part.

    Returns
    -------
    Moments
        Shared by all features where nothing is missing or weighted, else by feature.

    Raises
    ------
    InputError
        For infinite values, or values whose squares overflow or underflow.

    Notes
    -----
    One read, float64 accumulation. Only when the sums come out as not finite, or with
    weights, is the matrix read again and every feature given its own statistics.
    """
    if weights is not None:
        return _by_feature(x, design, weights)
    cells = Cells.of(design)
    slopes = np.ascontiguousarray(design.centred[1][:, cells.sloped])
    with np.errstate(all="ignore"):  # what is not finite is told from its sums
        found = _merge_cells(design, cells, sums(x, cells, slopes))
        sizes = found.squares + found.n * found.mean**2
    if not (np.isfinite(sizes).all() and np.isfinite(found.cross).all()):
        return _by_feature(x, design, None)
    _check_sizes(found, sizes)
    return found


def _by_feature(
    x: Matrix, design: Design, weights: NDArray[np.float64] | None
) -> Moments:
    if has_infinite(x):
        msg = (
            "The data contain infinite values, which have no mean. Replace them, or "
            "mark them as missing (NaN). They often come from the logarithm of 0: add "
            "a prior count before taking logs."
        )
        raise InputError(msg)
    with np.errstate(over="ignore"):
        found: Moments = sums_by_feature(x, design, weights)
        sizes = found.squares + found.n * found.mean**2
    _check_sizes(found, sizes)
    return found


def _check_sizes(found: Moments, sizes: NDArray[np.float64]) -> None:
    """Refuse values whose squares are too large, or all too small, for float64."""
    if not np.isfinite(sizes).all():
        where = "some values exceed the range of float64 (1e308)"
    elif sizes.max(initial=0.0) < TINY * found.n.max(initial=0.0) and found.mean.any():
        where = "all values fall below the range of float64 (1e-308)"
    else:
        return
    msg = f"The squares of {where}: are these measurements? Rescale the data."
    raise InputError(msg)


def _merge_cells(design: Design, cells: Cells, found: Sums) -> Moments:
    """Turn sums per cell into moments per batch."""
    mean, (column_means, centred) = found.mean, design.centred
    n_batches, n_columns = design.n_batches, design.columns.shape[1]
    n = design.counts[:, None].astype(np.float64)
    full = np.zeros((n_batches, n_columns, mean.shape[1]))
    full[:, list(cells.sloped)] = found.cross
    gram = np.zeros((n_batches, n_columns, n_columns))
    if n_columns:
        order = order_of(design.codes, n_batches)
        for batch, rows in enumerate(np.split(order, np.cumsum(design.counts)[:-1])):
            gram[batch] = centred[rows].T @ centred[rows]
    own = Moments.of_values(cells.counts[:, None], mean, found.squares)
    whole = own
    if cells.flat:
        flat = list(cells.flat)
        whole = own.collapse(cells.batch.tolist(), n_batches)
        off = cells.values - column_means[cells.batch][:, flat]
        weighted, away = own.n * off, mean - whole.mean[cells.batch]
        bounds = np.searchsorted(cells.batch, np.arange(n_batches + 1))
        for batch, (start, stop) in enumerate(pairwise(bounds)):
            full[batch, flat] = weighted[start:stop].T @ away[start:stop]
    return replace(
        whole,
        rows=n,
        n=n,
        columns=column_means[:, :, None],
        cross=full,
        gram=gram[:, :, :, None],
    )


@operation
def apply(
    x: Matrix, design: Design, correction: LocationScale, *, out: Matrix | None = None
) -> Matrix:
    """Read a matrix once and write its corrected values.

    Parameters
    ----------
    x
        Matrix of n rows and G features.
    design
        Batch and columns of each row; the columns may be left out where the correction
        needs none.
    correction
        The frozen correction.
    out
        Where to write: `x` itself, another matrix, or None for a new one.

    Returns
    -------
    Corrected matrix in the dtype of `x`; dense, as zeros do not stay zeros.
    """
    cells = Cells.of(design)
    return affine(x, cells, by_cell(design, cells, correction), out)


def by_cell(design: Design, cells: Cells, correction: LocationScale) -> Maps:
    """A correction laid out for the passes."""
    added = correction.slopes(design.kept)
    shift = correction.shift[cells.batch]
    for column, values in zip(cells.flat, cells.values.T, strict=True):
        shift += values[:, None] * added[cells.batch, column]
    sloped = np.asarray(cells.sloped, dtype=np.intp)
    return Maps(
        np.ascontiguousarray(correction.scale),
        shift,
        np.ascontiguousarray(design.columns[:, sloped]),
        np.ascontiguousarray(added[:, sloped]),
    )
