"""The test of uncorrected values, batch in the model, as a report shows it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from batchcorr import tl
from batchcorr._report.features import top_of_test
from batchcorr._report.methods_text import SIZE_FACTORS
from batchcorr.errors import DesignError, InputError
from batchcorr.estimators.contrasts import read_contrast

if TYPE_CHECKING:
    import pandas as pd

    from batchcorr._report.matrices import BeforeAfter
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
    libraries: str | None = None
    """How voom measured the libraries of counts, by name; None: no counts were tested."""

    @property
    def values(self) -> str:
        """What was tested."""
        if self.libraries is None:
            return "uncorrected values"
        sizes = SIZE_FACTORS[self.libraries][0]
        return f"the uncorrected counts, weighted by voom (libraries by {sizes}),"

    @property
    def statistic(self) -> str:
        """What its p-values are of."""
        return "F" if self.table is not None and "f" in self.table else "t"

    @property
    def n_tested(self) -> int:
        """Features that have a p-value."""
        return 0 if self.table is None else int(self.table["p_value"].notna().sum())

    @property
    def n_found(self) -> int:
        """Features at the rate of false discoveries that is wanted."""
        return 0 if self.table is None else int((self.table["p_adjusted"] < FDR).sum())

    @property
    def top(self) -> pd.DataFrame | None:
        """The first features."""
        return None if self.table is None else top_of_test(self.table)


def tested(question: Question, found: BeforeAfter, audit: Audit) -> Tested | None:
    """The test of the uncorrected values, batch in the model."""
    if question.test is None:
        return None
    contrast = read_contrast(question.test)
    label = contrast.column
    if isinstance(question.test, tuple) and len(question.test) == 3:
        label += f": {question.test[1]} against {question.test[2]}"
    values = found.before
    if values is None:
        why = "The data hold no uncorrected values, and corrected ones are not tested: "
        why += "keep both, with key_added=."
        return Tested(contrast.column, label, "", None, why)
    if any(finding.code == "already_corrected" for finding in audit.findings):
        why = "The values look corrected already, and corrected ones are not tested."
        return Tested(contrast.column, label, "", None, why)
    layer, counts = values.layer, values.counts
    arguments: dict[str, Any] = {"covariates": _others(question, contrast.column)}
    arguments |= {"nuisance": question.nuisance or None}
    arguments["min_count"] = question.min_count
    if counts is not None:
        layer = None  # `values.adata` has the counts in X
        arguments["voom"] = counts.method == "total" or counts.method
    arguments = {name: value for name, value in arguments.items() if value is not None}
    batch = question.batches if len(question.batches) > 1 else question.batch
    where = layer if counts is None else counts.layer
    call = _call(batch, question.test, arguments | ({"layer": where} if where else {}))
    call, libraries = values.code + call, counts and counts.method
    try:
        table = tl.differential(
            values.adata, batch, question.test, layer=layer, **arguments
        )
    except (DesignError, InputError) as error:
        return Tested(contrast.column, label, call, None, str(error))
    return Tested(contrast.column, label, call, table, libraries=libraries)


def _call(batch: str | list[str], test: Any, arguments: dict[str, Any]) -> str:
    """The test as it is written in Python; what is long is left out."""
    written = "".join(
        f", {name}={value!r}"
        if isinstance(value, str | list | bool | float)
        else f", {name}=…"
        for name, value in arguments.items()
    )
    return f"bc.tl.differential(adata, {batch!r}, {test!r}{written})"


def _others(question: Question, tested: str) -> Any:
    """The covariates that the test is adjusted for: without the tested column."""
    given = question.covariates
    if isinstance(given, list):
        return [name for name in given if name != tested] or None
    return given
