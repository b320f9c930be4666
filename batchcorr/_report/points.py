"""The samples as points: where they lie before and after, and what may color them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from batchcorr._report.components import most_variable, principal_components
from batchcorr._report.packing import (
    clean,
    cut,
    packed_codes,
    packed_names,
    packed_numbers,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from numpy.typing import NDArray

    from batchcorr._report.matrices import BeforeAfter

__all__ = ["Panel", "Points", "draw_points"]

MOST_LEVELS = 1000
"""Levels of a column that may still color points; identifiers have more."""

COLUMNS_SIZE = 2_500_000
NAMES_SIZE = 1_200_000
"""Characters of a page that columns, and names of samples, may take."""


@dataclass(frozen=True)
class Panel:
    """One picture of the samples.

    Attributes
    ----------
    title, axes
        What is drawn, and what each axis is.
    coordinates
        (n, 2), NaN where there is none.
    """

    title: str
    axes: tuple[str, str]
    coordinates: NDArray[np.float64] = field(repr=False)


@dataclass(frozen=True)
class Points:
    """All that the pictures show.

    Attributes
    ----------
    panels
        Before and after, or one of them.
    data
        What the page's script draws: panels, columns and names, packed.
    columns
        Names of the columns that may color points.
    left_out
        Names of the columns that may not: identifiers, and what would make the page
        too large.
    n_features
        How many features components were taken of; 0: none were.
    """

    panels: tuple[Panel, ...]
    data: dict[str, Any] = field(repr=False)
    columns: tuple[str, ...]
    left_out: tuple[str, ...]
    n_features: int


def draw_points(adata: AnnData, found: BeforeAfter, first: Sequence[str]) -> Points:
    """Take components before and after, and the columns of `obs`, `first` ones first."""
    panels, n_features = _panels(adata, found)
    wanted = dict.fromkeys([*first, *adata.obs.columns])
    names = [name for name in wanted if name in adata.obs]
    columns, left_out, size = [], [], 0
    for name in names:
        column = _column(adata.obs[name], name)
        cost = 0 if column is None else len(column["data"])
        if column is None or size + cost > COLUMNS_SIZE:
            left_out.append(clean(name))
            continue
        size += cost
        columns.append(column)
    packed = packed_names(adata.obs_names)
    data = {
        "n": adata.n_obs,
        "names": packed if len(packed) <= NAMES_SIZE else None,
        "panels": [
            {
                "x": packed_numbers(panel.coordinates[:, 0]),
                "y": packed_numbers(panel.coordinates[:, 1]),
            }
            for panel in panels
        ],
        "columns": columns,
    }
    shown = tuple(column["name"] for column in columns)
    return Points(tuple(panels), data, shown, tuple(left_out), n_features)


def _panels(adata: AnnData, found: BeforeAfter) -> tuple[list[Panel], int]:
    panels: list[Panel] = []
    features = None
    for title, values in (("Before", found.before), ("After", found.after)):
        key = found.embeddings.get(title.lower())
        if key is not None:
            axes = (f"{key} 1", f"{key} 2")
            panels.append(Panel(title, axes, _embedding(adata.obsm[key])))
        elif values is not None:
            if features is None or not len(features):
                features = most_variable(values.matrix)
            components = principal_components(values.matrix, features)
            if components is not None:
                one, two = (f"{share:.0%}" for share in components.shares)
                axes = (f"PC1 ({one})", f"PC2 ({two})")
                panels.append(Panel(title, axes, components.scores))
    return panels, 0 if features is None else len(features)


def _embedding(values: object) -> NDArray[np.float64]:
    """The first two columns of an embedding; of one column its second is 0."""
    table = values.toarray() if hasattr(values, "toarray") else values
    scores = np.asarray(table, dtype=np.float64)[:, :2]
    return np.pad(scores, ((0, 0), (0, 2 - scores.shape[1])))


def _column(values: pd.Series, name: str) -> dict[str, Any] | None:
    """A column, packed; None if it has too many levels."""
    if hasattr(values, "to_numpy") and pd.api.types.is_bool_dtype(values.dtype):
        values = values.astype(str)
    elif pd.api.types.is_numeric_dtype(values.dtype):
        numbers = values.to_numpy(dtype=np.float64, na_value=np.nan)
        return {"name": clean(name), "kind": "numbers"} | packed_numbers(numbers)
    category = pd.Categorical(values)
    used = category.remove_unused_categories()
    if len(used.categories) > MOST_LEVELS:
        return None
    counts = np.bincount(used.codes[used.codes >= 0], minlength=len(used.categories))
    return {
        "name": clean(name),
        "kind": "levels",
        "levels": [cut(level) for level in used.categories],
        "counts": counts.tolist(),
    } | packed_codes(np.asarray(used.codes), len(used.categories))
