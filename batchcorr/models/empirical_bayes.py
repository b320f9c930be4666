r"""Empirical Bayes over features: the shrinkage of ComBat, from sums alone.

A batch's standardized location γ̂ and variance δ̂² are drawn towards what the other
features of the batch say (Johnson, Li & Rabinovic 2007):

    γ ~ N(γ̄, τ²),   δ² ~ inverse-gamma(a, b), their moments taken over features
    γ* = (n τ² γ̂ + δ²* γ̄) / (n τ² + δ²*)
    δ²* = (b + ½ Σ(s - γ*)²) / (n/2 + a - 1),   Σ(s - γ*)² = SS + n (γ̂ - γ*)²

iterated until no value moves by more than 1e-4 of itself. The data enter only through
n, γ̂ and SS = Σ(s - γ̂)²: they are not looked at again.
"""

from __future__ import annotations

from dataclasses import dataclass

from batchcorr.errors import ConvergenceWarning, warn
from batchcorr.models.namespace import Array, namespace

__all__ = ["Prior", "prior_of", "shrink", "shrink_location"]

TOLERANCE = 1e-4
MAX_ROUNDS = 1000


@dataclass(frozen=True)
class Prior:
    """Moments over features of one batch's standardized effects.

    Attributes
    ----------
    location, location_variance
        γ̄ and τ².
    variance_mean, variance_variance
        m and v, mean and variance of δ̂².
    """

    location: Array
    location_variance: Array
    variance_mean: Array
    variance_variance: Array

    @property
    def shape(self) -> Array:
        """Shape a of the inverse gamma: (2 v + m²) / v, infinite where v = 0."""
        m, v = self.variance_mean, self.variance_variance
        return 2 + _ratio(m**2, v)

    @property
    def rate(self) -> Array:
        """Rate b of the inverse gamma: (m v + m³) / v, infinite where v = 0."""
        m, v = self.variance_mean, self.variance_variance
        return m + _ratio(m**3, v)


def _ratio(top: Array, bottom: Array) -> Array:
    return float(top) / float(bottom) if float(bottom) > 0 else float("inf")


def prior_of(gamma: Array, delta2: Array) -> Prior:
    """Take the prior of a batch from its features' γ̂ and δ̂², (G,) each."""
    xp = namespace(gamma)
    return Prior(
        location=xp.mean(gamma),
        location_variance=xp.var(gamma, correction=1),
        variance_mean=xp.mean(delta2),
        variance_variance=xp.var(delta2, correction=1),
    )


def shrink(
    gamma: Array, delta2: Array, squares: Array, n: Array, prior: Prior
) -> tuple[Array, Array, int]:
    """Iterate the posterior means of location and variance of one batch.

    Parameters
    ----------
    gamma, delta2, squares
        γ̂, δ̂² and SS of each feature: (G,).
    n
        Observed values: (1,) or (G,).
    prior
        The batch's prior.

    Returns
    -------
    gamma_star, delta2_star
        (G,) each.
    rounds
        Rounds taken.

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
    tau2, m, v = prior.location_variance, prior.variance_mean, prior.variance_variance
    old_gamma, old_delta2 = gamma, delta2
    for rounds in range(1, MAX_ROUNDS + 1):
        weight = n * tau2
        denominator = weight + old_delta2
        exact = denominator == 0  # no spread between features, none within: γ̄ it is
        new_gamma = xp.where(
            exact,
            prior.location,
            (weight * gamma + old_delta2 * prior.location)
            / xp.where(exact, xp.ones_like(denominator), denominator),
        )
        about = squares + n * (gamma - new_gamma) ** 2
        # (b + ½Σ) / (n/2 + a - 1), both multiplied by v: so v = 0 gives m, not 0/0,
        # and 0 where no feature varies.
        rate, shape = m**3 + v * (m + 0.5 * about), m**2 + v * (0.5 * n + 1)
        new_delta2 = rate / xp.where(shape == 0, xp.ones_like(shape), shape)
        change = xp.maximum(
            xp.max(_relative(xp, new_gamma, old_gamma)),
            xp.max(_relative(xp, new_delta2, old_delta2)),
        )
        old_gamma, old_delta2 = new_gamma, new_delta2
        if not bool(change > TOLERANCE):
            return new_gamma, new_delta2, rounds
    msg = (
        f"Empirical Bayes did not converge in {MAX_ROUNDS} rounds; the correction may "
        "be off. Look for features of extreme scale."
    )
    warn(msg, ConvergenceWarning)
    return old_gamma, old_delta2, MAX_ROUNDS


def _relative(xp: Array, new: Array, old: Array) -> Array:
    """Return |new - old| / old, 0 where nothing moved, infinite where old was 0."""
    moved = xp.abs(new - old)
    still = moved == 0
    zero = old == 0
    ratio = moved / xp.where(zero, xp.ones_like(old), old)
    ratio = xp.where(zero, xp.full_like(moved, float("inf")), ratio)
    return xp.where(still, xp.zeros_like(moved), ratio)


def shrink_location(gamma: Array, prior: Prior) -> Array:
    r"""Return γ* = (τ² γ̂ + γ̄) / (τ² + 1), the mean-only form, with n = δ² = 1."""
    tau2 = prior.location_variance
    return (tau2 * gamma + prior.location) / (tau2 + 1)
