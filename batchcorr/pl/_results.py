"""Tables of tests, as `tl.differential` makes them: their columns by contrast."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from batchcorr.errors import InputError, MissingKeyError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

__all__ = ["by_evidence", "column_for", "known_p_values", "named_p_values"]


def column_for(table: object, names: Sequence[str], contrast: str | None) -> str:
    """The first of these columns that a table of tests has, of one contrast.

    Raises
    ------
    MissingKeyError
        If it has none; the message names the contrasts there are.
    """
    if not isinstance(table, pd.DataFrame):
        msg = (
            "table must be a result of batchcorr.tl.differential, not a "
            f"{type(table).__name__}."
        )
        raise InputError(msg)
    suffix = "" if contrast is None else f"[{contrast}]"
    for name in names:
        if f"{name}{suffix}" in table.columns:
            return f"{name}{suffix}"
    start = f"{names[-1]}["
    others = [
        c[len(start) : -1] for c in map(str, table.columns) if c.startswith(start)
    ]
    if others:
        msg = (
            "The table has several contrasts: name one with contrast=. "
            f"{did_you_mean(contrast or '', others)}"
        )
    else:
        msg = (
            f"The table has no column {names[-1] + suffix!r}. "
            f"{did_you_mean(names[-1], table.columns)}"
        )
    raise MissingKeyError(msg)


def by_evidence(p: Floats, statistic: Floats) -> NDArray[np.intp]:
    """The places of features by p, smallest first; where p is the same (0), by size."""
    return np.lexsort((-np.abs(statistic), p))


def known_p_values(values: object) -> Floats:
    """The p-values that are known, from 0 to 1: (G,).

    Raises
    ------
    InputError
        If they are no p-values, or none is known.
    """
    try:
        p = np.asarray(values, dtype=np.float64).ravel()
    except (TypeError, ValueError):
        msg = f"p_values must be numbers from 0 to 1, not {values!r:.60}."
        raise InputError(msg) from None
    p = p[~np.isnan(p)]
    if not p.size:
        msg = "p_values has no p-values: all are missing."
        raise InputError(msg)
    wrong = p[(p < 0) | (p > 1)]
    if wrong.size:
        msg = f"p_values must lie between 0 and 1, but one is {wrong[0]:g}."
        raise InputError(msg)
    return p


def named_p_values(given: object, contrast: str | None = None) -> dict[str, Floats]:
    """p-values by name: of a table, of an array, or of several under their names."""
    if isinstance(given, Mapping):
        return {
            str(name): one
            for name, values in given.items()
            for one in named_p_values(values, contrast).values()
        }
    if isinstance(given, pd.DataFrame):
        given = given[column_for(given, ["p_value"], contrast)]
    return {"p": known_p_values(given)}
