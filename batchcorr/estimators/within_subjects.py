"""Estimates of contrasts where samples of one subject are alike: one common correlation.

Two reads: moments by batch, and sums by subject. Features with missing values are taken
out and fitted pattern by pattern.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from batchcorr.arrays import moments
from batchcorr.design.design import Design
from batchcorr.design.labels import BatchLabels
from batchcorr.errors import DesignError, TooLargeError
from batchcorr.estimators.densify import free_memory
from batchcorr.models.generalized_inverse import determined
from batchcorr.models.namespace import to_numpy
from batchcorr.models.one_step_test import Estimates
from batchcorr.models.random_intercept import SubjectSums
from batchcorr.models.subject_correlation import (
    consensus,
    subject_correlation,
    whitened,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from batchcorr.estimators.problem import Problem
    from batchcorr.models.moments import Moments

    Floats = NDArray[np.float64]
    Part = tuple[NDArray[np.intp], SubjectSums]

__all__ = ["WithinSubjects"]

SUBJECTS = 4000
"""Most subjects whose differences are taken apart."""


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

    def sums(self, values: Floats) -> SubjectSums:
        """The sums of values (n, G) of these samples, measured from their mean."""
        values = self.root[:, None] * (values - values.mean(axis=0))
        _, subject = np.unique(self.subject, return_inverse=True)
        return SubjectSums.of(values, self.root[:, None] * self.columns, subject)


@dataclass(frozen=True)
class WithinSubjects:
    """How contrasts are estimated where several samples are of one subject.

    Attributes
    ----------
    x
        The matrix that the problem was read from.
    codes
        The subject of each sample: (n,).
    weights, observed
        Of each sample, (n,), and the moments without them; None: there are none.
    """

    x: Any
    codes: NDArray[np.int32]
    weights: Floats | None = None
    observed: Moments | None = None

    @classmethod
    def of(
        cls,
        x: Any,
        subject: object,
        weights: Floats | None = None,
        observed: Moments | None = None,
    ) -> WithinSubjects:
        """Read who samples are of, (n,).

        Raises
        ------
        DesignError
            If labels are missing, all samples are of one subject, or each of another.
        TooLargeError
            If there are more subjects than their sums can be kept for.
        """
        n_rows, n_features = x.shape
        labels = BatchLabels.fit(subject, name="subject", n_rows=n_rows)
        count = len(labels.levels)
        if count in {1, n_rows}:
            which = "one subject" if count == 1 else "another subject each"
            msg = f"All {n_rows} samples are of {which}: leave out subject=."
            raise DesignError(msg)
        size, free = 40 * count * n_features, free_memory()
        if count > SUBJECTS or size > free / 2:
            msg = (
                f"The sums of {count:,} subjects over {n_features:,} features take "
                f"{size / 1e9:,.1f} GB ({free / 1e9:,.1f} GB are free), and up to "
                f"{SUBJECTS:,} subjects can be told apart: test fewer features, or sum "
                "the cells of each subject and test without subject=."
            )
            raise TooLargeError(msg)
        return cls(x, labels.codes(subject, n_rows=n_rows), weights, observed)

    def estimates(
        self, problem: Problem, columns: list[int], contrasts: Floats
    ) -> Estimates:
        """The estimates of contrasts (k, q) of the q columns as read.

        Raises
        ------
        DesignError
            If batches and covariates leave no differences of subjects.
        """
        plain = problem.read if self.observed is None else self.observed
        seen = np.broadcast_to(plain.n.sum(axis=0), (plain.n_features,))
        rows = self._rows(problem, columns, int(np.argmax(seen)))
        complete = seen == len(rows.used)
        parts = list(self._incomplete(rows, np.flatnonzero(~complete)))
        if complete.any():
            features = np.flatnonzero(complete)
            parts.append((features, self._complete(problem, columns, rows, features)))
        width, largest = rows.columns.shape[1], int(np.bincount(rows.subject).max())
        correlation = consensus(
            [subject_correlation(sums, width, largest) for _, sums in parts]
        )
        if np.isnan(correlation):
            msg = (
                "How alike the samples of a subject are cannot be told from these "
                "samples: batches and covariates leave no subject with several, or "
                "there are too few. Leave out subject=."
            )
            raise DesignError(msg)
        with np.errstate(divide="ignore", invalid="ignore"):
            mean = (plain.n * plain.mean).sum(axis=0) / seen
        return _together(parts, correlation, contrasts, mean)

    def _rows(self, problem: Problem, columns: list[int], fullest: int) -> Rows:
        """The samples that take part, columns centred as those of the fullest feature."""
        design, means = problem.design_as_read, problem.read.columns[:, columns]
        assert design is not None
        weights = np.ones(len(self.codes)) if self.weights is None else self.weights
        used = np.flatnonzero(weights > 0)
        batch = design.codes[used]
        inside = design.columns[used][:, columns]
        inside = inside - means[..., fullest if means.shape[-1] > 1 else 0][batch]
        of_batch = np.eye(design.n_batches)[batch]
        root = np.sqrt(weights[used])
        return Rows(used, root, np.hstack([of_batch, inside]), self.codes[used])

    def _complete(
        self, problem: Problem, columns: list[int], rows: Rows, features: object
    ) -> SubjectSums:
        """The sums of features without missing values, from moments."""
        read = problem.read.select(columns).select_features(features)
        n = read.n[:, :1]
        middle = (n * read.mean).sum(axis=0) / n.sum()
        away = read.mean - middle
        scaled = rows.root[:, None] * rows.columns
        root = None
        if self.weights is not None:
            root = np.sqrt(np.maximum(self.weights, 0))
        count = int(self.codes.max()) + 1
        own = moments(self.x, Design.of(self.codes, count), weights=root)
        own = own.select_features(features)
        by_subject = np.zeros((count, scaled.shape[1]))
        np.add.at(by_subject, rows.subject, scaled)
        return SubjectSums(
            n=np.bincount(rows.subject, minlength=count).astype(np.float64),
            columns=by_subject,
            values=own.n * (own.mean - middle),
            gram=scaled.T @ scaled,
            cross=np.vstack([n * away, read.cross.sum(axis=0)]),
            squares=(read.squares + n * away**2).sum(axis=0),
        )

    def _incomplete(self, rows: Rows, features: NDArray[np.intp]) -> Iterator[Part]:
        """The sums of features that share what is missing, from their values."""
        if not len(features):
            return
        values = _dense(self.x[:, features])[rows.used]
        patterns, of = np.unique(np.isnan(values), axis=1, return_inverse=True)
        for k, missing in enumerate(patterns.T):
            own, there = np.flatnonzero(of == k), ~missing
            if there.any():
                yield features[own], rows.take(there).sums(values[np.ix_(there, own)])


def _together(
    parts: list[Part], correlation: float, contrasts: Floats, mean: Floats
) -> Estimates:
    """The estimates of all features at one correlation; NaN where nothing was seen."""
    k, n_features = len(contrasts), len(mean)
    coefficient = np.full((k, n_features), np.nan)
    covariance = np.full((k, k, n_features), np.nan)
    squares, df = np.zeros(n_features), np.zeros(n_features)
    for features, sums in parts:
        gram, cross, of_values = whitened(sums, correlation)
        whole = np.zeros((k, len(gram)))
        whole[:, len(gram) - contrasts.shape[1] :] = contrasts  # 0 of each batch
        found = determined(gram[None], cross, whole)
        coefficient[:, features] = found.coefficient
        covariance[:, :, features] = found.covariance
        squares[features] = np.maximum(of_values - found.explained, 0)
        df[features] = np.maximum(sums.n.sum() - found.rank, 0)
    return Estimates(coefficient, covariance, squares, df, mean, correlation)


def _dense(x: object) -> Floats:
    """Some columns of a matrix of any kind, in float64."""
    x = x.compute() if hasattr(x, "compute") else x
    x = x.toarray() if hasattr(x, "toarray") else x
    return to_numpy(x).astype(np.float64)
