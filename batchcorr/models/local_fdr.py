r"""The probability that a feature with p-value p follows the null: the local FDR.

    lfdr(x) = π₀ φ(x) / f(x),        x = Φ⁻¹(p),    π₀ = share of p ≥ 0.8, over 0.2

with φ the normal density and f the density of all x: a kernel estimate on a grid, then a
smoothing spline through it, and at last no larger for a smaller p (Storey, in sva).
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.interpolate import BSpline
from scipy.linalg import solve_triangular
from scipy.special import ndtri
from scipy.stats import norm, rankdata

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

__all__ = ["local_fdr"]

GRID = 512
"""Points of the density."""

KNOTS = 119
"""Knots that R's smooth.spline takes for as many points."""

THIRD = 0.3330
"""R's 1/3 in the integral of squared second derivatives: a result to match needs it."""


def local_fdr(p_value: Floats) -> Floats:
    """The local false discovery rate of each p-value: (G,).

    Parameters
    ----------
    p_value
        (G,).

    Notes
    -----
    R: sva `edge.lfdr` with `density` of R before 4.4, and its tie rule: equal p take
    the value at the whole part of their average rank.
    """
    null_share = min(1.0, float((p_value >= 0.8).mean()) / 0.2)
    x = ndtri(np.clip(p_value, 1e-8, 1 - 1e-8))
    points, heights = _density(x)
    f = _smoothed(points, heights)(x)
    rate = np.minimum(null_share * norm.pdf(x) / f, 1.0)
    order = np.argsort(p_value, kind="stable")
    rising = np.maximum.accumulate(rate[order])
    result: Floats = rising[rankdata(p_value).astype(int) - 1]
    return result


def _density(x: Floats) -> tuple[Floats, Floats]:
    """Kernel density on a grid: its points and heights, (512,) each."""
    deviation = min(
        x.std(ddof=1), float(np.subtract(*np.quantile(x, [0.75, 0.25]))) / 1.34
    )
    width = 1.5 * 0.9 * (deviation or x.std(ddof=1) or 1.0) * len(x) ** -0.2
    start, stop = x.min() - 3 * width, x.max() + 3 * width
    low, high = start - 4 * width, stop + 4 * width
    place = (x - low) / ((high - low) / (GRID - 1))
    left = np.floor(place).astype(int)
    share = place - left
    mass = np.bincount(left, 1 - share, 2 * GRID)
    mass += np.bincount(left + 1, share, 2 * GRID)
    away = np.linspace(0, 2 * (high - low), 2 * GRID)
    away[GRID + 1 :] = -away[GRID - 1 : 0 : -1]
    kernel = np.fft.fft(norm.pdf(away, scale=width))
    spectrum = np.fft.fft(mass / len(x)) * np.conj(kernel)
    heights = np.maximum(np.fft.ifft(spectrum).real[:GRID], 0.0)
    points = np.linspace(start, stop, GRID)
    return points, np.interp(points, np.linspace(low, high, GRID), heights)


class _Basis(NamedTuple):
    """Cubic splines on the grid's knots, turned so that penalty and products are diagonal.

    Attributes
    ----------
    knots
        On [0, 1], ends four-fold: (125,).
    back
        From turned coefficients to those of the B-splines: (121, 121).
    columns
        The turned splines on the grid; their products are the unit matrix: (512, 121).
    roughness
        Integral of the squared second derivative of each: (121,).
    ratio
        Trace of the products over that of the penalty, inner entries only.
    """

    knots: Floats
    back: Floats
    columns: Floats
    roughness: Floats
    ratio: float


