"""Columns of samples by name: of `obs`, of matrices in `obsm`, or as they are given."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from batchcorr.design.formula import Formula
from batchcorr.errors import (
    CovariateWarning,
    InputError,
    MissingKeyError,
    did_you_mean,
    warn,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from anndata import AnnData

    from batchcorr.models.namespace import Matrix

__all__ = ["aligned", "column_of", "columns_of", "columns_or_table", "obsm_columns"]


def column_of(
    adata: AnnData, key: object, what: str, also: Iterable[str] = ()
) -> pd.Series:
    """A column of `obs`.

    Raises
    ------
    MissingKeyError
        If there is none of this name; the message suggests the nearest, or one of `also`,
        the keys of `obsm`.
    InputError
        If there are several.
    """
    if not isinstance(key, str) or key not in adata.obs.columns:
        or_obsm = " or a key of adata.obsm" if also else ""
        msg = (
            f"The {what} {key!r:.80} is not a column of adata.obs{or_obsm}. "
            f"{did_you_mean(key, [*adata.obs.columns, *also])}"
        )
        raise MissingKeyError(msg)
    column: pd.Series = adata.obs[key]
    if column.ndim > 1:
        msg = f"adata.obs has several columns named {key!r}: rename all but one."
        raise InputError(msg)
    return column


def columns_of(
    adata: AnnData, keys: Sequence[str], what: str, also: Iterable[str] = ()
) -> pd.DataFrame:
    """Columns of `obs`.

    Raises
    ------
    MissingKeyError
        If a column does not exist; the message suggests the nearest, or one of `also`.
    """
    for key in keys:
        column_of(adata, key, what, also)
    return _in_memory(adata.obs[list(keys)])


def _columns_of_all(
    adata: AnnData, keys: Sequence[str], what: str
) -> pd.DataFrame | None:
    """Columns of `obs`, and all those of matrices in `obsm`, such as ``"X_sv"``, if any."""
    parts = []
    for key in keys:
        if key in adata.obs.columns or key not in adata.obsm:
            parts.append(columns_of(adata, [key], what, also=adata.obsm))
        elif np.shape(adata.obsm[key])[-1]:
            parts.append(obsm_columns(adata, key))
        else:
            msg = f"The {what} adata.obsm[{key!r}] has no columns and is ignored."
            warn(msg, CovariateWarning)
    return pd.concat(parts, axis=1) if parts else None


def obsm_columns(adata: AnnData, key: str) -> pd.DataFrame:
    """A matrix of `obsm` as columns of numbers, ``X_sv[1]`` and so on.

    Raises
    ------
    InputError
        If it has no columns.
    """
    matrix = adata.obsm[key]
    if isinstance(matrix, pd.DataFrame):
        table = matrix.set_axis(matrix.columns.map(str), axis=1)
    else:
        values = np.asarray(matrix.toarray() if hasattr(matrix, "toarray") else matrix)
        values = values.reshape(adata.n_obs, -1)
        names = [f"{key}[{k + 1}]" for k in range(values.shape[1])]
        table = pd.DataFrame(values, index=adata.obs_names, columns=names)
    if table.shape[1] == 0:
        msg = f"adata.obsm[{key!r}] has no columns: leave it out."
        raise InputError(msg)
    return table


def _in_memory(table: Any) -> pd.DataFrame:
    """A table in memory, which anndata may have read lazily."""
    loaded: pd.DataFrame = table.to_memory() if hasattr(table, "to_memory") else table
    return loaded


def columns_or_table(
    adata: AnnData, given: Matrix, what: str
) -> tuple[Any, list[str] | str | None]:
    """What was asked for as covariates or nuisances, and what to read it by again.

    Names: as they were given, or the columns of a table; a formula if it is one.

    Parameters
    ----------
    given
        None; a column of `obs`, or several; a formula over columns of `obs`; a
        DataFrame or array with one row per sample.
    """
    if given is None:
        return None, None
    if isinstance(given, str) and given.lstrip().startswith("~"):
        _refuse_obsm(adata, given, what)
        return _in_memory(adata.obs), given
    if isinstance(given, str):
        return _columns_of_all(adata, [given], what), [given]
    if isinstance(given, list | tuple | pd.Index):
        if len(given) == 0:
            return None, None
        if all(isinstance(key, str) for key in given):
            table = _columns_of_all(adata, list(given), what)
            return table, None if table is None else list(given)
    if isinstance(given, pd.DataFrame | pd.Series):
        given = aligned(adata, given, what)
    columns = getattr(given, "columns", None)
    return given, None if columns is None else [str(name) for name in columns]


def _refuse_obsm(adata: AnnData, formula: str, what: str) -> None:
    """Refuse a formula over matrices of `obsm`, and say how they are given."""
    columns = [source.column for source in Formula.parse(formula).inputs]
    wide = [name for name in columns if name in adata.obsm and name not in adata.obs]
    if wide:
        msg = (
            f"{wide[0]!r} is a matrix of adata.obsm, but a formula can only use "
            f"columns of adata.obs: give all {what}s as a list of names, such as "
            f"{columns!r}."
        )
        raise InputError(msg)


def aligned(adata: AnnData, table: Any, what: str) -> Any:
    """A table in the order of the samples, matched by name where it has names."""
    by_position = pd.RangeIndex(adata.n_obs)
    if table.index.equals(adata.obs_names) or (
        isinstance(table.index, pd.RangeIndex) and table.index.equals(by_position)
    ):
        return table
    both_unique = table.index.is_unique and adata.obs_names.is_unique
    if both_unique and set(table.index) >= set(adata.obs_names):
        return table.loc[adata.obs_names]
    msg = (
        f"The {what} table has an index that does not match adata.obs_names: give one "
        "row per sample with the same names, or use reset_index(drop=True) to match "
        "rows by position."
    )
    raise InputError(msg)
