"""The distinct labels of a column of any type, as plain Python values.

Levels are text, numbers or true and false, so that they can be compared across data
types and written as JSON. What pandas reads as missing in a file is missing here too.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from math import isfinite
from numbers import Integral, Real
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from batchcorr.design.levels import Level, keys
from batchcorr.errors import DesignError, InputError, some

__all__ = ["Distinct", "declared", "distinct", "is_missing", "named"]

MISSING = frozenset(
    ["", "<NA>", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null", "-NaN", "-nan",
     "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "1.#IND", "1.#QNAN"]
)  # fmt: skip
"""The texts that `pandas.read_csv` reads as missing."""


class Distinct(NamedTuple):
    """The labels of n rows.

    Attributes
    ----------
    codes
        Place of each row's label among the values: (n,).
    values
        Each label once, those that occur.
    ordered
        Whether they have an order of their own: that of categories.
    """

    codes: npt.NDArray[np.int32]
    values: list[Level]
    ordered: bool


def distinct(
    labels: object, name: str, n_rows: int | None, known: Collection[Level] = ()
) -> Distinct:
    """The distinct labels of some rows.

    Parameters
    ----------
    known
        Levels declared before: texts that would be missing are labels if among these.

    Raises
    ------
    DesignError
        If labels are missing, or true and false stand among numbers.
    InputError
        If these are not one label per row.
    """
    series = _series(labels, name)
    if n_rows is not None and len(series) != n_rows:
        msg = (
            f"{name} has {len(series)} labels for {n_rows} rows. Rows are samples: "
            "transpose the matrix if its samples are columns."
        )
        raise InputError(msg)
    ordered = isinstance(series.dtype, pd.CategoricalDtype)
    try:
        if ordered:
            codes, values = series.cat.codes.to_numpy(), series.cat.categories.tolist()
        else:
            codes, unique = pd.factorize(series)
            values = unique.tolist()
            _refuse_booleans_among_numbers(series, name)
    except TypeError as error:
        msg = f"{name} must hold one label per row, not lists or other containers."
        raise InputError(msg) from error
    marks = [at for at, value in enumerate(values) if _is_mark(value, known)]
    missing = np.flatnonzero((codes < 0) | np.isin(codes, marks))
    if missing.size:
        used = [repr(values[at]) for at in marks if (codes == at).any()]
        read = f"{some(used)} is read as missing. " if used else ""
        msg = (
            f"{name} is missing for {missing.size} of {len(series)} samples "
            f"({named(series.index, missing)}). {read}Label these samples or drop them."
        )
        raise DesignError(msg)
    # Categories need not occur, and different values may be the same as text.
    table = np.full(len(values), -1, np.int32)
    seen: dict[tuple[bool, Level], int] = {}
    found: list[Level] = []
    places = np.flatnonzero(np.bincount(codes, minlength=len(values)))
    levels = [_plain(values[place], name) for place in places]
    for place, level, same in zip(places, levels, keys(levels), strict=True):
        found += [level] * (same not in seen)
        table[place] = seen.setdefault(same, len(seen))
    return Distinct(table[codes], found, ordered)


def named(index: pd.Index, rows: npt.NDArray[Any]) -> str:
    """The first few of some rows: by the names of the samples if they have names."""
    if isinstance(index, pd.RangeIndex) or pd.api.types.is_numeric_dtype(index.dtype):
        return f"row{'s' * (len(rows) > 1)} {some(rows)}"
    return some(index[rows])


def _plain(value: object, name: str) -> Level:
    """A label as a plain Python value; what is no value becomes its text."""
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, Integral) and not isinstance(value, np.timedelta64):
        return int(value)
    if isinstance(value, float | np.floating):
        if not isfinite(value):
            msg = f"{name} has the label {value}, which is not a label."
            raise DesignError(msg)
        return float(value)
    return str(value)


def declared(levels: Iterable[object], name: str) -> tuple[Level, ...]:
    """Declared levels as plain values, in the order given."""
    series = _series(levels, f"levels of {name}")
    given = [_plain(level, name) for level in series.tolist() if not pd.isna(level)]
    if not given or len(given) < len(series) or len({*keys(given)}) < len(given):
        msg = (
            f"The levels of {name} must be at least one label, all different and none "
            f"missing, not {some(map(repr, series.tolist()), 20)}."
        )
        raise InputError(msg)
    return tuple(given)


def _series(labels: Any, name: str) -> pd.Series:
    """The labels as a Series, their types and names untouched."""
    if isinstance(labels, str | bytes | Mapping) or not np.iterable(labels):
        msg = (
            f"{name} must be one label per row (a Series, an array, a list), not "
            f"{labels!r:.60} of type {type(labels).__name__}."
        )
        raise InputError(msg)
    if not isinstance(labels, pd.Series | pd.Index | pd.Categorical | list | tuple):
        has_array = hasattr(labels, "dtype") or hasattr(labels, "__array__")
        labels = labels if has_array else list(labels)
    shape = getattr(labels, "shape", None)
    if shape is None:
        first = labels[0] if len(labels) else None
        inner = (len(first),) if isinstance(first, list | tuple | np.ndarray) else ()
        shape = (len(labels), *inner)
    if len(shape) != 1:
        msg = f"{name} must be one label per row, not of shape {tuple(shape)}."
        raise InputError(msg)
    if isinstance(labels, pd.Series):
        return labels
    if not isinstance(labels, pd.Index | pd.Categorical | list | tuple):
        extension = isinstance(labels, pd.api.extensions.ExtensionArray)
        labels = labels if extension else np.asanyarray(labels)
    return pd.Series(labels).reset_index(drop=True)


def is_missing(value: object) -> bool:
    """Whether a text stands for a missing label."""
    return _is_mark(value, ())


def _is_mark(value: object, known: Collection[Level]) -> bool:
    """Whether a label is a text that stands for a missing one."""
    text = value.decode(errors="replace") if isinstance(value, bytes) else value
    return isinstance(text, str) and text.strip() in MISSING and text not in known


def _refuse_booleans_among_numbers(series: pd.Series, name: str) -> None:
    """Refuse a column in which True may be 1, or not: Python holds them equal."""
    if series.dtype != object:
        return
    if not pd.api.types.infer_dtype(series, skipna=True).startswith("mixed"):
        return
    booleans = [isinstance(value, bool | np.bool_) for value in series]
    numbers = (
        isinstance(value, Real) and value == value  # noqa: PLR0124 - NaN is missing
        for value, boolean in zip(series, booleans, strict=True)
        if not boolean
    )
    if any(booleans) and any(numbers):
        msg = (
            f"{name} contains both numbers and true or false, which may mean 1 and 0: "
            "use only one of them."
        )
        raise DesignError(msg)
