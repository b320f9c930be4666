"""Effective library sizes of samples: learned from some, frozen, measured in others.

The state of `LogNormalize`, as `FittedState` is that of a location-scale method: what it
shows, saves, and is made from.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from batchcorr._files.expected import Expected, number
from batchcorr._files.npz import shape_of, take
from batchcorr.arrays.counts import CountRows, count_rows, effective_library_sizes
from batchcorr.errors import InputError
from batchcorr.estimators.base import Corrector
from batchcorr.estimators.raw_counts import is_dask, raw_counts, warn_of_empty
from batchcorr.estimators.scale import warn_of_logs
from batchcorr.models.counts.size_factors import (
    METHODS,
    Reference,
    fit_reference,
    scaled_totals,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from batchcorr.models.counts.samples import Samples
    from batchcorr.models.namespace import Matrix

__all__ = ["LibrarySizes"]

LEAVE_OUT = (
    "all of their values become that of a zero count. Consider leaving them out."
)


class LibrarySizes(Corrector):
    """The state of an estimator that measures how deeply samples were sequenced."""

    method: str
    target_sum: float | None
    prior_count: float | None

    size_factors_: NDArray[np.float64] | None
    target_sum_: float
    mean_library_: float | None
    reference_: Reference

    def size_factors(self, X: object) -> NDArray[np.float64]:
        """Return what the counts of samples are divided by, (n,).

        Parameters
        ----------
        X
            Raw counts of the features of `fit`; a Dask array is read now.

        Returns
        -------
        Size factors in float64, (n,); 1 for samples without counts.
        """
        x, found = self._measure(X)
        if is_dask(x):
            found = found.compute()
            warn_of_empty(found, LEAVE_OUT)
        divisors: NDArray[np.float64] = self._divisors(found)
        return divisors

    def __sklearn_tags__(self) -> Any:
        """Tell scikit-learn that counts are positive and known."""
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = False
        tags.input_tags.positive_only = True
        return tags

    def fit_counts(self, X: object) -> tuple[Matrix, Matrix]:
        """Fit to samples, and measure the same samples.

        Parameters
        ----------
        X
            Raw counts, samples × features.

        Returns
        -------
        counts
            The matrix of the counts.
        sizes
            Effective library sizes of the samples: (n,).
        """
        self._check_parameters()
        samples = self._samples(X)
        x = raw_counts(X)
        if x.shape[0] == 0:
            msg = (
                f"There is nothing to fit: the data are 0 samples × {x.shape[1]} "
                "features."
            )
            raise InputError(msg)
        if is_dask(x) and self._needs_no_samples():
            self._remember_features(samples, x.shape[1])
            self.reference_ = Reference(self.method, np.zeros(0))
            self.mean_library_ = self.size_factors_ = None
            self.target_sum_ = float(self.target_sum)  # type: ignore[arg-type]
            return x, effective_library_sizes(x, self.reference_)
        found = self.fit_samples(count_rows(x))
        self._remember_features(samples, x.shape[1])
        return x, found

    def fit_samples(self, samples: Samples) -> NDArray[np.float64]:
        """Fit to the counts of samples, wherever they are.

        Parameters
        ----------
        samples
            Totals of the samples, and some of their counts.

        Returns
        -------
        Effective library sizes of the samples: (n,).
        """
        reference, factors = fit_reference(samples, self.method)
        totals = samples.totals
        warn_of_empty(totals, LEAVE_OUT)
        warn_of_logs(samples.logged, type(self).__name__)
        found = scaled_totals(reference, totals, factors)
        self.reference_ = reference
        self.mean_library_ = float(found[totals > 0].mean())
        self.target_sum_ = self._target(found[totals > 0])
        self.size_factors_ = self._divisors(found)
        return found

    def _needs_no_samples(self) -> bool:
        """Whether each sample is measured by itself, against a number that was given."""
        own = METHODS[self.method].factor is None
        return own and self.target_sum is not None and self.prior_count is None

    def _target(self, found: NDArray[np.float64]) -> float:
        """Return T for samples with some effective library sizes."""
        if self.target_sum is not None:
            return float(self.target_sum)
        if self.prior_count is not None:
            return 1e6
        if METHODS[self.method].of_library:
            return float(np.median(found))
        return self.reference_.library

    def _measure(self, X: object) -> tuple[Matrix, Matrix]:
        """Return counts and effective library sizes of samples, fitted or new."""
        self._require_fitted()
        x = raw_counts(X)
        self._check_features(self._samples(X), x.shape[1])
        found = effective_library_sizes(x, self.reference_)
        if not is_dask(x):
            warn_of_empty(found, LEAVE_OUT)
            warn_of_logs(CountRows(x, found).logged, type(self).__name__)
        return x, found

    def _divisors(self, found: Matrix) -> Matrix:
        return np.where(found > 0, found / self.target_sum_, 1.0)

    def _state(self) -> tuple[dict[str, object], Mapping[str, NDArray[np.generic]]]:
        plain = asdict(self.reference_)
        arrays = {"profile": plain.pop("profile")}
        return {
            "reference": plain,
            "target_sum": self.target_sum_,
            "mean_library": self.mean_library_,
        }, arrays

    def _set_state(
        self, plain: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]
    ) -> None:
        method = plain["reference"]["method"]
        if method not in METHODS:
            msg = f"{method!r:.40} is not a method of size factors."
            raise InputError(msg)
        empty = shape_of(arrays, "profile") == (0,)
        shape = (0 if empty else self.n_features_,)
        profile = Expected(shape, "fb", finite=False)
        self.reference_ = Reference(
            method,
            take(arrays, {"profile": profile})["profile"],
            library=number(plain["reference"], "library", above=0),
            centre=number(plain["reference"], "centre", above=0),
        )
        if not (self.reference_.profile < np.inf).all():  # -inf: takes no part
            msg = "profile holds missing or infinite values."
            raise InputError(msg)
        self.method = method
        self.target_sum_ = number(plain, "target_sum", above=0)
        self.mean_library_ = None  # totals against a number need none
        if plain["mean_library"] is not None or not self._needs_no_samples():
            self.mean_library_ = number(plain, "mean_library", above=0)
        self.size_factors_ = None

    def _summary(self) -> dict[str, object]:
        return {
            "target_sum": self.target_sum_,
            "mean_library": self.mean_library_,
            "library_factor_centre": self.reference_.centre,
        }
