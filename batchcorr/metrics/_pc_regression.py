r"""The share of an embedding's variance that lies between batches.

    R² = Σ_k Σ_b n_b (z̄_bk - z̄_k)² / Σ_k Σ_i (z_ik - z̄_k)²

the mean R² of the components on batch, each weighted by its variance.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from batchcorr.errors import InputError
from batchcorr.metrics._points import points_and_codes

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["pc_regression", "share_between"]


def pc_regression(embedding: object, labels: object) -> float:
    r"""Return the share of the variance of principal components that labels explain.

    .. math:: R^2 = \sum_k s_k^2 R_k^2 / \sum_k s_k^2

    Parameters
    ----------
    embedding
        Coordinates of the samples, such as unscaled principal components: (n, k).
    labels
        Batch of each sample: (n,).

    Returns
    -------
    From 0 to 1; for random labels the expected value is (B - 1) / (n - 1).

    Raises
    ------
    DesignError
        If labels are missing.
    InputError
        If shapes do not match, or nothing varies.

    References
    ----------
    Büttner et al. (2019), Nat. Methods 16:43-49.

    Examples
    --------
    >>> pc_regression([[0.0, 1.0], [0.0, -1.0], [2.0, 1.0], [2.0, -1.0]], [0, 0, 1, 1])
    0.5
    """
    points, codes = points_and_codes(embedding, labels)
    share = share_between(points, codes)
    if np.isnan(share):
        msg = "The coordinates do not vary: there is nothing to explain."
        raise InputError(msg)
    return share


def share_between(points: NDArray[np.float64], codes: NDArray[np.generic]) -> float:
    """R² of all coordinates together on integer labels; NaN where nothing varies."""
    centred = points - points.mean(axis=0)
    sizes = np.bincount(codes)
    sums = np.stack([np.bincount(codes, column) for column in centred.T], axis=1)
    between = (sums**2 / np.maximum(sizes, 1)[:, None]).sum()
    total = (centred**2).sum()
    return float(between / total) if total > 0 else float("nan")
