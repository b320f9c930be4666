r"""Quantile normalization: give samples one common distribution, each by its own ranks.

With the values of sample i in ascending order x_i(1) ≤ … ≤ x_i(G), weights w_i that sum
to 1, and r_ij the rank of value j among the values of its sample,

    q_k = Σ_i w_i x_i(k)            y_ij = q at r_ij

A sample that lacks values has its m observed ones spread evenly over the G places: the
k-th smallest is at place 1 + (k - 1)(G - 1)/(m - 1), and what lies between is linearly
interpolated (Bolstad et al. 2003; R package limma, `normalizeQuantiles`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["sorted_values", "to_quantiles"]


def sorted_values(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the values of each sample in ascending order, with G of them in each.

    Parameters
    ----------
    x
        Values, (m, G); NaN where missing, but not everywhere in a sample.

    Examples
    --------
    >>> import numpy as np
    >>> sorted_values(np.array([[3.0, 1.0, np.nan]]))
    array([[1., 2., 3.]])
    """
    ordered = np.sort(x, axis=1)
    n = x.shape[1]
    for i in np.flatnonzero(np.isnan(ordered[:, -1])):
        known = ordered[i, ~np.isnan(ordered[i])]
        ordered[i] = np.interp(np.arange(n), _places(len(known), n), known)
    return ordered


def to_quantiles(
    x: NDArray[np.float64], target: NDArray[np.float64], *, ties: bool
) -> NDArray[np.float64]:
    """Return each value replaced by the target at its rank.

    Parameters
    ----------
    x
        Values, (m, G); NaN stays NaN.
    target
        Ascending, (G,).
    ties
        Whether equal values share their average rank and stay equal; else they take
        neighbouring ranks in the order of the features.

    Examples
    --------
    >>> import numpy as np
    >>> x, target = np.array([[7.0, 7.0, 1.0]]), np.array([10.0, 20.0, 30.0])
    >>> to_quantiles(x, target, ties=True)
    array([[25., 25., 10.]])
    >>> to_quantiles(x, target, ties=False)
    array([[20., 30., 10.]])
    """
    n = x.shape[1]
    order = np.argsort(x, axis=1, kind="stable")
    ordered = np.take_along_axis(x, order, axis=1)
    missing = np.isnan(ordered)
    ranks = _average_ranks(ordered) if ties else np.arange(n, dtype=np.float64)
    known = n - missing.sum(axis=1, keepdims=True)
    if missing.any():
        places = ranks * ((n - 1) / np.maximum(known - 1, 1))
        places = np.where(known == 1, (n - 1) / 2, np.minimum(places, n - 1))
    else:
        places = np.broadcast_to(ranks, x.shape)
    values = np.interp(places, np.arange(n), target)
    values[missing] = np.nan
    result: NDArray[np.float64] = np.empty(x.shape)
    np.put_along_axis(result, order, values, axis=1)
    return result


def _places(known: int, n: int) -> NDArray[np.float64]:
    """Return where the observed values lie among n places; the middle if it is one."""
    if known == 1:
        return np.array([(n - 1) / 2])
    return np.linspace(0.0, n - 1, known)


def _average_ranks(ordered: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return ranks from 0 in ordered rows; equal values share the mean of theirs."""
    m, n = ordered.shape
    fresh = np.ones((m, n), dtype=bool)
    np.not_equal(ordered[:, 1:], ordered[:, :-1], out=fresh[:, 1:])
    first = np.flatnonzero(fresh)
    length = np.diff(first, append=m * n)
    middle = np.repeat(first % n + (length - 1) / 2, length)
    ranks: NDArray[np.float64] = middle.reshape(m, n)
    return ranks
