"""What is given as covariates: a table of variables, or an array of numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd

from batchcorr.design.variables import refuse_non_finite
from batchcorr.errors import InputError, MissingKeyError, did_you_mean, some

__all__ = ["Table", "is_array", "read_array", "read_table", "require"]

Floats: TypeAlias = npt.NDArray[np.float64]
Table: TypeAlias = Mapping[str, "pd.Series"]


def is_array(covariates: object, role: str) -> bool:
    """Return whether these are design columns; refuse what cannot be covariates."""
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
        msg = f"{role}s given as lists must have rows of equal length."
        raise InputError(msg) from error


def read_array(covariates: object, n_rows: int, role: str) -> Floats:
    """Return design columns given as numbers."""
    if covariates is None or not is_array(covariates, role):
        msg = f"{role}s were a 2-D array in fit: give an array with the same columns."
        raise InputError(msg)
    design = np.asarray(covariates)
    if design.ndim != 2 or design.dtype.kind not in "biuf":
        msg = (
            f"{role}s given as an array must be a 2-D array of numbers, not "
            f"{design.dtype} of shape {design.shape}. Give labels in a DataFrame."
        )
        raise InputError(msg)
    _check_length(len(design), n_rows, role)
    design = design.astype(np.float64)
    for place, column in enumerate(design.T):
        refuse_non_finite(column, f"{role}[{place}]", pd.RangeIndex(n_rows))
    return design


def read_table(
    covariates: object, n_rows: int, role: str, required: Sequence[str] = ()
) -> Table:
    """Return the columns of a table by name; a single one may come without a name.

    Raises
    ------
    InputError
        If these are not n rows, or two columns have the same name.
    MissingKeyError
        If a required column is missing.
    """
    if covariates is None or is_array(covariates, role):
        msg = (
            f"{role}s were a DataFrame in fit: give a DataFrame with the columns "
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
        msg = (
            f"The table of {role}s has several columns named {some(map(repr, twice))}: "
            "rename them."
        )
        raise InputError(msg)
    columns = (covariates.iloc[:, place] for place in range(len(names)))
    table = dict(zip(names, columns, strict=True))
    require(required, table, role)
    return table


def require(needed: Iterable[str], table: Table, role: str) -> None:
    """Refuse a table that lacks a column."""
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
