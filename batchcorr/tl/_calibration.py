"""The result of a null calibration: rates of false positives, as text and in a notebook."""

from __future__ import annotations

from dataclasses import dataclass, field
from html import escape
from typing import Any

import numpy as np
import pandas as pd

from batchcorr.estimators.audit import INFLATED

__all__ = ["ONE_STEP", "NullCalibration"]

ONE_STEP = "one_step"
"""The way that corrects nothing and has batch in the model."""


@dataclass(frozen=True)
class NullCalibration:
    """The rates of false positives of two ways to a test, on permuted data.

    Parameters
    ----------
    method, test
        What corrects, and what is tested, as it was given.
    rates
        A row a way, the method and ``one_step``: ``false_positive_rate`` with the 95 %
        interval of its mean over permutations (``low``, ``high``), and ``predicted``,
        what `audit` says of it (NaN for methods it knows nothing of). Where several
        levels are tested, of the worst of them or of F of all.
    by_permutation
        The rate of each permutation, a column a way.
    alpha
        The rate that is wanted.
    by_level
        Where several levels are tested: the rates of each and of F (``any``), a column
        a way.

    Examples
    --------
    >>> rates = pd.DataFrame(
    ...     {"false_positive_rate": [0.21, 0.05]}, ["combat", "one_step"]
    ... )
    >>> NullCalibration("combat", "group", rates, pd.DataFrame(), 0.05).flagged
    True
    """

    method: str
    test: object
    rates: pd.DataFrame
    by_permutation: pd.DataFrame = field(repr=False)
    alpha: float = 0.05
    by_level: pd.DataFrame = field(default_factory=pd.DataFrame, repr=False)

    @property
    def flagged(self) -> bool:
        """Whether this way finds too much: over 1.6 α, so 8 % where 5 % are wanted."""
        return self._rate() > INFLATED * self.alpha

    def to_dict(self) -> dict[str, Any]:
        """The result as plain values, as JSON can hold them.

        Returns
        -------
        Method, test, rates, whether they are flagged, and how many permutations.
        """
        rates = self.rates.astype(object).mask(self.rates.isna(), None)
        return {
            "method": self.method,
            "test": self.test,
            "alpha": self.alpha,
            "flagged": self.flagged,
            "permutations": len(self.by_permutation),
            "rates": rates.to_dict(orient="index"),
            "by_level": self.by_level.to_dict(orient="index"),
        }

    def _rate(self) -> float:
        return float(self.rates["false_positive_rate"].to_dict()[self.method])

    def _verdict(self) -> str:
        rate, wanted = f"{self._rate():.1%}", f"{self.alpha:.0%}"
        if self.method == ONE_STEP:
            if not self.flagged:
                return "The test with batch in the model keeps its rate, or nearly so."
            return (
                f"The test with batch in the model finds {rate} where {wanted} are wanted: "
                "see whether batches differ in variance (equal_variances=False)."
            )
        if self.flagged:
            return (
                f"After {self.method} a test without batch finds {rate} of features where "
                f"there is nothing, and {wanted} are wanted. Test the uncorrected values "
                "with batch in the model: "
                f"batchcorr.tl.differential(adata, batch_key, {self.test!r})."
            )
        return (
            f"A test without batch keeps its rate, or nearly so, after {self.method}."
        )

    def _about(self) -> str:
        return (
            f"False positives: features with p < {self.alpha:g} after {self.test} was "
            f"shuffled within batches ({len(self.by_permutation)} times), so that there "
            "is nothing to find."
        )

    def __str__(self) -> str:
        shown = self.rates.map(lambda value: "" if np.isnan(value) else f"{value:.1%}")
        return f"{self._about()}\n{shown.to_string()}\n{self._verdict()}"

    def _repr_html_(self) -> str:
        table = self.rates.to_html(float_format="{:.3f}".format, na_rep="", escape=True)
        return f"<p>{escape(self._about())}</p>{table}<p>{escape(self._verdict())}</p>"
