"""The first two principal components of values as they are, for a picture of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from batchcorr.arrays import moments
from batchcorr.arrays.corrected import CorrectedMatrix
from batchcorr.design.design import Design
from batchcorr.estimators.matrix import as_matrix
from batchcorr.tl._components import components

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["MOST_FEATURES", "Components", "most_variable", "principal_components"]

MOST_FEATURES = 2000
"""Features that components are taken of: those that vary most."""

TOLERANCE = 1e-2
"""A residual as a share of the variance that is too small to be seen."""


class Components(NamedTuple):
    """Coordinates of the samples, (n, 2), and the share of the variance on each axis."""

    scores: NDArray[np.float64]
    shares: NDArray[np.float64]


def most_variable(x: object) -> NDArray[np.intp]:
    """The features that vary most and have no missing values, in their order."""
    matrix = _whole(x)
    sums = matrix.moments
    variance = np.where((sums.n == sums.rows).all(axis=0), matrix.var(), 0)
    usable = np.flatnonzero(variance > 0)
    order = np.argsort(-variance[usable], kind="stable")
    return np.sort(usable[order[:MOST_FEATURES]])


def principal_components(x: object, features: NDArray[np.intp]) -> Components | None:
    """Two components of some features; None where there are not two to take."""
    matrix = _whole(x)
    if len(features) < matrix.shape[1]:
        matrix = matrix.select(features)
    total = float(matrix.var().sum())
    if min(matrix.shape) < 3 or not total > 0:
        return None
    random = np.random.default_rng(0)
    squares, _, scores = components(matrix.centred(), 2, TOLERANCE, random)
    return Components(scores, squares / (matrix.shape[0] - 1) / total)


def _whole(x: Any) -> CorrectedMatrix:
    """A matrix as it is, its rows one batch."""
    x = as_matrix(x)
    design = Design.of(np.zeros(x.shape[0]))
    return CorrectedMatrix.unchanged(x, design, moments(x, design))
