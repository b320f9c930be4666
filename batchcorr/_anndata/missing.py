"""Missing labels as a level of their own: what is unknown of samples may be one thing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from batchcorr.design.distinct import is_missing
from batchcorr.errors import DesignError

if TYPE_CHECKING:
    from batchcorr.estimators.metadata import Labels
    from batchcorr.models.namespace import Matrix

__all__ = ["LEVEL", "missing_in", "with_level"]

LEVEL = "missing"
"""The level of samples whose label is missing."""


def with_level(labels: Labels) -> tuple[Labels, dict[str, int]]:
    """Labels without missing ones, and how many there were, by column.

    Numbers that are missing stay missing: they have no level.
    """
    counts: dict[str, int] = {}
    parts = (labels.batch, labels.covariates, labels.nuisance)
    filled = [_filled(part, counts) for part in parts]
    return labels._replace(
        batch=filled[0], covariates=filled[1], nuisance=filled[2]
    ), counts


def missing_in(column: pd.Series) -> pd.Series[bool]:
    """Which samples have no label, as the package reads labels."""
    texts = column.astype(object)
    return column.isna() | texts.map(is_missing)


def _filled(given: Matrix, counts: dict[str, int]) -> Any:
    if isinstance(given, pd.Series):
        return _column(given, str(given.name), counts)
    if not isinstance(given, pd.DataFrame):
        return given
    columns = {name: _column(given[name], str(name), counts) for name in given.columns}
    return pd.DataFrame(columns, index=given.index)


def _column(column: pd.Series, name: str, counts: dict[str, int]) -> pd.Series:
    if pd.api.types.is_numeric_dtype(column.dtype) and column.dtype != bool:
        return column
    where = missing_in(column)
    if not where.any():
        return column
    known = column[~where].astype(object)
    if (known.astype(str) == LEVEL).any():
        msg = (
            f"{name!r} has missing labels and also the label {LEVEL!r}, which missing "
            "labels would get: rename that label."
        )
        raise DesignError(msg)
    counts[name] = int(where.sum())
    if isinstance(column.dtype, pd.CategoricalDtype):
        levels = [each for each in column.cat.categories if not is_missing(each)]
        texts = column.astype(object).mask(where, LEVEL)
        return texts.astype(pd.CategoricalDtype([*levels, LEVEL]))
    return column.astype(object).mask(where, LEVEL)
