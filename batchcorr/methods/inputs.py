"""What scikit-learn hands over beside the matrix: tables, columns, feature names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from batchcorr.errors import InputError, MissingKeyError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["check_features", "feature_names", "take_columns"]


def take_columns(
    x: Any,
    batch: Any,
    covariates: Any,
    batch_column: str | None,
    covariate_columns: Sequence[str] | None,
) -> tuple[Any, Any, Any]:
    """Take batch and covariates out of a table of features, where they are named.

    Scorers and `cross_val_predict` call `transform` with the features alone: columns of
    the table are the only way in. What is given explicitly goes first.
    """
    if batch_column is None and not covariate_columns:
        return x, batch, covariates
    if isinstance(covariate_columns, str):
        covariate_columns = [covariate_columns]
    names = [name for name in (batch_column,) if name is not None]
    names += list(covariate_columns or ())
    if not hasattr(x, "columns"):
        msg = (
            f"batch_column and covariate_columns name columns {names} of a DataFrame, "
            f"but X is a {type(x).__name__}. Give a DataFrame, or give batch= and "
            "covariates= instead."
        )
        raise InputError(msg)
    for name in names:
        if name not in x.columns:
            msg = f"X has no column {name!r}. {did_you_mean(name, x.columns)}"
            raise MissingKeyError(msg)
    if batch is None and batch_column is not None:
        batch = x[batch_column]
    if covariates is None and covariate_columns:
        covariates = x[list(covariate_columns)]
    return x.drop(columns=names), batch, covariates


def feature_names(x: Any) -> tuple[str, ...] | None:
    """Return the feature names of a DataFrame, None for a matrix.

    Raises
    ------
    InputError
        If a name occurs twice.
    """
    if not hasattr(x, "columns"):
        return None
    names = tuple(map(str, x.columns))
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        msg = f"The feature {twice!r} occurs more than once: make the columns unique."
        raise InputError(msg)
    return names


def check_features(
    table: Any,
    n_given: int,
    n_features: int,
    names: Sequence[str] | None,
    method: str,
) -> None:
    """Refuse data whose features are not those of `fit`.

    Parameters
    ----------
    table
        The DataFrame given, None if it was a matrix.
    n_given, n_features
        Number of features given, and of `fit`.
    names
        Names of the features of `fit`.
    method
        Class of the estimator.
    """
    if n_given != n_features:
        msg = (
            f"X has {n_given} features, but {method} was fitted on {n_features}. "
            "Samples must be rows: is X transposed, or are columns missing?"
        )
        raise InputError(msg)
    given = None if table is None else feature_names(table)
    if names is None or given is None or given == tuple(names):
        return
    if set(given) == set(names):
        msg = (
            "The features are those of fit, but in another order: reorder them, for "
            "example X[estimator.feature_names_out_]."
        )
        raise InputError(msg)
    unknown = sorted(set(given) - set(names))
    missing = sorted(set(names) - set(given))
    msg = (
        f"The features are not those of fit: {len(missing)} missing "
        f"({', '.join(missing[:5])}), {len(unknown)} never seen "
        f"({', '.join(unknown[:5])})."
    )
    raise InputError(msg)


def default_names(n_features: int) -> np.ndarray[Any, Any]:
    """Return x0, x1, …: scikit-learn's names for features without names."""
    return np.asarray([f"x{k}" for k in range(n_features)], dtype=object)
