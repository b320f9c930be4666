"""What is known of each feature: means, shares of variance, and the test."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from batchcorr._report.packing import cut
from batchcorr.pl._results import by_evidence

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from batchcorr.metrics._variance_explained import FeatureShares

__all__ = ["MOST", "TOP", "Features", "feature_table", "top_of_test"]

MOST = 2000
"""Features in the table that is searched."""

TOP = 20
"""Features of a test that are shown first."""

LEVELS = 4
"""Levels of a tested column whose effects are shown beside the first features."""

NAMES = {
    "coefficient": "effect",
    "f": "F",
    "log2_fold_change": "log2 fold change",
    "mean": "mean",
    "p_adjusted": "adjusted p",
    "p_value": "p",
    "t": "t",
}
"""Columns of a test, as the page calls them."""


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
    """Join what is known of the features; the first rows are those that matter most.

    Parameters
    ----------
    before, after
        Shares of their variance: of batch beyond the covariates, and of these within
        batches.
    """
    table = pd.DataFrame(index=names.astype(str))
    order, by = np.arange(len(table)), "in their order"
    if test is not None:
        table = _of_test(test).set_axis(table.index)
        order, by = _by_p(test), "by p of the test"
    elif before is not None:
        order = np.argsort(-before.batch_beyond_covariates, kind="stable")
        by = "by what batch explains before"
    for when, shares in (("before", before), ("after", after)):
        if shares is not None:
            table[f"batch R², {when}"] = shares.batch_beyond_covariates
    for when, shares in (("before", before), ("after", after)):
        if shares is not None and np.nan_to_num(shares.covariates).any():
            table[f"kept R², {when}"] = shares.covariates
    return Features(table.iloc[order[:MOST]], len(table), by)


def _by_p(test: pd.DataFrame) -> NDArray[np.intp]:
    statistic = test["t" if "t" in test else "f"]
    return by_evidence(test["p_value"].to_numpy(), statistic.to_numpy())


def _of_test(test: pd.DataFrame) -> pd.DataFrame:
    """The columns of a test that are sorted by: one of effects for each level."""
    columns = {}
    for name in map(str, test.columns):
        what, _, level = name.removesuffix("]").partition("[")
        if what in NAMES and not (level and what in {"p_value", "p_adjusted", "t"}):
            label = NAMES[what] + (f", {level}" if level else "")
            columns[label] = test[name].to_numpy()
    return pd.DataFrame(columns)


def top_of_test(test: pd.DataFrame) -> pd.DataFrame:
    """The features that the test finds first, effects with their intervals as text."""
    first = test.iloc[_by_p(test)[:TOP]]
    table = pd.DataFrame(index=first.index)
    for name in ("mean", "f", "t", "p_value", "p_adjusted", "log2_fold_change"):
        if name in first:
            of_p = name.startswith("p_")
            table[NAMES[name]] = first[name].map(_of_p) if of_p else first[name]
    effects = [name for name in map(str, first.columns) if "coefficient" in name]
    for name in effects[:LEVELS]:
        level = name.removeprefix("coefficient")
        columns = (name, f"ci_low{level}", f"ci_high{level}")
        label = f"effect (95% interval){level and f', {level[1:-1]}'}"
        table[label] = [
            "{} ({} to {})".format(*map(_three_digits, row))
            for row in first[list(columns)].to_numpy(np.float64)
        ]
    return table


def _of_p(value: float) -> object:
    """A p-value, which may be less than a float can be."""
    return "< 1e−300" if value == 0 else value


def _three_digits(value: float) -> str:
    """A number with the zeros at its end, so that numbers in a column are alike."""
    return f"{value:#.3g}".removesuffix(".").replace("-", "−")


def _short(value: float) -> float | None:
    return float(f"{value:.4g}") if np.isfinite(value) else None
