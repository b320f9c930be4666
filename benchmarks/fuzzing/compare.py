"""Whether a result is the reference's, and whether an error was due."""

from __future__ import annotations

import sys

import numpy as np

from batchcorr.errors import BatchCorrError
from fuzzing.reference import Refused

CLOSE = {4: 2e-5, 8: 1e-8}
"""Largest difference, relative to the feature's values, by the size of the float."""


class Fault(Exception):
    """What should not be."""


class Skipped(Exception):
    """There is nothing to compare with: the reference's answer is a matter of rounding."""


def as_numpy(y):
    y = y.compute() if hasattr(y, "compute") else y
    y = y.toarray() if hasattr(y, "toarray") else y
    return np.array(y.filled(np.nan) if isinstance(y, np.ma.MaskedArray) else y)


def compare(y, expected, x, fit, usable, dtype):
    """Refuse what is not the reference's."""
    if y.dtype != dtype:
        raise Fault(f"dtype {y.dtype}, not {dtype}")
    if y.shape != expected.shape:
        raise Fault(f"shape {y.shape}, not {expected.shape}")
    if not np.array_equal(np.isnan(y), np.isnan(x)) or np.isinf(y).any():
        raise Fault("values became missing or infinite")
    left = ~usable
    if not np.array_equal(y[:, left], x[:, left].astype(dtype), equal_nan=True):
        raise Fault("features that cannot be corrected were changed")
    x0, y0 = np.nan_to_num(x), np.nan_to_num(expected)
    size = np.abs(x0).max(axis=0) + np.abs(y0).max(axis=0)
    gain = np.ones(x.shape[1])
    for k in range(fit.codes.max() + 1):
        rows = fit.codes == k
        gap = np.ptp(x0[rows], axis=0)
        gain = np.maximum(
            gain, np.ptp(y0[rows], axis=0) / np.where(gap > 0, gap, np.inf)
        )
    error = np.abs(np.nan_to_num(y.astype(float)) - y0) / (size * gain + 1e-300)
    if error.max(initial=0) > CLOSE[dtype.itemsize]:
        at = tuple(map(int, np.unravel_index(error.argmax(), error.shape)))
        text = f"{error.max():.1e} off at {at}: {y[at]!r}, not {expected[at]!r}"
        raise Fault(f"{text} (was {x[at]!r})")


def match(y, expected, dtype):
    y = np.asarray(y, dtype=float)
    size = np.nanmax(np.abs(expected), initial=1e-300)
    if not np.array_equal(np.isnan(y), np.isnan(expected)):
        raise Fault("missing where the reference is not, or the other way round")
    error = np.nanmax(np.abs(y - expected), initial=0) / size
    if error > CLOSE[np.dtype(dtype).itemsize]:
        raise Fault(f"{error:.1e} off")


def settle(expected, inputs):
    """Note on an error in flight whether it was due: with a right answer it was not."""
    error = sys.exc_info()[1]
    if isinstance(error, BatchCorrError):
        due = isinstance(expected, Refused) or inputs.may
        error.due, error.traits = due, inputs.traits
