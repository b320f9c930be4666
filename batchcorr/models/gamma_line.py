r"""A straight line through squares of normal values: a gamma model with identity link.

    E q_k = μ_k = v₀ + v₁ d_k,      Var q_k = 2 μ_k²

by Fisher scoring, damped (Levenberg & Marquardt) where the deviance would grow; all
features at once, each with a damping of its own. Only sums of q over equal d are needed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

__all__ = ["Squares", "fit_gamma_line"]

ROUNDS = 21
"""As many as statmod's 20 come to."""

TOLERANCE = 1e-6
"""Gain of a step under which it was the last."""

DOUBLINGS = 60
"""Dampings tried for one step."""


class Squares(NamedTuple):
    """Squares of G features, summed over those with the same d.

    Attributes
    ----------
    number
        How many squares each sum is of: (K, 1).
    d
        What they have in common: (K, 1).
    q
        The sums: (K, G).
    """

    number: Floats
    d: Floats
    q: Floats

    def take(self, features: NDArray[np.intp]) -> Squares:
        """The squares of some features."""
        return self._replace(q=self.q[:, features])

    def deviance(self, line: Floats) -> Floats:
        """Half the deviance of v₀ and v₁ (2, G), less what does not change: (G,).

        Infinite where a mean is not positive.
        """
        mean = line[0] + self.d * line[1]
        inside = (mean > 0).all(axis=0)
        mean = np.where(inside, mean, 1.0)
        value = (self.q / mean + self.number * np.log(mean)).sum(axis=0)
        return np.where(inside, value, np.inf)

    def derivatives(self, line: Floats) -> tuple[Floats, Floats]:
        """Score (2, G) and information (3, G): of v₀, of both, of v₁."""
        mean = line[0] + self.d * line[1]
        variance = np.maximum(mean**2, (mean**2).max(axis=0) / 1e3)
        left = (self.q - self.number * mean) / variance
        score = np.stack([left.sum(axis=0), (self.d * left).sum(axis=0)])
        weight = self.number / variance
        information = [(self.d**k * weight).sum(axis=0) for k in range(3)]
        return score, np.stack(information)


def fit_gamma_line(squares: Squares) -> Floats:
    """v₀ and v₁ of each feature: (2, G).

    Notes
    -----
    R: statmod `glmgam.fit`, from the start and to the end of `mixedModel2Fit`. Of two
    squares or fewer least squares are the fit.

    Examples
    --------
    >>> count, d = np.ones((3, 1)), np.array([[0.0], [1.0], [2.0]])
    >>> fit_gamma_line(Squares(count, d, 3 + 2 * d)).T
    array([[3., 2.]])
    """
    line = _least_squares(squares)
    if squares.number.sum() <= 2:
        return line
    negative = ((line[0] + squares.d * line[1]) < 0).any(axis=0)
    flat = squares.q.sum(axis=0) / squares.number.sum()
    line = np.where(negative, [flat, np.zeros_like(flat)], line)
    deviance = squares.deviance(line)
    damping = np.full(len(flat), np.nan)
    active = np.flatnonzero(np.isfinite(deviance))
    for _ in range(ROUNDS):
        if not len(active):
            break
        own, start = squares.take(active), line[:, active]
        score, information = own.derivatives(start)
        first = (information[0] + information[2]) / 4
        damp = np.where(np.isnan(damping[active]), first, damping[active])
        step, deviance[active], damping[active] = _step(
            own, start, score, information, damp
        )
        line[:, active] = start + step
        active = active[(score * step).sum(axis=0) >= TOLERANCE]
    return line


def _step(
    squares: Squares, line: Floats, score: Floats, information: Floats, damp: Floats
) -> tuple[Floats, Floats, Floats]:
    """The step of each feature, its deviance, and the damping of the next round."""
    before = deviance = squares.deviance(line)
    step, taken = np.zeros_like(line), np.zeros(len(damp), dtype=bool)
    at_once = taken
    for trial in range(DOUBLINGS):
        tried = _solve(information, damp, score)
        value = squares.deviance(line + tried)
        better = ~taken & (value <= before)
        step, deviance = (
            np.where(better, tried, step),
            np.where(better, value, deviance),
        )
        taken |= better
        at_once = better if trial == 0 else at_once
        if taken.all():
            break
        damp = np.where(taken, damp, 2 * damp)
    return step, deviance, np.where(at_once, damp / 10, damp)


def _solve(information: Floats, damp: Floats, score: Floats) -> Floats:
    """(I + λ)⁻¹ times the score: (2, G)."""
    a, b, c = information[0] + damp, information[1], information[2] + damp
    one, two = score
    solution: Floats = np.stack([c * one - b * two, a * two - b * one])
    solution /= a * c - b * b
    return solution


def _least_squares(squares: Squares) -> Floats:
    """The line through q / count at d, weighted by count: (2, G)."""
    count, d, q = squares
    n = count.sum()
    middle = (count * d).sum() / n
    slope = ((d - middle) * q).sum(axis=0) / (count * (d - middle) ** 2).sum()
    return np.stack([q.sum(axis=0) / n - slope * middle, slope])