@cache
def _basis() -> _Basis:
    """The basis, the same for every density."""
    unit = np.linspace(0, 1, GRID)
    inner = unit[(np.arange(KNOTS) * (GRID - 1) / (KNOTS - 1)).astype(int)]
    knots = np.concatenate([[0.0] * 3, inner, [1.0] * 3])
    columns = BSpline.design_matrix(unit, knots, 3).toarray()
    gram, penalty = columns.T @ columns, _penalty(knots)
    middle = slice(2, len(gram) - 3)
    ratio = np.diag(gram)[middle].sum() / np.diag(penalty)[middle].sum()
    lower = np.linalg.cholesky(gram)
    half = solve_triangular(lower, penalty, lower=True)
    roughness, vectors = np.linalg.eigh(solve_triangular(lower, half.T, lower=True))
    back = solve_triangular(lower.T, vectors)
    return _Basis(knots, back, columns @ back, roughness, float(ratio))


def _smoothed(points: Floats, heights: Floats) -> Callable[[Floats], Floats]:
    """The smoothing spline whose penalty is chosen by generalized cross-validation."""
    basis = _basis()
    along = basis.columns.T @ heights
    last = np.empty(0)

    def criterion(spar: float) -> float:
        nonlocal last
        shrunk = 1 / (1 + basis.ratio * 16 ** (6 * spar - 2) * basis.roughness)
        last = shrunk * along
        residual = heights - basis.columns @ last
        return float(residual @ residual / GRID / (1 - shrunk.sum() / GRID) ** 2)

    _minimize(criterion, -1.5, 1.5)  # R keeps the last tried, not the best
    spline = BSpline(basis.knots, basis.back @ last, 3)
    low, reach = points[0], points[-1] - points[0]
    return lambda x: np.asarray(spline((x - low) / reach), dtype=np.float64)


def _penalty(knots: Floats) -> Floats:
    """Integrals of products of second derivatives of all pairs of B-splines: (K, K)."""
    size = len(knots) - 4
    ends = np.unique(knots)
    curves = BSpline(knots, np.eye(size), 3).derivative(2)
    lengths = np.diff(ends)
    left = curves(ends[:-1])
    right = curves(ends[1:] - 1e-9 * lengths)  # second derivatives are straight lines
    rise = (right - left) / (1 - 1e-9)
    half = np.einsum("k,ki,kj->ij", lengths, left, rise) / 2
    return np.asarray(
        np.einsum("k,ki,kj->ij", lengths, left, left)
        + half
        + half.T
        + THIRD * np.einsum("k,ki,kj->ij", lengths, rise, rise)
    )


def _minimize(function: Callable[[float], float], a: float, b: float) -> None:
    """Brent's method as smooth.spline has it: where it stops decides the last value."""
    golden = 0.381966011250105
    x = v = w = a + golden * (b - a)
    fx = fv = fw = function(x)
    step = before = 0.0
    while True:
        middle = (a + b) / 2
        near = 2e-8 * abs(x) + 1e-4 / 3
        if abs(x - middle) <= 2 * near - (b - a) / 2:
            return
        parabola = False
        if abs(before) > near:
            r, q = (x - w) * (fx - fv), (x - v) * (fx - fw)
            p, q = (x - v) * q - (x - w) * r, 2 * (q - r)
            p, q = (-p if q > 0 else p), abs(q)
            before, earlier = step, before
            if abs(p) < abs(q * earlier / 2) and q * (a - x) < p < q * (b - x):
                parabola, step = True, p / q
                if x + step - a < 2 * near or b - x - step < 2 * near:
                    step = np.copysign(near, middle - x)
        if not parabola:
            before = (a if x >= middle else b) - x
            step = golden * before
        u = x + (step if abs(step) >= near else np.copysign(near, step))
        fu = function(u)
        if fu <= fx:
            a, b = (x, b) if u >= x else (a, x)
            v, fv, w, fw, x, fx = w, fw, x, fx, u, fu
        else:
            a, b = (u, b) if u < x else (a, u)
            if fu <= fw or w == x:
                v, fv, w, fw = w, fw, u, fu
            elif fu <= fv or v in (x, w):
                v, fv = u, fu
