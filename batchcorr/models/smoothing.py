r"""Curves through points: natural cubic splines, and robust local lines (lowess).

Natural spline on knots t_1 < … < t_k, in scaled units of the first and last knot:

    f(x) = c_1 + c_2 x + Σ_j c_{j+2} (d_j(x) - d_{k-1}(x)),
    d_j(x) = ((x - t_j)³₊ - (x - t_k)³₊) / (t_k - t_j)

cubic between knots, straight beyond the first and the last.
Lowess (Cleveland 1979): at each point a line through its nearest neighbours, weighted by
(1 - (distance / farthest)³)³, then again with weights (1 - (residual / 6 median)²)².
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

__all__ = ["lowess", "natural_spline_basis"]


def natural_spline_basis(x: Floats, knots: Floats) -> Floats:
    """Columns that span the natural cubic splines on k knots, constant first: (n, k).

    Parameters
    ----------
    x
        Where to evaluate: (n,).
    knots
        Boundary and inner knots, ascending: (k,), at least two.

    Examples
    --------
    >>> natural_spline_basis(np.array([0.0, 0.5, 2.0]), np.array([0.0, 1.0]))
    array([[1. , 0. ],
           [1. , 0.5],
           [1. , 2. ]])
    """
    low, high = knots[0], knots[-1]
    unit, inner = (x - low) / (high - low), (knots[:-1] - low) / (high - low)
    beyond = np.maximum(unit - 1, 0) ** 3
    cubes = (np.maximum(unit[:, None] - inner, 0) ** 3 - beyond[:, None]) / (1 - inner)
    lines = np.stack([np.ones_like(unit), unit], axis=1)
    return np.hstack([lines, cubes[:, :-1] - cubes[:, -1:]])


def lowess(
    x: Floats, y: Floats, *, fraction: float, rounds: int = 3, delta: float = 0.0
) -> Floats:
    """The smoothed value at every x, in the order given: (n,).

    Parameters
    ----------
    x, y
        Points, (n,) each.
    fraction
        Share of the points that are neighbours of each.
    rounds
        Times that residuals reweight the points.
    delta
        Points closer than this to the last fitted one are interpolated.
    """
    order = np.argsort(x, kind="stable")
    points, heights = x[order], y[order]
    n = len(points)
    nearest = max(min(n, int(fraction * n + 1e-7)), 2)
    trusted = np.ones(n)
    smoothed = np.empty(n)
    for again in range(rounds + 1):
        smoothed = _local_lines(points, heights, trusted, nearest, delta)
        if again == rounds:
            break
        away = np.abs(heights - smoothed)
        reach = 6 * float(np.median(away))
        if reach <= 1e-7 * away.mean():
            break
        share = (away / reach) ** 2
        trusted = np.where(away <= 0.001 * reach, 1.0, (1 - share) ** 2)
        trusted[away > 0.999 * reach] = 0.0
    result = np.empty(n)
    result[order] = smoothed
    return result


def _local_lines(
    x: Floats, y: Floats, trusted: Floats, nearest: int, delta: float
) -> Floats:
    """Fit a line at every point that is `delta` from the last, and join them."""
    n = len(x)
    fitted = np.full(n, np.nan)
    start, last = 0, -1
    place = 0
    while True:
        while (
            start + nearest < n and x[place] - x[start] > x[start + nearest] - x[place]
        ):
            start += 1
        fitted[place] = _line_at(x[place], x, y, trusted, slice(start, start + nearest))
        if last < place - 1:  # those skipped lie on the line between
            gap = x[place] - x[last]
            share = (x[last + 1 : place] - x[last]) / gap
            fitted[last + 1 : place] = (
                share * fitted[place] + (1 - share) * fitted[last]
            )
        last = place
        while last + 1 < n and x[last + 1] == x[place]:
            last += 1
            fitted[last] = fitted[place]
        if last == n - 1:
            return fitted
        stop = int(np.searchsorted(x, x[last] + delta, side="right"))
        place = max(last + 1, stop - 1)


def _line_at(
    at: float, x: Floats, y: Floats, trusted: Floats, neighbours: slice
) -> float:
    """The value at one point of the line through its weighted neighbours."""
    near = x[neighbours]
    reach = max(at - near[0], near[-1] - at)
    stop = int(np.searchsorted(x, at + 0.999 * reach, side="right"))
    ties = slice(neighbours.start, max(neighbours.stop, stop))
    near, away = x[ties], np.abs(x[ties] - at)
    if reach > 0:
        weight = (1 - np.minimum(away / reach, 1) ** 3) ** 3
    else:
        weight = np.ones_like(away)
    weight = np.where(away <= 0.001 * reach, 1.0, weight)
    weight = np.where(away <= 0.999 * reach, weight, 0.0) * trusted[ties]
    total = weight.sum()
    if total <= 0:
        return float(y[np.searchsorted(x, at)])
    weight /= total
    if reach > 0:
        centre = float(weight @ near)
        variance = float(weight @ (near - centre) ** 2)
        if np.sqrt(variance) > 0.001 * (x[-1] - x[0]):
            weight = weight * ((at - centre) / variance * (near - centre) + 1)
    return float(weight @ y[ties])
