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
    """False positive rates of correct-then-test and of the one-step test, on permuted data.

    Parameters
    ----------
    method, test
        The correction method and the tested column or contrast, as given.
    rates
        Two rows, the method and ``one_step``: ``false_positive_rate`` with the 95 %
        interval of its mean over permutations (``low``, ``high``), and ``predicted``,
        the prediction of `audit` (NaN for methods that it cannot predict). If several
        levels are tested, the largest rate of the levels and of the F test.
    by_permutation
        The rate of each permutation, one column per row of `rates`.
    alpha
        Significance level: the nominal false positive rate.
    by_level
        If several levels are tested: the rates of each level and of the F test
        (``any``), one column per row of `rates`.

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
        """Whether the rate of the method exceeds 1.6 α, which is 8 % at α = 5 %."""
        return self._rate() > INFLATED * self.alpha

    def to_dict(self) -> dict[str, Any]:
        """Return the result as plain values that can be written as JSON.

        Returns
        -------
        Method, test, rates, whether the method is flagged, and the number of
        permutations.
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
                return (
                    "The test with batch in the model has about the nominal false "
                    "positive rate."
                )
            return (
                f"The test with batch in the model has a false positive rate of {rate} "
                f"instead of {wanted}: check whether batches differ in variance "
                "(equal_variances=False)."
            )
        if self.flagged:
            return (
                f"After {self.method} a test without batch has a false positive rate "
                f"of {rate} instead of {wanted}. Test the uncorrected values with "
                "batch in the model: batchcorr.tl.differential(adata, batch_key, "
                f"{self.test!r})."
            )
        return (
            f"After {self.method} a test without batch has about the nominal false "
            "positive rate."
        )

    def _about(self) -> str:
        return (
            f"False positives: features with p < {self.alpha:g} after {self.test} was "
            f"permuted within batches ({len(self.by_permutation)} permutations), so "
            "that there are no true differences."
        )

    def __str__(self) -> str:
        shown = self.rates.map(lambda value: "" if np.isnan(value) else f"{value:.1%}")
        return f"{self._about()}\n{shown.to_string()}\n{self._verdict()}"

    def _repr_html_(self) -> str:
        table = self.rates.to_html(float_format="{:.3f}".format, na_rep="", escape=True)
        return f"<p>{escape(self._about())}</p>{table}<p>{escape(self._verdict())}</p>"
