"""What is given as covariates: a table of variables, or an array of numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd

from batchcorr.design.labels import BatchLabels, Level
from batchcorr.errors import (
    CovariateWarning,
    DesignError,
    InputError,
    MissingKeyError,
    did_you_mean,
    some,
    warn,
)

__all__ = ["Table", "Variable", "is_array", "read_array", "read_table", "require"]

Floats: TypeAlias = npt.NDArray[np.float64]
Table: TypeAlias = Mapping[str, "pd.Series[Any]"]
FEW_VALUES = 5


@dataclass(frozen=True)
class Variable:
    """One column of a table, as learned: numbers, or labels with known levels.

    Attributes
    ----------
    column
        The name of the column.
    labels
        Its levels; None if the column holds numbers.
    """

    column: str
    labels: BatchLabels | None = None

    @property
    def levels(self) -> tuple[Level, ...] | None:
        """The levels; None if the column holds numbers."""
        return None if self.labels is None else self.labels.levels

    @classmethod
    def learn(
        cls,
        values: pd.Series[Any],
        column: str,
        *,
        role: str = "covariate",
        levels: Iterable[Any] | None = None,
        category: bool = False,
        quiet: bool = False,
    ) -> Variable:
        """Decide what a column holds, and refuse what cannot be a covariate.

        Parameters
        ----------
        values
            The column.
        column
            Its name.
        role
            What the column is called in messages.
        levels
            Levels declared in advance: the column then holds labels.
        category
            Whether numbers are meant as labels.
        quiet
            Whether to say nothing of numbers that look like labels.

        Warns
        -----
        CovariateWarning
            If numbers look like labels: few different values, all of them integers.

        Examples
        --------
        >>> Variable.learn(pd.Series(["b", "a", "b"]), "sex").labels.levels
        ('a', 'b')
        """
        name = f"{role} {column!r}"
        if levels is None and not category and not _holds_labels(values, name):
            numbers = _numbers(values, name)
            if not quiet:
                _warn_few_values(numbers, name)
            return cls(column)
        labels = BatchLabels.learn(values, name=name, levels=levels)
        if levels is None and not category:
            _refuse_identifier(values, labels)
        return cls(column, labels)

    def encode(
        self, values: pd.Series[Any], role: str = "covariate"
    ) -> npt.NDArray[Any]:
        """Return the values as float64, or the codes of the labels as int32.

        Parameters
        ----------
        values
            The column.
        role
            What the column is called in messages.

        Examples
        --------
        >>> Variable("sex", BatchLabels(("a", "b"))).encode(pd.Series(["b", "a"]))
        array([1, 0], dtype=int32)
        """
        if self.labels is not None:
            return self.labels.codes(values, unknown=DesignError)
        name = f"{role} {self.column!r}"
        if _holds_labels(values, name):
            msg = f"{name} held numbers when it was learned and now holds labels."
            raise DesignError(msg)
        return _numbers(values, name)

    def to_json(self) -> dict[str, Any]:
        """Return plain values that `from_json` reads."""
        labels = None if self.labels is None else self.labels.to_json()
        return {"column": self.column, "labels": labels}

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> Variable:
        """Read what `to_json` wrote.

        Parameters
        ----------
        saved
            The values.
        """
        labels = saved["labels"]
        known = None if labels is None else BatchLabels.from_json(labels)
        return cls(str(saved["column"]), known)


def is_array(covariates: Any, role: str) -> bool:
    """Return whether these are design columns; refuse what cannot be covariates.

    Parameters
    ----------
    covariates
        What is given.
    role
        What it is called in messages.
    """
    if isinstance(covariates, pd.DataFrame | pd.Series):
        return False
    if isinstance(covariates, str | Mapping) or not np.iterable(covariates):
        msg = (
            f"{role}s must be a DataFrame, a Series or an array with one row per "
            f"sample, not {covariates!r:.60} of type {type(covariates).__name__}."
        )
        raise InputError(msg)
    try:
        return np.ndim(covariates) != 1  # type: ignore[arg-type]
    except ValueError as error:
        msg = f"{role}s given as lists must have rows of the same length."
        raise InputError(msg) from error


def read_array(covariates: Any, n_rows: int, role: str) -> Floats:
    """Return design columns given as numbers.

    Parameters
    ----------
    covariates
        A 2-D array.
    n_rows
        The number of rows there must be.
    role
        What it is called in messages.
    """
    if covariates is None or not is_array(covariates, role):
        msg = f"{role}s were learned from a 2-D array: give one with the same columns."
        raise InputError(msg)
    design = np.asarray(covariates)
    if design.ndim != 2 or design.dtype.kind not in "biuf":
        msg = (
            f"{role}s given as an array must be numbers, rows by columns, not "
            f"{design.dtype} of shape {design.shape}. Give labels in a DataFrame."
        )
        raise InputError(msg)
    _check_length(len(design), n_rows, role)
    design = design.astype(np.float64)
    for place, column in enumerate(design.T):
        _refuse_non_finite(column, f"{role}[{place}]")
    return design


def read_table(
    covariates: Any, n_rows: int, role: str, required: Sequence[str] = ()
) -> Table:
    """Return the columns of a table by name; a single one may come without a name.

    Parameters
    ----------
    covariates
        A DataFrame, a Series or labels in a list.
    n_rows
        The number of rows there must be.
    role
        What it is called in messages.
    required
        The columns learned before.
    """
    if covariates is None or is_array(covariates, role):
        msg = (
            f"{role}s were learned from a table: give a DataFrame with the columns "
            f"{some(map(repr, required))}."
        )
        raise InputError(msg)
    if not isinstance(covariates, pd.DataFrame):
        series = pd.Series(covariates)
        only = required[0] if len(required) == 1 else role
        nameless = series.name is None or tuple(required) == (role,)
        covariates = series.to_frame(only if nameless else series.name)
    _check_length(len(covariates), n_rows, role)
    names = [str(name) for name in covariates.columns]
    if len({*names}) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        msg = f"The table of {role}s has columns of the same name, {some(map(repr, twice))}: rename them."
        raise InputError(msg)
    columns = (covariates.iloc[:, place] for place in range(len(names)))
    return dict(zip(names, columns, strict=True))


def require(needed: Iterable[str], table: Table, role: str) -> None:
    """Refuse a table that lacks a column.

    Parameters
    ----------
    needed
        The columns.
    table
        The table.
    role
        What it is called in messages.
    """
    for name in needed:
        if name not in table:
            msg = f"There is no column {name!r} ({role}). {did_you_mean(name, table)}"
            raise MissingKeyError(msg)


def _check_length(length: int, n_rows: int, role: str) -> None:
    """Refuse covariates of another number of rows."""
    if length != n_rows:
        msg = (
            f"{role}s have {length} rows for {n_rows} rows of data. Rows are samples: "
            "transpose the matrix if its samples are columns."
        )
        raise InputError(msg)


def _holds_labels(values: pd.Series[Any], name: str) -> bool:
    """Return whether a column holds labels, False if numbers; refuse the rest."""
    dtype, types = values.dtype, pd.api.types
    if isinstance(dtype, pd.CategoricalDtype) or types.is_bool_dtype(dtype):
        return True
    kind = str(dtype)
    if types.is_object_dtype(dtype) or types.is_string_dtype(dtype):
        kind = types.infer_dtype(values, skipna=True)
        if kind in {"integer", "floating", "mixed-integer-float", "decimal"}:
            return False
        if kind in {"string", "boolean", "bytes", "mixed", "mixed-integer", "empty"}:
            return True
    elif types.is_numeric_dtype(dtype) and not types.is_complex_dtype(dtype):
        return False
    msg = (
        f"{name} holds {kind} values; text, categories, booleans and numbers are "
        "possible. Turn dates into numbers of days, or make categories of them."
    )
    raise InputError(msg)


def _numbers(values: pd.Series[Any], name: str) -> Floats:
    """Return a column of numbers as float64, none of them missing or infinite."""
    numbers = values.to_numpy(dtype=np.float64, na_value=np.nan)
    _refuse_non_finite(numbers, name)
    return numbers


def _refuse_non_finite(numbers: Floats, name: str) -> None:
    """Refuse missing and infinite numbers."""
    bad = np.flatnonzero(~np.isfinite(numbers))
    if bad.size:
        what = "missing" if np.isnan(numbers[bad]).all() else "missing or infinite"
        msg = (
            f"{name} is {what} in {bad.size} of {len(numbers)} samples (first in row "
            f"{bad[0]}). Fill in these values or drop the samples."
        )
        raise DesignError(msg)


def _refuse_identifier(values: pd.Series[Any], labels: BatchLabels) -> None:
    """Refuse text with about as many levels as there are samples."""
    n_rows, n_levels = len(values), len(labels.levels)
    explicit = isinstance(values.dtype, pd.CategoricalDtype)
    if n_levels <= 2 or n_levels <= (n_rows - 1 if explicit else n_rows / 2):
        return
    texts = pd.Series([str(level) for level in labels.levels])
    if pd.to_numeric(texts, errors="coerce").notna().all():
        guess = "numbers stored as text: convert it with pandas.to_numeric"
    else:
        guess = "an identifier of samples: leave it out"
    msg = f"{labels.name} has {n_levels} levels in {n_rows} samples, like {guess}."
    raise DesignError(msg)


def _warn_few_values(numbers: Floats, name: str) -> None:
    """Warn of integers with so few values that they may be labels.

    Two values are no matter: as numbers and as labels they give the same model.
    """
    values = np.sort(pd.unique(numbers))
    few = 2 < len(values) <= FEW_VALUES and len(numbers) > 2 * len(values)
    if few and (values == np.round(values)).all():
        shown = ", ".join(f"{value:g}" for value in values)
        msg = (
            f"{name} has only the values {shown} and is read as a number, with one "
            "slope. If these are labels, make it a category: "
            'table[column].astype("category"), or C(column) in a formula.'
        )
        warn(msg, CovariateWarning)
