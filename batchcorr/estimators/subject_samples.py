"""Sums of samples by subject, and what follows from them at one correlation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from batchcorr.errors import DesignError
from batchcorr.models.generalized_inverse import determined
from batchcorr.models.one_step_test import Estimates
from batchcorr.models.random_intercept import SubjectSums
from batchcorr.models.subject_correlation import (
    consensus,
    subject_correlation,
    whitened,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

__all__ = ["Part", "Rows", "SubjectSamples"]


class Rows(NamedTuple):
    """The samples that take part, n of them.

    Attributes
    ----------
    used
        Which of all samples these are: (n,).
    root
        Root of the weight of each: (n,).
    columns
        One of each batch, then the columns as read, centred: (n, B + q).
    subject
        Who each is of: (n,).
    """

    used: NDArray[np.intp]
    root: Floats
    columns: Floats
    subject: NDArray[np.int32]

    def take(self, which: NDArray[np.generic]) -> Rows:
        """Some of the samples."""
        return Rows(*(part[which] for part in self))

    def part(self, features: NDArray[np.intp], values: Floats) -> Part:
        """The sums of values (n, G) of these samples, measured from their mean."""
        middle = values.mean(axis=0)
        _, subject = np.unique(self.subject, return_inverse=True)
        root = self.root[:, None]
        sums = SubjectSums.of(root * (values - middle), root * self.columns, subject)
        return Part(features, sums, middle)


class Part(NamedTuple):
    """Features that share their samples: (g,) of them, their sums, and their middle."""

    features: NDArray[np.intp]
    sums: SubjectSums
    middle: Floats


@dataclass(frozen=True)
class SubjectSamples:
    """Sums by subject of all features, and what follows from them.

    Attributes
    ----------
    parts
        The sums, of features that share their samples.
    rows
        The samples that take part.
    mean
        Mean of each feature's observed values: (G,).
    varies
        Which features vary within a batch, and so tell how alike samples are: (G,).
    """

    parts: list[Part]
    rows: Rows
    mean: Floats
    varies: NDArray[np.bool_]

    def correlation(self) -> float:
        """The correlation of a subject's samples, common to all features.

        Raises
        ------
        DesignError
            If batches and covariates leave no differences of subjects.
        """
        width = self.rows.columns.shape[1]
        largest = int(np.bincount(self.rows.subject).max())
        found = consensus(
            subject_correlation(part.sums, width, largest)[self.varies[part.features]]
            for part in self.parts
        )
        if np.isnan(found):
            msg = (
                "The correlation of samples of a subject cannot be estimated: given "
                "batches and covariates, no subject has several samples, or there are "
                "too few samples. Leave out subject=."
            )
            raise DesignError(msg)
        return found

    def estimates(self, correlation: float, contrasts: Floats) -> Estimates:
        """The estimates of contrasts (k, q) at one correlation.

        NaN where a feature's own samples do not determine them.
        """
        k, n_features = len(contrasts), len(self.mean)
        coefficient = np.full((k, n_features), np.nan)
        covariance = np.full((k, k, n_features), np.nan)
        squares, df = np.zeros(n_features), np.zeros(n_features)
        width = self.rows.columns.shape[1]
        whole = np.zeros((k, width))
        whole[:, width - contrasts.shape[1] :] = contrasts  # 0 of each batch
        for features, sums, _ in self.parts:
            gram, cross, of_values = whitened(sums, correlation)
            found = determined(gram[None], cross, whole)
            coefficient[:, features] = found.coefficient
            covariance[:, :, features] = found.covariance
            squares[features] = np.maximum(of_values - found.explained, 0)
            df[features] = np.maximum(sums.n.sum() - found.rank, 0)
        return Estimates(coefficient, covariance, squares, df, self.mean, correlation)

    def fit(self, correlation: float) -> tuple[Callable[[slice], Floats], Floats]:
        """Fitted values of a block of features, (n, width), and √s² of all: (G,)."""
        width = self.rows.columns.shape[1]
        beta = self.estimates(correlation, np.eye(width))
        middle = np.zeros(len(self.mean))
        for part in self.parts:
            middle[part.features] = part.middle
        with np.errstate(divide="ignore", invalid="ignore"):
            sd = np.sqrt(beta.squares / beta.df)
        return (
            lambda part: self.rows.columns @ beta.coefficient[:, part] + middle[part]
        ), sd
