"""The result of an audit: findings, tables and predictions, as text and in a notebook."""

from __future__ import annotations

from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

    from batchcorr.design.findings import Finding

__all__ = ["Audit"]


@dataclass(frozen=True)
class Audit:
    """The result of an audit.

    Parameters
    ----------
    findings
        Findings, ordered from those that block a correction to notes.
    tables
        For each covariate the numbers of samples by batch and level; for numbers
        minimum, median and maximum by batch.
    association
        How strongly batch predicts each covariate, from 0 (balanced) to 1 (confounded).
    predicted
        One row per analysis (a correction followed by a test, or the one-step test):
        the false positive rate if the correction keeps the tested column, and the share
        of a small effect that remains if it does not. Of several levels the worst;
        empty without a test.
    batches
        One row per batch: number of samples, and statistics of its values.
    alpha
        Significance level: the nominal false positive rate.

    Examples
    --------
    >>> import batchcorr as bc
    >>> audit = bc.tl.audit(bc.datasets.bladder(), "batch", test="cancer")
    >>> audit.blocks
    False
    >>> bool(audit.predicted.loc["one_step", "false_positive_rate"] < 0.06)
    True
    """

    findings: tuple[Finding, ...]
    tables: dict[str, pd.DataFrame] = field(repr=False)
    association: pd.Series = field(repr=False)
    predicted: pd.DataFrame = field(repr=False)
    batches: pd.DataFrame = field(repr=False)
    alpha: float = 0.05

    @property
    def blocks(self) -> bool:
        """Whether something makes the correction impossible."""
        return any(finding.level == "blocks" for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """Return the audit as plain values that can be written as JSON.

        Returns
        -------
        Findings, tables, association, predictions and batches.
        """
        return {
            "findings": [vars(finding) | {} for finding in self.findings],
            "tables": {name: _plain(table) for name, table in self.tables.items()},
            "association": {str(k): float(v) for k, v in self.association.items()},
            "predicted": _plain(self.predicted),
            "batches": _plain(self.batches),
            "alpha": self.alpha,
        }

    def __str__(self) -> str:
        lines = [f"{f.level.upper():<6} {f.text}" for f in self.findings]
        lines = lines or ["No problems were found."]
        if len(self.predicted):
            shown = self.predicted.copy()
            for name in ("false_positive_rate", "effect_kept"):
                shown[name] = [f"{value:.1%}" for value in shown[name]]
            lines += [
                "",
                f"A test at {self.alpha:.0%}, by analysis:",
                shown.to_string(),
            ]
        for name, table in self.tables.items():
            lines += [
                "",
                f"{name}, by batch:",
                table.to_string(max_rows=20, max_cols=10),
            ]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        items = "".join(
            f"<li><b>{finding.level}</b> {escape(finding.text)}</li>"
            for finding in self.findings
        )
        parts = [f"<ul>{items or '<li>No problems were found.</li>'}</ul>"]
        if len(self.predicted):
            rates = self.predicted.to_html(float_format="{:.3f}".format, escape=True)
            parts += [f"<p>A test at {self.alpha:.0%}, by analysis</p>", rates]
        for name, table in self.tables.items():
            shown = table.to_html(max_rows=20, max_cols=10, escape=True)
            parts.append(f"<p>{escape(name)}, by batch</p>{shown}")
        return "".join(parts)


def _plain(table: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Rows by name, each a mapping of its values; None where one is not known."""
    whole = table.astype(object).mask(table.isna(), None)
    return {
        str(name): {
            str(column): value.item() if isinstance(value, np.generic) else value
            for column, value in row.items()
        }
        for name, row in whole.iterrows()
    }
