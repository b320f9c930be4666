"""Tell counts, values that were only normalized, and logarithms apart, and warn.

A matrix is **not logged** if no value is negative, some reach 20, and any of these holds:

- all are whole numbers: raw counts;
- the largest is 20 times the median of the positive ones or more: CPM, TPM, RPKM and
  intensities have such a tail (60 to 2,000 times on real data), their logarithms do not
  (under 11 times wherever they reach 20 at all, which is the base-2 logarithm of a
  million);
- all samples have the same total, but not the same largest value: totals were normalized,
  and quantiles were not.

A part of the values, from samples all over the matrix, decides. Dask arrays are not read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from batchcorr.errors import CountsWarning, LogScaleWarning, warn
from batchcorr.estimators.matrix import is_sparse, on_device
from batchcorr.models.namespace import is_foreign, to_numpy

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from batchcorr.models.namespace import Matrix

__all__ = ["unlogged", "warn_if_unlogged", "warn_of_logs"]

SAMPLED = 200_000
"""Values looked at."""

LARGE = 20
"""Counts of a sequencer go beyond, logarithms of counts hardly reach it."""

TAIL = 20
"""Largest over median, from which on values were not logged."""

SAME = 1e-4
"""Relative differences between totals that are those of rounding."""


def unlogged(x: Matrix) -> Literal["counts", "normalized", ""]:
    """What values are that are no logarithms; "" if they may be.

    Examples
    --------
    >>> counts = np.random.default_rng(0).poisson(50, (4, 30))
    >>> unlogged(counts), unlogged(counts / 7), unlogged(np.log1p(counts))
    ('counts', '', '')
    >>> cpm = counts / counts.sum(axis=1, keepdims=True) * 1e6
    >>> unlogged(cpm), unlogged(np.log2(cpm + 1))
    ('normalized', '')
    """
    dense = isinstance(x, np.ndarray)
    sparse = not dense and is_sparse(x)
    if 0 in x.shape or not (sparse or dense or is_foreign(x)):
        return ""
    if sparse:
        rows = _part_of_sparse(x)
        values = to_numpy(rows.data)
    else:
        n = max(1, min(x.shape[0], SAMPLED // x.shape[1]))
        step = x.shape[0] // n
        rows = x[: n * step : step, :]
        rows = rows if dense else to_numpy(rows)
        values = rows[np.isfinite(rows)]
    positive = values[values > 0]
    if not positive.size or values.min() < 0 or positive.max() < LARGE:
        return ""
    if np.all(positive == np.floor(positive)):
        return "counts"
    if positive.max() >= TAIL * np.median(positive):
        return "normalized"
    if sparse and (x.format == "csc" or on_device(x)):
        return ""  # no whole samples are at hand
    return "normalized" if _equal_totals(rows, sparse=sparse) else ""


def _part_of_sparse(x: Matrix) -> Matrix:
    """Rows from all over the matrix; on a device the first ones, of CSC columns."""
    stored = max(x.nnz, 1)
    if x.format == "csc":
        return x[:, : max(1, SAMPLED * x.shape[1] // stored)]
    n = max(1, min(x.shape[0], SAMPLED * x.shape[0] // stored))
    return x[:n] if on_device(x) else x[:: x.shape[0] // n]


def _equal_totals(rows: Matrix, *, sparse: bool) -> bool:
    """Whether all samples have one total, but not one largest value."""
    totals = np.asarray(rows.sum(axis=1), dtype=np.float64).ravel()
    largest = rows.max(axis=1)
    largest = np.asarray(largest.todense() if sparse else largest).ravel()
    known = totals > 0  # neither empty nor with missing values
    if known.sum() < 3:
        return False
    return _same(totals[known]) and not _same(largest[known])


def _same(values: NDArray[np.floating]) -> bool:
    return bool(np.ptp(values) <= SAME * values.max())


def warn_if_unlogged(
    x: object, method: str, instead: str = ", or correct the counts with combat_seq"
) -> None:
    """Warn if a method for logarithms was given what are none; `instead` of taking them."""
    kind = unlogged(x)
    if kind == "counts":
        msg = (
            f"{method} expects values on a log scale, but these look like raw counts "
            "(whole numbers, some large). Batch effects on counts are multiplicative: "
            "take logarithms first, with batchcorr.pp.log_normalize or scanpy's "
            f"normalize_total and log1p{instead}."
        )
        warn(msg, CountsWarning)
    elif kind:
        msg = (
            f"{method} expects values on a log scale, but these look like normalized "
            "values (CPM, TPM, intensities) that were not log-transformed. Batch "
            "effects on such values are multiplicative: take logarithms first, with "
            "scanpy.pp.log1p or numpy.log2(X + 1)."
        )
        warn(msg, CountsWarning)


def warn_of_logs(largest: float, method: str) -> None:
    """Warn if a method for counts was given what look like logarithms, up to `largest`."""
    if largest:
        msg = (
            f"{method} expects raw counts, but these look like logarithms (fractions "
            f"up to {largest:.3g}). Logarithms of logarithms distort all differences: "
            "give the counts, which are often in layers['counts'] or raw."
        )
        warn(msg, LogScaleWarning)
