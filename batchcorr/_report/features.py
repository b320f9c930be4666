"""What is known of each feature: means, shares of variance, and the test."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from batchcorr._report.packing import cut

if TYPE_CHECKING:
    from batchcorr.metrics._variance_explained import FeatureShares

__all__ = ["MOST", "TOP", "Features", "feature_table", "top_of_test"]

MOST = 2000
"""Features in the table that is searched."""

TOP = 20
"""Features of a test that are shown first."""

SHARES = {
    "batch": "batch R²",
    "batch_beyond_covariates": "batch R², beyond what was kept",
    "covariates": "kept R², within batches",
}


@dataclass(frozen=True)
class Features:
    """A table of features.

    Attributes
    ----------
    table
        A row a feature, at most `MOST` of them.
    total
        How many there are.
    by
        Why it is these rows.
    """

    table: pd.DataFrame
    total: int
    by: str

    def to_dict(self) -> dict[str, Any]:
        """The table as the page's script takes it: numbers of four digits."""
        rows = [
            [cut(name), *(_short(value) for value in row)]
            for name, row in zip(
                self.table.index, self.table.to_numpy(np.float64), strict=True
            )
        ]
        return {"columns": ["feature", *map(cut, self.table.columns)], "rows": rows}


def feature_table(
    names: pd.Index,
    before: FeatureShares | None,
    after: FeatureShares | None,
    test: pd.DataFrame | None,
) -> Features:
    """Join what is known of the features; the first rows are those that matter most."""
    table = pd.DataFrame(index=names.astype(str))
    kept = before is not None and not _same(
        before.batch, before.batch_beyond_covariates
    )
    for share, label in SHARES.items():
        if share != "batch" and not kept:
            continue
        for when, shares in (("before", before), ("after", after)):
            if shares is not None:
                table[f"{label}, {when}"] = getattr(shares, share)
    order, by = np.arange(len(table)), "in their order"
    if test is not None:
        columns = [
            name
            for name in map(str, test.columns)
            if name.startswith(("coefficient", "log2_fold_change", "p_value", "p_adj"))
            or name in {"mean", "f", "t"}
        ]
        table = pd.concat([test[columns].set_axis(table.index), table], axis=1)
        order, by = np.argsort(test["p_value"], kind="stable"), "by p-value of the test"
    elif before is not None:
        order = np.argsort(-before.batch, kind="stable")
        by = "by the variance that batch explains before"
    return Features(table.iloc[np.asarray(order)[:MOST]], len(table), by)


def top_of_test(test: pd.DataFrame) -> pd.DataFrame:
    """The features that the test finds first."""
    order = np.argsort(test["p_value"], kind="stable")
    return test.iloc[np.asarray(order)[:TOP]]


def _same(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> bool:
    return bool(np.allclose(one, other, equal_nan=True))


def _short(value: float) -> float | None:
    return float(f"{value:.4g}") if np.isfinite(value) else None
