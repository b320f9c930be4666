"""The test of uncorrected values, batch in the model, as a report shows it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from batchcorr import tl
from batchcorr._report.features import top_of_test
from batchcorr.errors import DesignError, InputError
from batchcorr.estimators.contrasts import read_contrast

if TYPE_CHECKING:
    import pandas as pd

    from batchcorr._report.matrices import Compared
    from batchcorr._report.question import Question
    from batchcorr.tl import Audit

__all__ = ["Tested", "tested"]

FDR = 0.05
"""Rate of false discoveries at which features are counted."""


class Tested(NamedTuple):
    """The one-step test, or why there is none."""

    column: str
    label: str
    call: str
    table: pd.DataFrame | None
    why_not: str = ""

    @property
    def statistic(self) -> str:
        """What its p-values are of."""
        return "F" if self.table is not None and "f" in self.table else "t"

    @property
    def n_found(self) -> int:
        """Features at the rate of false discoveries that is wanted."""
        return 0 if self.table is None else int((self.table["p_adjusted"] < FDR).sum())

    @property
    def top(self) -> pd.DataFrame | None:
        """The first features."""
        return None if self.table is None else top_of_test(self.table)


def tested(question: Question, found: Compared, audit: Audit) -> Tested | None:
    """The test of the uncorrected values, batch in the model."""
    if question.test is None:
        return None
    contrast = read_contrast(question.test)
    label = contrast.column
    if isinstance(question.test, tuple) and len(question.test) == 3:
        label += f": {question.test[1]} against {question.test[2]}"
    values = found.before
    if values is None:
        why = "The data hold no uncorrected values, and corrected ones are not tested."
        return Tested(contrast.column, label, "", None, why)
    if any(finding.code == "already_corrected" for finding in audit.findings):
        why = "The values look corrected already, and corrected ones are not tested."
        return Tested(contrast.column, label, "", None, why)
    covariates = question.covariates
    if isinstance(covariates, list):
        covariates = [name for name in covariates if name != contrast.column] or None
    batch = [question.batch, *question.others] if question.others else question.batch
    arguments: dict[str, Any] = {}
    if covariates is not None:
        arguments["covariates"] = covariates
    if values.layer is not None:
        arguments["layer"] = values.layer
    if values.from_counts:
        arguments["trend"] = True
    written = "".join(
        f", {name}={value!r}" if isinstance(value, str | list | bool) else f", {name}=…"
        for name, value in arguments.items()
    )
    call = f"bc.tl.differential(adata, {batch!r}, {question.test!r}{written})"
    try:
        table = tl.differential(values.adata, batch, question.test, **arguments)
    except (DesignError, InputError) as error:
        return Tested(contrast.column, label, call, None, str(error))
    return Tested(contrast.column, label, call, table)
