"""Read from `obs` what is known of the samples: batch, covariates, nuisances.

Covariates and nuisances may also be matrices of `obsm`, such as surrogate variables.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from batchcorr._anndata.missing import with_level
from batchcorr.errors import DesignError, InputError, MissingKeyError, did_you_mean
from batchcorr.estimators.metadata import Labels

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anndata import AnnData

    from batchcorr.estimators.base import Corrector
    from batchcorr.models.namespace import Matrix

__all__ = ["ObsLabels", "column_of", "labels_for", "obsm_columns", "read_labels"]


class ObsLabels(NamedTuple):
    """What is known of the samples, as read from `obs`, and the names of the columns."""

    given: Labels
    formula: str | None
    keys: dict[str, Any]


def read_labels(
    adata: AnnData,
    batch_key: Any,
    covariates: object,
    nuisance: object,
    *,
    needed: bool = True,
    missing: str = "error",
    subject: str | None = None,
) -> ObsLabels:
    """Read batch, covariates and nuisances from `obs`.

    Parameters
    ----------
    adata, batch_key, covariates, nuisance
        The data, and what names columns of it.
    needed
        Whether there must be a batch.
    missing
        "level": missing labels are a level of their own, "missing"; "error": they stay
        what they are, and whoever reads them refuses them.
    subject
        The column that says who a sample is of.
    """
    if missing not in {"error", "level"}:
        msg = f"missing must be 'error' or 'level', not {missing!r:.40}."
        raise InputError(msg)
    batch: Any = None
    keys: Sequence[str] = []
    if isinstance(batch_key, list | tuple) and not batch_key:
        batch_key = None
    if batch_key is None and nuisance is None and needed:
        msg = (
            "batch_key must name the column of adata.obs that holds the batch; only "
            "remove_batch_effect can do without, with nuisance=. "
            f"{did_you_mean('', adata.obs.columns)}"
        )
        raise InputError(msg)
    if batch_key is not None:
        keys = [batch_key] if isinstance(batch_key, str) else batch_key
        if not isinstance(keys, list | tuple) or not all(
            isinstance(key, str) for key in keys
        ):
            msg = (
                "batch_key must be the name of a column of adata.obs (or several for "
                f"remove_batch_effect), not {batch_key!r:.60}."
            )
            raise InputError(msg)
        table = _columns(adata, keys, "batch key")
        batch = table[keys[0]] if len(keys) == 1 else table
    kept, formula = _columns_or_table(adata, covariates, "covariate")
    removed, of_nuisance = _columns_or_table(adata, nuisance, "nuisance")
    if of_nuisance is not None:
        msg = "nuisance takes columns of adata.obs or a table, not a formula."
        raise InputError(msg)
    names = {
        "covariate": covariates if formula else _names_of(covariates, kept),
        "nuisance": _names_of(nuisance, removed),
    }
    for what, used in names.items():
        for key in keys:
            if isinstance(used, list) and key in used:
                msg = f"{key!r} is the batch and cannot be a {what} as well."
                raise DesignError(msg)
    saved = {
        "batch": batch_key,
        "covariates": names["covariate"],
        "nuisance": names["nuisance"],
    }
    given = Labels(batch, kept, removed)
    if subject is not None:
        _check_subject(subject, {"batch": keys} | names)
        given = given._replace(subject=_columns(adata, [subject], "subject")[subject])
        saved["subject"] = subject
    if missing == "level":
        given, saved["missing_labels"] = with_level(given)
    return ObsLabels(given, formula, saved)


def _check_subject(subject: str, names: Mapping[str, object]) -> None:
    """Refuse a subject that is given for something else as well."""
    for what, used in names.items():
        if isinstance(used, list | tuple) and subject in used:
            msg = (
                f"{subject!r} is a {what} and cannot be the subject as well: subjects "
                "are persons with several samples."
            )
            raise DesignError(msg)


def labels_for(
    adata: AnnData,
    correction: Corrector,
    batch_key: str | Sequence[str] | None,
    covariates: object,
    nuisance: object,
) -> ObsLabels:
    """Read the labels a correction needs: from the columns it was fitted to, or others."""
    keeps, columns = correction.needs_covariates_, correction.obs_columns_ or {}
    needed = not correction.record.normalizes
    if batch_key is None:
        batch_key = columns.get("batch")
        if batch_key is None and needed and not columns:
            msg = (
                "The correction was not fitted to an AnnData, so that it is not "
                "known which column holds the batch: give batch_key=."
            )
            raise InputError(msg)
    if keeps and covariates is None:
        covariates = columns.get("covariates")
    if nuisance is None:
        nuisance = columns.get("nuisance")
    missing = "error" if columns.get("missing_labels") is None else "level"
    return read_labels(
        adata,
        batch_key,
        covariates,
        nuisance,
        needed=needed,
        missing=missing,
        subject=columns.get("subject") if keeps else None,
    )


def column_of(adata: AnnData, key: object, what: str) -> pd.Series[Any]:
    """A column of `obs`.

    Raises
    ------
    MissingKeyError
        If there is none of this name; the message suggests the nearest.
    """
    if not isinstance(key, str) or key not in adata.obs.columns:
        msg = (
            f"The {what} {key!r:.80} is not a column of adata.obs. "
            f"{did_you_mean(key, adata.obs.columns)}"
        )
        raise MissingKeyError(msg)
    column: pd.Series[Any] = adata.obs[key]
    return column


def _columns(adata: AnnData, keys: Sequence[str], what: str) -> pd.DataFrame:
    """Columns of `obs`.

    Raises
    ------
    MissingKeyError
        If a column does not exist; the message suggests the nearest.
    """
    for key in keys:
        column_of(adata, key, what)
    return _in_memory(adata.obs[list(keys)])


def _columns_of_all(adata: AnnData, keys: Sequence[str], what: str) -> pd.DataFrame:
    """Columns of `obs`, and all columns of matrices in `obsm`, such as ``"X_sv"``."""
    wide = {key for key in keys if key not in adata.obs.columns and key in adata.obsm}
    if not wide:
        return _columns(adata, keys, what)
    parts = [
        obsm_columns(adata, key) if key in wide else _columns(adata, [key], what)
        for key in keys
    ]
    return pd.concat(parts, axis=1)


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


def _columns_or_table(
    adata: AnnData, given: Matrix, what: str
) -> tuple[Any, str | None]:
    """What was asked for as covariates or nuisances, and the formula if it is one.

    Parameters
    ----------
    adata
        The data.
    given
        None; a column of `obs`, or several; a formula over columns of `obs`; a
        DataFrame or array with one row per sample.
    what
        What these are called in messages.
    """
    if given is None:
        return None, None
    if isinstance(given, str) and given.lstrip().startswith("~"):
        return _in_memory(adata.obs), given
    if isinstance(given, str):
        given = [given]
    if isinstance(given, list | tuple | pd.Index):
        if len(given) == 0:
            return None, None
        if all(isinstance(key, str) for key in given):
            return _columns_of_all(adata, list(given), what), None
    if isinstance(given, pd.DataFrame | pd.Series):
        return _aligned(adata, given, what), None
    return given, None


def _aligned(adata: AnnData, table: Any, what: str) -> Any:
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
        "row per sample under the same names, or reset_index(drop=True) to match rows "
        "by position."
    )
    raise InputError(msg)


def _names_of(given: Matrix, table: object) -> list[str] | None:
    """The names to read a table by again: as they were given, or its columns."""
    if isinstance(given, str):
        return [given]
    if isinstance(given, list | tuple | pd.Index) and hasattr(table, "columns"):
        return [str(name) for name in given]
    return [str(name) for name in table.columns] if hasattr(table, "columns") else None
