"""Estimates of contrasts where samples of one subject are alike: one common correlation.

Two reads: moments by batch, and sums by subject. Features with missing values are taken
out and fitted pattern by pattern, and those whose values have weights one by one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from batchcorr.arrays import moments
from batchcorr.arrays.log_counts import LogCounts
from batchcorr.design.design import Design
from batchcorr.design.labels import BatchLabels
from batchcorr.errors import DesignError, TooLargeError
from batchcorr.estimators.densify import free_memory
from batchcorr.estimators.subject_samples import Part, Rows, SubjectSamples
from batchcorr.models.namespace import to_numpy
from batchcorr.models.random_intercept import SubjectSums

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from batchcorr.estimators.problem import Problem
    from batchcorr.models.moments import Moments
    from batchcorr.models.namespace import Matrix

    Floats = NDArray[np.float64]
    Weights = Floats | Callable[[slice], Floats] | None

__all__ = ["Subjects"]

BLOCK = 512
"""Features that are made dense at a time."""

SUBJECTS = 4000
"""Most subjects whose differences are taken apart."""


@dataclass(frozen=True)
class Subjects:
    """Who samples are of: codes (n,)."""

    codes: NDArray[np.int32]

    @classmethod
    def of(cls, subject: object, shape: tuple[int, int]) -> Subjects:
        """Read who samples are of, (n,).

        Raises
        ------
        DesignError
            If labels are missing, all samples are of one subject, or each of another.
        TooLargeError
            If there are more subjects than their sums can be kept for.
        """
        n_rows, n_features = shape
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
                f"{size / 1e9:,.1f} GB ({free / 1e9:,.1f} GB are free), and at most "
                f"{SUBJECTS:,} subjects are possible: test fewer features, or sum the "
                "cells of each subject (pseudobulk) and test without subject=."
            )
            raise TooLargeError(msg)
        return cls(labels.codes(subject, n_rows=n_rows))

    def samples(
        self, x: object, problem: Problem, columns: list[int], weights: Weights = None
    ) -> SubjectSamples:
        """Gather the sums by subject.

        Parameters
        ----------
        problem, columns
            The problem, read without weights, and the columns of the model.
        weights
            Of samples (n,) or values (n, G), or what gives those of a block of features.

        Notes
        -----
        Features with missing values, and all of them if values have weights, are gathered
        one pattern after another.
        """
        design, plain = problem.design_as_read, problem.read.select(columns)
        assert design is not None
        of_samples = None
        if weights is not None and not callable(weights) and weights.ndim == 1:
            of_samples = weights
        of_values = weights is not None and of_samples is None
        root = np.ones(len(self.codes))
        if of_samples is not None:
            root = np.sqrt(np.maximum(of_samples, 0))
        used = np.flatnonzero(root > 0)
        read = plain
        if of_samples is not None:
            read = moments(x, design, weights=of_samples).select(columns)
        n = plain.n.sum(axis=0)
        seen = np.broadcast_to(n, (plain.n_features,))
        means = read.columns[..., int(np.argmax(seen)) if read.n.shape[1] > 1 else 0]
        batch = design.codes[used]
        inside = (
            design.columns[used][:, columns] - means[batch]
        )  # of the fullest feature
        both = np.hstack([np.eye(design.n_batches)[batch], inside])
        rows = Rows(used, root[used], both, self.codes[used])
        if of_values:
            parts = list(_one_by_one(x, rows, weights))
        else:
            complete = seen == len(used)
            parts = list(_incomplete(x, rows, np.flatnonzero(~complete)))
            if complete.any():
                roots = None if of_samples is None else root
                own = moments(x, Design.of(self.codes), weights=roots)
                parts.append(_complete(rows, read, own, np.flatnonzero(complete)))
        with np.errstate(divide="ignore", invalid="ignore"):
            mean = (plain.n * plain.mean).sum(axis=0) / seen
        return SubjectSamples(parts, rows, mean, (plain.squares > 0).any(axis=0))


def _complete(
    rows: Rows, read: Moments, own: Moments, features: NDArray[np.intp]
) -> Part:
    """The sums of features without missing values, from moments.

    Parameters
    ----------
    read
        By batch, weighted by the weights of samples.
    own
        By subject, weighted by the roots of these.
    """
    read, own = read.select_features(features), own.select_features(features)
    n = read.n[:, :1]
    middle = (n * read.mean).sum(axis=0) / n.sum()
    away = read.mean - middle
    scaled = rows.root[:, None] * rows.columns
    count = own.n_batches
    by_subject = np.zeros((count, scaled.shape[1]))
    np.add.at(by_subject, rows.subject, scaled)
    sums = SubjectSums(
        n=np.bincount(rows.subject, minlength=count).astype(np.float64),
        columns=by_subject,
        values=own.n * (own.mean - middle),
        gram=scaled.T @ scaled,
        cross=np.vstack([n * away, read.cross.sum(axis=0)]),
        squares=(read.squares + n * away**2).sum(axis=0),
    )
    return Part(features, sums, middle)


def _incomplete(x: Matrix, rows: Rows, features: NDArray[np.intp]) -> Iterator[Part]:
    """The sums of features that share what is missing, from their values."""
    if not len(features):
        return
    values = _dense(x[:, features])[rows.used]
    patterns, of = np.unique(np.isnan(values), axis=1, return_inverse=True)
    for k, missing in enumerate(patterns.T):
        own, there = np.flatnonzero(of == k), ~missing
        if there.any():
            some = values[np.ix_(there, own)]
            yield rows.take(there).part(features[own], some)


def _one_by_one(x: object, rows: Rows, weights: Any) -> Iterator[Part]:
    """The sums of each feature, whose values have weights of their own."""
    for part, values in _blocks(x):
        own = weights(part) if callable(weights) else weights[:, part]
        for k in range(values.shape[1]):
            there = (own[:, k] > 0) & ~np.isnan(values[:, k])
            if there.any():
                few = rows.take(there)._replace(root=np.sqrt(own[there, k]))
                yield few.part(np.array([part.start + k]), values[there, k : k + 1])


def _blocks(x: Matrix) -> Iterator[tuple[slice, Floats]]:
    """Blocks of features, dense: (n, width)."""
    if isinstance(x, LogCounts):
        yield from x.blocks()
        return
    for start in range(0, x.shape[1], BLOCK):
        part = slice(start, min(start + BLOCK, x.shape[1]))
        yield part, _dense(x[:, part])


def _dense(x: object) -> Floats:
    """Some columns of a matrix of any kind, in float64."""
    x = x.compute() if hasattr(x, "compute") else x
    x = x.toarray() if hasattr(x, "toarray") else x
    return to_numpy(x).astype(np.float64)
