"""Labels of samples as levels and codes: `level[code[i]]` is the label of row i.

Batches and categorical covariates are both kept this way. The levels are plain
Python values, so that they can be compared across data types and written as JSON:
a batch called `1` in one file and `"1"` in the next is the same batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import isfinite
from numbers import Integral, Real
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd

from batchcorr.errors import DesignError, InputError, UnknownBatchError, some

__all__ = ["BatchLabels", "Level"]

Level: TypeAlias = str | int | float | bool


@dataclass(frozen=True)
class BatchLabels:
    """The distinct labels of one column, in the order of their codes.

    Parameters
    ----------
    levels
        The distinct labels.
    name
        What the labels are called in messages.

    Examples
    --------
    >>> labels = BatchLabels.learn(["b", "a", "b"])
    >>> labels.levels
    ('a', 'b')
    >>> labels.codes(["a", "b"])
    array([0, 1], dtype=int32)
    """

    levels: tuple[Level, ...]
    name: str = "batch"

    @classmethod
    def learn(
        cls,
        labels: Any,
        *,
        name: str = "batch",
        levels: Iterable[Any] | None = None,
        n_rows: int | None = None,
    ) -> BatchLabels:
        """Find the levels of some labels.

        Categories keep their order, and those that do not occur are dropped. Other
        labels are sorted: numbers by value, strings by text, a mixture by the name
        of the type and then by text.

        Parameters
        ----------
        labels
            One label per row: a Series or Categorical of any type, an array, a list.
        name
            What the labels are called in messages.
        levels
            The levels, declared instead of found; they need not all occur.
        n_rows
            How many labels there must be.

        Raises
        ------
        DesignError
            If labels are missing, or lie outside the declared levels.
        InputError
            If these are not one label per row.

        Examples
        --------
        >>> BatchLabels.learn([10, 9, 10]).levels
        (9, 10)
        >>> BatchLabels.learn(["b"], levels=["b", "a"]).levels
        ('b', 'a')
        """
        _, found, ordered = _factorize(labels, name, n_rows)
        if levels is not None:
            declared = cls(_declared(levels, name), name)
            _, unseen = declared._match(found)
            if unseen:
                msg = (
                    f"{name} has labels outside the declared levels: {some(map(repr, unseen))}. "
                    f"Declared: {some(map(repr, declared.levels), 20)}. Declare every label "
                    "that will occur."
                )
                raise DesignError(msg)
            return declared
        return cls(tuple(found if ordered else sorted(found, key=_order(found))), name)

    def codes(
        self,
        labels: Any,
        *,
        n_rows: int | None = None,
        unknown: type[DesignError] = UnknownBatchError,
    ) -> npt.NDArray[np.int32]:
        """Return the code of each label: its position among the levels.

        A label is matched exactly, and else as text where this is unambiguous: `1`,
        `1.0` and `"1"` are the same batch unless two of them are levels.

        Parameters
        ----------
        labels
            One label per row, as in `learn`.
        n_rows
            How many labels there must be.
        unknown
            The error for a label that is not among the levels.

        Raises
        ------
        UnknownBatchError
            If a label is not among the levels (or the error given as `unknown`).

        Examples
        --------
        >>> BatchLabels((1, 2)).codes(["2", "1"])
        array([1, 0], dtype=int32)
        """
        codes, found, _ = _factorize(labels, self.name, n_rows)
        table, unseen = self._match(found)
        if not unseen:
            return table[codes]
        msg = (
            f"{self.name} has labels never seen by fit: {some(map(repr, unseen))}. "
            f"Known: {some(map(repr, self.levels), 20)}. "
        )
        if issubclass(unknown, UnknownBatchError):
            msg += (
                "Refit with these samples, or learn the new batches against the "
                "frozen model with `est.add_batches(X, batch=…)`."
            )
        else:
            msg += "Refit with samples of every level, or leave these samples out."
        raise unknown(msg)

    def to_json(self) -> dict[str, Any]:
        """Return plain values that `from_json` reads.

        Examples
        --------
        >>> BatchLabels(("a", "b")).to_json()
        {'name': 'batch', 'levels': ['a', 'b']}
        """
        return {"name": self.name, "levels": list(self.levels)}

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> BatchLabels:
        """Read what `to_json` wrote, and check it.

        Examples
        --------
        >>> BatchLabels.from_json({"name": "batch", "levels": ["a", 2]}).levels
        ('a', 2)
        """
        name, levels = saved.get("name"), saved.get("levels")
        plain = (str, int, float, bool)
        if not isinstance(name, str) or not isinstance(levels, list):
            msg = f"Saved labels need a name and a list of levels, not {saved!r}."
            raise InputError(msg)
        if not all(isinstance(level, plain) for level in levels):
            msg = f"Saved levels of {name} must be text, numbers or true and false."
            raise InputError(msg)
        return cls(_declared(levels, name), name)

    def _match(self, found: list[Level]) -> tuple[npt.NDArray[np.int32], list[Level]]:
        """Return the code of each found label (-1: none), and those without."""
        exact = {_key(level): code for code, level in enumerate(self.levels)}
        texts: dict[str, set[int]] = {}
        for code, level in enumerate(self.levels):
            for text in _texts(level):
                texts.setdefault(text, set()).add(code)
        table = np.array([exact.get(_key(label), -1) for label in found], np.int32)
        guesses: dict[int, list[int]] = {}
        for place in np.flatnonzero(table < 0):
            same = set().union(*(texts.get(text, ()) for text in _texts(found[place])))
            if len(same) == 1:
                guesses.setdefault(same.pop(), []).append(int(place))
        taken = set(table.tolist())
        for code, places in guesses.items():
            if len(places) == 1 and code not in taken:
                table[places[0]] = code
        unseen = [found[place] for place in np.flatnonzero(table < 0)]
        return table, unseen


def _factorize(
    labels: Any, name: str, n_rows: int | None
) -> tuple[npt.NDArray[np.int32], list[Level], bool]:
    """Return the code of each row, the label of each code, and if they have an order."""
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
    except TypeError as error:
        msg = f"{name} must hold one label per row, not lists or other containers."
        raise InputError(msg) from error
    missing = np.flatnonzero(codes < 0)
    if missing.size:
        msg = (
            f"{name} is missing for {missing.size} of {len(series)} samples (rows "
            f"{some(missing)}). Label these samples or drop them."
        )
        raise DesignError(msg)
    # Categories need not occur, and different values may be the same as text.
    table = np.full(len(values), -1, np.int32)
    seen: dict[tuple[bool, Level], int] = {}
    found: list[Level] = []
    for place in np.flatnonzero(np.bincount(codes, minlength=len(values))):
        level = _plain(values[place], name)
        found += [level] * (_key(level) not in seen)
        table[place] = seen.setdefault(_key(level), len(seen))
    return table[codes], found, ordered


def _series(labels: Any, name: str) -> pd.Series[Any]:
    """Return the labels as a Series, their types untouched."""
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
    if not isinstance(labels, pd.Series | pd.Index | pd.Categorical | list | tuple):
        extension = isinstance(labels, pd.api.extensions.ExtensionArray)
        labels = labels if extension else np.asanyarray(labels)
    return pd.Series(labels).reset_index(drop=True)


def _plain(value: Any, name: str) -> Level:
    """Return a label as a plain Python value; what is no value becomes its text."""
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


def _declared(levels: Iterable[Any], name: str) -> tuple[Level, ...]:
    """Return declared levels as plain values, in the order given."""
    series = _series(levels, f"levels of {name}")
    given = [_plain(level, name) for level in series.tolist() if not pd.isna(level)]
    if not given or len(given) < len(series) or len({*map(_key, given)}) < len(given):
        msg = (
            f"The levels of {name} must be at least one label, each once and none "
            f"missing, not {some(map(repr, series.tolist()), 20)}."
        )
        raise InputError(msg)
    return tuple(given)


def _key(level: Level) -> tuple[bool, Level]:
    """Return what makes a level distinct: `1` is `1.0` but is not `True`."""
    return isinstance(level, bool), level


def _texts(level: Level) -> set[str]:
    """Return the texts under which a level may be written elsewhere."""
    if isinstance(level, str | bool) or level != int(level):
        return {str(level)}
    return {str(int(level)), f"{int(level)}.0"}


def _order(levels: list[Level]) -> Any:
    """Return the key that sorts these levels; None if they sort by themselves."""
    for kind in (Real, str):
        if all(isinstance(level, kind) for level in levels):
            return None
    return lambda level: (type(level).__name__, str(level))
