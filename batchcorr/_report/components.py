"""The first two principal components of values as they are, for a picture of them.

The products are those of a corrected matrix whose correction changes nothing, so that
sparse and Dask matrices stay as they are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from batchcorr.arrays import moments
from batchcorr.arrays.corrected import CorrectedMatrix
from batchcorr.design.design import Design
from batchcorr.estimators.matrix import as_matrix
from batchcorr.models.krylov import leading_eigenvectors
from batchcorr.models.location_scale import LocationScale

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["MOST_FEATURES", "Components", "most_variable", "principal_components"]

MOST_FEATURES = 2000
"""Features that components are taken of: those that vary most."""

BLOCK = 8
"""Vectors multiplied at a time, for two that are wanted."""

TOLERANCE = 1e-2
"""A residual as a share of the variance that is too small to be seen."""


class Components(NamedTuple):
    """Coordinates of the samples, (n, 2), and the share of the variance on each axis."""

    scores: NDArray[np.float64]
    shares: NDArray[np.float64]


def most_variable(x: Any) -> NDArray[np.intp]:
    """The features that vary most and have no missing values, in their order."""
    variance = _whole(x).var()
    usable = np.flatnonzero(np.isfinite(variance) & (variance > 0))
    order = np.argsort(-variance[usable], kind="stable")
    return np.sort(usable[order[:MOST_FEATURES]])


def principal_components(x: Any, features: NDArray[np.intp]) -> Components | None:
    """Two components of some features; None where there are not two to take."""
    matrix = _whole(x)
    if len(features) < matrix.shape[1]:
        matrix = matrix.select(features)
    if min(matrix.shape) < 3 or not np.isfinite(matrix.var()).all():
        return None
    total = float(matrix.var().sum())
    if total <= 0:
        return None
    centred = matrix.centred()
    narrow = np.float32 if centred.dtype == np.float32 else np.float64
    random = np.random.default_rng(0)
    values, loadings, _ = leading_eigenvectors(
        lambda block: centred.gram_times(block.astype(narrow)),
        len(features),
        2,
        tolerance=TOLERANCE,
        precision=1e-6,
        random=random,
        start=random.standard_normal((len(features), min(BLOCK, len(features)))),
    )
    largest = loadings[np.argmax(np.abs(loadings), axis=0), [0, 1]]
    loadings *= np.where(largest < 0, -1, 1)
    return Components(centred @ loadings, values / (matrix.shape[0] - 1) / total)


def _whole(x: Any) -> CorrectedMatrix:
    """A matrix as it is, its rows one batch; features with missing values have none."""
    x = as_matrix(x)
    design = Design.of(np.zeros(x.shape[0]))
    sums = moments(x, design)
    lacking = np.broadcast_to((sums.n < sums.rows).any(axis=0), (x.shape[1],))
    one, none = np.ones((1, x.shape[1])), np.zeros((0, x.shape[1]))
    identity = LocationScale(np.where(lacking, np.nan, one), 0 * one, none, none)
    return CorrectedMatrix(x, design, identity, sums)
