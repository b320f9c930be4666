"""What scikit-learn hands over beside the matrix: tables, columns, feature names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from batchcorr.design.distinct import named
from batchcorr.errors import InputError, MissingKeyError, did_you_mean, some

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from batchcorr.models.namespace import Matrix

__all__ = [
    "SampleNames",
    "Samples",
    "check_features_order",
    "check_order",
    "feature_names",
    "no_batch",
    "read_samples",
]


class Samples(NamedTuple):
    """What was given of samples, apart: features, and labels by row.

    Attributes
    ----------
    given
        The matrix or table as it was given.
    features
        The same without columns that hold labels.
    names
        Names of the features; None of a matrix.
    batch, covariates
        Of each sample; None where they were not given.
    """

    given: Matrix
    features: Matrix
    names: tuple[str, ...] | None
    batch: Any = None
    covariates: Any = None


class SampleNames:
    """Names of samples for messages: from the first of some tables that has any.

    Examples
    --------
    >>> import pandas as pd
    >>> batch = pd.Series([1, 1, 2], index=["s1", "s2", "s3"])
    >>> SampleNames(np.ones((3, 2)), batch)(np.array([0, 2]))
    's1, s3'
    >>> SampleNames(np.ones((3, 2)))(np.array([0, 2]))
    'rows 0, 2'
    """

    def __init__(self, *given: object) -> None:
        tables = [each for each in given if isinstance(each, pd.DataFrame | pd.Series)]
        indices = [each.index for each in tables] + [pd.RangeIndex(0)]
        self._index = next(
            (index for index in indices if not isinstance(index, pd.RangeIndex)),
            indices[-1],
        )

    def __call__(self, rows: NDArray[np.intp]) -> str:
        """The names of some rows, or their numbers; a few of many."""
        return named(self._index, rows)


def read_samples(
    x: object,
    batch: object = None,
    covariates: object = None,
    *,
    batch_column: str | None = None,
    covariate_columns: Sequence[str] | None = None,
) -> Samples:
    """Tell features and labels apart, and see that their rows are the same.

    Parameters
    ----------
    x
        Features, a matrix or a table; a table may hold labels as well.

    Raises
    ------
    InputError
        If labels are of other rows, or a feature's name occurs twice.
    MissingKeyError
        If a column is not there.
    """
    check_order(x, batch=batch, covariates=covariates)
    features = x
    if batch_column is not None or covariate_columns:
        features, batch, covariates = _take_columns(
            x, batch, covariates, batch_column, covariate_columns
        )
    return Samples(x, features, feature_names(features), batch, covariates)


def _take_columns(
    x: Matrix,
    batch: object,
    covariates: object,
    batch_column: str | None,
    covariate_columns: Sequence[str] | None,
) -> tuple[Any, Any, Any]:
    """Take batch and covariates out of a table of features, where they are named.

    Scorers and `cross_val_predict` call `transform` with the features alone: columns of
    the table are the only way in. What is given explicitly goes first.
    """
    columns: list[Any] = []
    if covariate_columns is not None:
        columns = np.ravel(np.asarray(covariate_columns, dtype=object)).tolist()
    names = [name for name in (batch_column,) if name is not None] + columns
    if not hasattr(x, "columns"):
        if batch is not None and (covariates is not None or not columns):
            return x, batch, covariates
        msg = (
            f"batch_column and covariate_columns name columns {some(map(repr, names))} of a DataFrame, "
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
    if covariates is None and columns:
        covariates = x[columns]
    return x.drop(columns=names), batch, covariates


def check_order(x: object, **labels: object) -> None:
    """Refuse labels whose index says that they are those of other rows.

    Rows and labels are matched by place. Where pandas objects have names for their rows
    and the names differ, the place is not what was meant. X without names leaves it to
    the first labels that have some.
    """
    what, names = "X", _index(x)
    for name, given in labels.items():
        index = _index(given)
        if index is None or _is_numbered(index):
            continue
        if names is None or (_is_numbered(names) and index.dtype.kind not in "iu"):
            what, names = name, index
        numbers = index.dtype.kind in "iu" and not index.isin(names).any()
        if len(index) == len(names) and not index.equals(names) and not numbers:
            unknown = index[~index.isin(names)]
            if len(unknown):
                how = f"{len(unknown)} rows that {what} does not have ({some(unknown)})"
                by_name = ""
            else:
                how = f"the rows of {what} in another order"
                by_name = f"{name}.loc[{what}.index], or "
            msg = (
                f"The index of {name} has {how}, but rows are matched by position: "
                f"give {by_name}{name}.to_numpy() if the order is right."
            )
            raise InputError(msg)


def check_features_order(features: Matrix, index: object, what: str) -> None:
    """Refuse what has a value a feature, and names them otherwise than a table of them.

    Raises
    ------
    InputError
        If the names, or their order, differ.
    """
    names = getattr(features, "columns", None)
    if names is None or not isinstance(index, pd.Index) or _is_numbered(index):
        return
    if len(index) == len(names) and not index.equals(names):
        msg = (
            f"The index of {what} does not match the columns of X, in names or order: "
            f"sort it by the columns of X, or give {what}.to_numpy() to match by "
            "position."
        )
        raise InputError(msg)


def _index(given: object) -> pd.Index | None:
    """The index of a DataFrame or Series; None of an array or a list."""
    index = getattr(given, "index", None)
    return index if hasattr(index, "equals") else None


def _is_numbered(index: pd.Index) -> bool:
    """Whether rows have no names but their places."""
    return index.equals(pd.RangeIndex(len(index)))


def no_batch(method: str) -> InputError:
    """The error for samples whose batch is not given."""
    msg = (
        f"{method} needs the batch of each sample: give batch=, or name its column "
        "with batch_column= if X is a DataFrame. In a Pipeline, enable metadata "
        "routing (sklearn.set_config(enable_metadata_routing=True)) and give batch= "
        "there."
    )
    return InputError(msg)


def feature_names(x: object) -> tuple[str, ...] | None:
    """The feature names of a DataFrame, None for a matrix.

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
        msg = (
            f"The feature {twice!r} occurs more than once: make the column names "
            "unique."
        )
        raise InputError(msg)
    return names
