"""What a report is asked for."""

from __future__ import annotations

from typing import Any, NamedTuple

from batchcorr.errors import some
from batchcorr.estimators.contrasts import read_contrast

__all__ = ["Question"]


class Question(NamedTuple):
    """What the report is asked for, the columns as the records fill them in.

    Attributes
    ----------
    batches
        Column with the batch, and those of further batch factors.
    nuisance
        What else was removed with it: columns, or matrices of `obsm`.
    covariates
        What was, or is to be, kept: columns, a formula or a table.
    test
        What is tested, as `tl.differential` takes it; None: nothing.
    labels
        Column with what should stay apart, such as cell types; None: there is none.
    title
        Heading of the page.
    min_count
        Counts that a feature needs to be tested, as in `tl.differential`.
    """

    batches: list[str]
    nuisance: list[str]
    covariates: Any
    test: Any
    labels: str | None
    title: str
    min_count: float | None = None

    @property
    def batch(self) -> str:
        """The column with the batch."""
        return self.batches[0]

    @property
    def column(self) -> str | None:
        """The column that is tested."""
        return None if self.test is None else read_contrast(self.test).column

    @property
    def kept(self) -> list[str]:
        """The covariates in words."""
        given = self.covariates
        if given is None:
            return []
        if isinstance(given, str):
            return [given]
        return [str(name) for name in getattr(given, "columns", given)]

    @property
    def beyond(self) -> str:
        """The covariates and the tested column in words, as shares are beyond them."""
        if isinstance(self.covariates, str):
            return "the covariates"
        return some(self._with_tested(self.kept))

    @property
    def explained(self) -> Any:
        """What explains variance beside batch: the covariates and the tested column."""
        if self.covariates is None or isinstance(self.covariates, list):
            return self._with_tested(self.covariates or []) or None
        return self.covariates

    def _with_tested(self, names: list[str]) -> list[str]:
        column = [] if self.column is None else [self.column]
        return list(dict.fromkeys([*names, *column]))
