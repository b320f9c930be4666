r"""Empirical Bayes over features: the shrinkage of ComBat, from sums alone.

A batch's standardized location γ̂ and variance δ̂² are drawn towards what the other
features of the batch say (Johnson, Li & Rabinovic 2007):

    γ ~ N(γ̄, τ²),   δ² ~ inverse-gamma(a, b), their moments taken over features
    γ* = (n τ² γ̂ + δ²* γ̄) / (n τ² + δ²*)
    δ²* = (b + ½ Σ(s - γ*)²) / (n/2 + a - 1),   Σ(s - γ*)² = SS + n (γ̂ - γ*)²

iterated, batch by batch, until no value moves by more than 1e-4 of itself. The data enter
only through n, γ̂ and SS = Σ(s - γ̂)²: they are not looked at again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from batchcorr.errors import ConvergenceWarning, warn
from batchcorr.models.namespace import Array, Namespace, asarray_like, namespace

__all__ = ["Prior", "prior_of", "shrink", "shrink_location"]

TOLERANCE = 1e-4
MAX_ROUNDS = 1000

BLOCK = 1 << 15
"""Values iterated at a time: some batches by all features, small enough to cache."""


@dataclass(frozen=True)
class Prior:
    """Moments over features of each batch's standardized effects: (B, 1) each.

    Attributes
    ----------
    location, location_variance
        γ̄ and τ².
    variance_mean, variance_variance
        m and v, mean and variance of δ̂².
    shape, rate
        a = (2 v + m²) / v and b = (m v + m³) / v of the inverse gamma, infinite where
        v = 0.
    """

    location: Array
    location_variance: Array
    variance_mean: Array
    variance_variance: Array
    shape: Array
    rate: Array


def prior_of(gamma: Array, delta2: Array, known: Array | None = None) -> Prior:
    """The prior of each batch from its features' effects.

    Parameters
    ----------
    gamma, delta2
        γ̂ and δ̂²: (B, G) each.
    known
        Whether δ̂² is known of a feature: (B, G), of two features at least in a batch.
        None: of all.
    """
    xp = namespace(gamma)
    every = xp.ones_like(gamma, dtype=xp.bool)
    m, v = _mean_and_variance(xp, delta2, every if known is None else known)
    varies = v > 0
    divisor = xp.where(varies, v, xp.ones_like(v))
    infinite = xp.full_like(v, float("inf"))
    location, location_variance = _mean_and_variance(xp, gamma, every)
    return Prior(
        location,
        location_variance,
        m,
        v,
        shape=2 + xp.where(varies, m**2 / divisor, infinite),
        rate=m + xp.where(varies, m**3 / divisor, infinite),
    )


def _mean_and_variance(
    xp: Namespace, values: Array, known: Array
) -> tuple[Array, Array]:
    """Mean and variance (ddof 1) over the last axis, of the known values."""
    nothing = xp.zeros_like(values)
    count = xp.sum(xp.astype(known, values.dtype), axis=-1, keepdims=True)
    mean = xp.sum(xp.where(known, values, nothing), axis=-1, keepdims=True) / count
    off = xp.where(known, values - mean, nothing)
    return mean, xp.sum(off**2, axis=-1, keepdims=True) / (count - 1)


def shrink(
    gamma: Array,
    delta2: Array,
    squares: Array,
    n: Array,
    prior: Prior,
    *,
    known: Array | None = None,
) -> tuple[Array, Array, Array]:
    """Iterate the posterior means of location and variance, each batch on its own.

    Parameters
    ----------
    gamma, delta2, squares
        γ̂, δ̂² and SS of each batch and feature: (B, G).
    n
        Observed values: (B, 1|G).
    prior
        The batches' priors.
    known
        Which features a batch's iteration waits for: (B, G). None: all.

    Returns
    -------
    gamma_star, delta2_star
        (B, G) each.
    rounds
        Rounds taken: (B,); one more than the most there are where they do not do.

    Warns
    -----
    ConvergenceWarning
        If 1000 rounds are not enough.

    Notes
    -----
    As R's sva does, a round's change is measured relative to the signed γ of the round
    before, so that features with negative γ never hold the iteration up: the same rule
    is needed to agree to rounding. A change from 0 to 0 is none.
    """
    xp = namespace(gamma)
    n_batches, n_features = gamma.shape
    if known is None:
        known = xp.ones_like(gamma, dtype=xp.bool)
    place = asarray_like(gamma, list(range(n_batches)))
    moments = (
        prior.location,
        prior.location_variance,
        prior.variance_mean,
        prior.variance_variance,
    )
    batches = _Batches(place, known, n, squares, gamma, *moments)
    step = max(1, BLOCK // n_features)
    parts: list[_Ended] = []
    for start in range(0, n_batches, step):
        block = slice(start, min(start + step, n_batches))
        part = _Batches(*(each[block, ...] for each in batches))
        parts += _iterate(xp, part, gamma[block, ...], delta2[block, ...])
    slow = sum(int(part.place.shape[0]) for part in parts if part.rounds > MAX_ROUNDS)
    if slow:
        msg = (
            f"Empirical Bayes did not converge in {MAX_ROUNDS} rounds for {slow} of "
            f"{n_batches} batches; the correction may be inaccurate. Look for features "
            "with extreme variances."
        )
        warn(msg, ConvergenceWarning)
    order = xp.argsort(xp.concat([part.place for part in parts]))
    whole = (
        xp.concat([part.gamma for part in parts]),
        xp.concat([part.delta2 for part in parts]),
        xp.concat([xp.full_like(part.place, part.rounds) for part in parts]),
    )
    gamma_star, delta2_star, rounds = (xp.take(each, order, axis=0) for each in whole)
    return gamma_star, delta2_star, rounds


class _Batches(NamedTuple):
    """What an iteration needs of its batches: their place, data and prior."""

    place: Array
    known: Array
    n: Array
    squares: Array
    gamma: Array
    location: Array
    location_variance: Array
    variance_mean: Array
    variance_variance: Array


class _Ended(NamedTuple):
    """Batches whose iteration has ended, and after how many rounds."""

    place: Array
    gamma: Array
    delta2: Array
    rounds: int


def _iterate(
    xp: Namespace, batches: _Batches, gamma: Array, delta2: Array
) -> list[_Ended]:
    """Go round until every batch has ended; those that have are set aside."""
    ended = []
    for rounds in range(1, MAX_ROUNDS + 1):
        new_gamma, new_delta2 = _round(xp, batches, delta2)
        change = xp.maximum(
            _relative(xp, new_gamma, gamma), _relative(xp, new_delta2, delta2)
        )
        change = xp.where(batches.known, change, xp.zeros_like(change))
        moves = xp.max(change, axis=-1) > TOLERANCE
        gamma, delta2 = new_gamma, new_delta2
        if bool(xp.all(moves)):
            continue
        still = ~moves
        ended.append(_Ended(batches.place[still], gamma[still], delta2[still], rounds))
        if not bool(xp.any(moves)):
            return ended
        batches = _Batches(*(each[moves] for each in batches))
        gamma, delta2 = gamma[moves], delta2[moves]
    return [*ended, _Ended(batches.place, gamma, delta2, MAX_ROUNDS + 1)]


def _round(xp: Namespace, batches: _Batches, delta2: Array) -> tuple[Array, Array]:
    """γ* for the δ²* of the round before, and the δ²* for it."""
    n, gamma, location = batches.n, batches.gamma, batches.location
    m, v = batches.variance_mean, batches.variance_variance
    weight = n * batches.location_variance
    denominator = weight + delta2
    exact = denominator == 0  # no spread between features, none within: γ̄ it is
    new_gamma = xp.where(
        exact,
        location,
        (weight * gamma + delta2 * location)
        / xp.where(exact, xp.ones_like(denominator), denominator),
    )
    about = batches.squares + n * (gamma - new_gamma) ** 2
    # (b + ½Σ) / (n/2 + a - 1), both multiplied by v: so v = 0 gives m, not 0/0,
    # and 0 where no feature varies.
    rate, shape = m**3 + v * (m + 0.5 * about), m**2 + v * (0.5 * n + 1)
    return new_gamma, rate / xp.where(shape == 0, xp.ones_like(shape), shape)


def _relative(xp: Namespace, new: Array, old: Array) -> Array:
    """|new - old| / old, 0 where nothing moved, infinite where old was 0."""
    moved = xp.abs(new - old)
    still = moved == 0
    zero = old == 0
    ratio = moved / xp.where(zero, xp.ones_like(old), old)
    ratio = xp.where(zero, xp.full_like(moved, float("inf")), ratio)
    return xp.where(still, xp.zeros_like(moved), ratio)


def shrink_location(gamma: Array, prior: Prior) -> Array:
    r"""γ* = (τ² γ̂ + γ̄) / (τ² + 1), the mean-only form, with n = δ² = 1."""
    tau2 = prior.location_variance
    return (tau2 * gamma + prior.location) / (tau2 + 1)
