"""Coordinates and labels of samples, as scores read them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from batchcorr.design.labels import BatchLabels
from batchcorr.errors import InputError
from batchcorr.estimators.inputs import check_order
from batchcorr.estimators.matrix import as_matrix, is_sparse

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["points_and_codes"]


def points_and_codes(
    embedding: object, labels: object
) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
    """Coordinates (n, k), and the code of each sample's label (n,).

    Raises
    ------
    DesignError
        If labels are missing.
    InputError
        If there is not one label a sample, or coordinates are none or not finite.
    """
    check_order(embedding, labels=labels)
    given = as_matrix(embedding)
    points = np.asarray(given.toarray() if is_sparse(given) else given, np.float64)
    if 0 in points.shape:
        msg = f"There is nothing to score in a matrix of shape {points.shape}."
        raise InputError(msg)
    if not np.isfinite(points).all():
        msg = (
            "The coordinates contain missing or infinite values: leave out these "
            "samples."
        )
        raise InputError(msg)
    return points, BatchLabels.factorize(labels, name="labels", n_rows=len(points))[1]
