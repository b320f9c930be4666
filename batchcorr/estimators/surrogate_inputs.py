"""What a search for surrogate variables is given: controls, replicates and values."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from batchcorr.arrays.sample_products import in_memory, products_with
from batchcorr.errors import InputError, TooLargeError, some
from batchcorr.estimators.densify import free_memory
from batchcorr.estimators.features import default_names
from batchcorr.estimators.surrogate_checks import IN_MEMORY

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from batchcorr.models.namespace import Matrix

    Floats = NDArray[np.float64]

__all__ = ["read_controls", "read_replicates", "values_of"]

FEWEST = 10
"""Features from which on a local false discovery rate can be estimated."""

HUGE = 1e150
"""Sums from which on squares exceed the range of float64; 1 / it: fall below."""


def read_controls(method: str, controls: object, n_features: int) -> Floats:
    """The weight of each feature as a control: (G,)."""
    if controls is None:
        return np.ones(n_features)
    try:
        values: Floats = np.asarray(controls, dtype=np.float64)
    except (TypeError, ValueError):
        values = np.empty(0)
    probability = method == "supervised"
    if values.shape != (n_features,) or not (
        ((values >= 0) & (values <= 1)).all()
        if probability
        else np.isin(values, (0, 1)).all()
    ):
        what = "probabilities from 0 to 1" if probability else "true or false"
        msg = f"controls must be {what}, one for each of {n_features} features."
        raise InputError(msg)
    if np.count_nonzero(values) < 2:
        msg = (
            f"controls have {np.count_nonzero(values)} features, but at least two are "
            "needed, and tens are better."
        )
        raise InputError(msg)
    return values


def read_replicates(replicates: object, n: int) -> list[list[int]]:
    """Rows of samples of one label, for all labels that two samples or more have."""
    if replicates is None:
        return []
    labels = pd.Series(np.asarray(replicates, dtype=object))
    if labels.shape != (n,):
        msg = f"replicates must have one label for each of {n} samples."
        raise InputError(msg)
    sets = [list(rows) for rows in labels.groupby(labels).indices.values()]
    sets = [rows for rows in sets if len(rows) > 1]
    if not sets:
        msg = (
            "No two samples have the same label in replicates, so that there are no "
            "replicates to compare."
        )
        raise InputError(msg)
    return sets


def values_of(x: Matrix, method: str, names: Sequence[str] | None) -> Matrix:
    """The matrix as the method reads it; missing values are refused by their names.

    Raises
    ------
    TooLargeError
        If single values are needed and there is no room for them.
    InputError
        If values are missing, infinite or huge, or too few features vary.
    """
    if method not in IN_MEMORY:
        sums = products_with(x, np.ones((x.shape[0], 1)))[:, 0]
        _require_finite(sums, names)
        return x
    size = 8 * x.shape[0] * (x.shape[1] + x.shape[0])
    if 3 * size > free_memory():
        msg = (
            f"{method} needs {x.shape[0]:,} × {x.shape[1]:,} values and the products "
            "of all samples in memory three times, and they do not fit: use fewer "
            "features or samples (pseudobulk sums per person), or ruvg, ruvs or ruvr, "
            "which need products only."
        )
        raise TooLargeError(msg)
    dense = in_memory(x)
    _require_finite(dense.sum(axis=0), names)
    varying = int((dense != dense[0]).any(axis=0).sum())
    if varying < FEWEST:
        msg = (
            f"Only {varying} features vary, but {method} needs at least {FEWEST}, and "
            "hundreds to be useful."
        )
        raise InputError(msg)
    return dense


def _require_finite(sums: Floats, names: Sequence[str] | None) -> None:
    bad = np.flatnonzero(~(np.abs(sums) < HUGE)).tolist()
    if bad:
        names = names or default_names(len(sums)).tolist()
        msg = (
            f"{len(bad)} features have missing, infinite or huge values "
            f"({some([names[k] for k in bad], 3)}): leave them out, or impute them."
        )
        raise InputError(msg)
    if 0 < np.abs(sums).max(initial=0.0) < 1 / HUGE:
        msg = (
            f"The values add up to {np.abs(sums).max():.0e} at most, too small to be "
            "squared: are these measurements? Rescale the data."
        )
        raise InputError(msg)
