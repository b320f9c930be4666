r"""The negative binomial distribution by mean μ and dispersion φ, and quantile mapping.

    P(k) = Γ(k + r) / (Γ(r) k!)  q^r (1 - q)^k,      r = 1/φ,  q = r / (r + μ)
    F(k) = I_q(r, k + 1)

P after Loader (2000), "Fast and accurate computation of binomial probabilities", as the
deviance of k from its mean: accurate to rounding where differences of log-gammas are
not. F by the continued fraction of the incomplete beta function times P, from the side
of the nearer tail. Scalars, compiled; `match_quantiles` runs over whole matrices.
"""

from __future__ import annotations

import math

import numpy as np

from batchcorr._numba import Helper, Kernel, prange

__all__ = ["cdf", "log_pmf", "match_quantiles", "pmf", "quantile"]

SMALLEST_DISPERSION = 1e-12
"""Below this the distribution is Poisson to rounding."""

LARGE_SIZE = 1e4
"""Size r from which on the lower tail is summed: its continued fraction is slow."""

FUZZ = 1e-10
"""Relative slack of a probability, above its rounding error: F maps onto itself."""

NEAR = 32
"""Counts walked one by one before F is computed anew."""

TAIL = 1e-4
"""Counts whose upper tail is smaller than this stay: R's sva does the same."""


@Helper
def _stirling_error(n):
    """Return log Γ(n + 1) - (n + ½) log n + n - ½ log 2π."""
    if n < 15.0:
        return math.lgamma(n + 1) - (n + 0.5) * math.log(n) + n - 0.9189385332046727
    m = 1 / (n * n)
    return (1 / 12 - m * (1 / 360 - m * (1 / 1260 - m * (1 / 1680 - m / 1188)))) / n


@Helper
def _deviance(x, mean):
    """Return x log(x / mean) + mean - x without cancellation."""
    d = x - mean
    if abs(d) < 0.1 * (x + mean):
        v = d / (x + mean)
        total = d * v
        term = 2 * x * v
        for j in range(1, 1000):
            term *= v * v
            more = total + term / (2 * j + 1)
            if more == total:
                break
            total = more
        return total
    return x * math.log(x / mean) - d


@Helper
def log_pmf(k, mu, phi):
    """Return log P(k)."""
    r = 1 / max(phi, SMALLEST_DISPERSION)
    if mu <= 0:
        return 0.0 if k == 0 else -math.inf
    if k == 0:
        return -r * math.log1p(mu / r)
    n = r + k
    return (
        _stirling_error(n)
        - _stirling_error(r)
        - _stirling_error(k)
        - _deviance(r, n * r / (r + mu))
        - _deviance(k, n * mu / (r + mu))
        + 0.5 * math.log(r / (2 * math.pi * n * k))
    )


@Helper
def pmf(k, mu, phi):
    """Return P(k)."""
    return math.exp(log_pmf(k, mu, phi))


SHORT = 256
"""Counts up to which F is summed from 0: a product a count, no fraction to expand."""

INVERSE = 1 / np.arange(1.0, SHORT + 2)


@Helper
def _walk(p, last, mu, phi):
    """Sum P from 0 on until it is at least p, or to `last`; return where, and the sum.

    -1 where P(0) is no normal number.
    """
    r = 1 / max(phi, SMALLEST_DISPERSION)
    exponent = r * math.log1p(mu / r)
    if exponent > 600:
        return -1, 0.0
    term, ratio = math.exp(-exponent), mu / (r + mu)
    total, k = term, 0
    while total < p and k < last:
        term *= (k + r) * ratio * INVERSE[k]
        total += term
        k += 1
    return k, total


@Helper
def _beta_fraction(a, b, x):
    """Return the continued fraction of I_x(a, b), by the method of Lentz."""
    tiny = 1e-300
    c, d = 1.0, 1 - (a + b) * x / (a + 1)
    d = 1 / (d if abs(d) > tiny else tiny)
    value = d
    for m in range(1, 100_000):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        d = 1 + even * d
        c = 1 + even / c
        d = 1 / (d if abs(d) > tiny else tiny)
        c = c if abs(c) > tiny else tiny
        value *= d * c
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        d = 1 + odd * d
        c = 1 + odd / c
        d = 1 / (d if abs(d) > tiny else tiny)
        c = c if abs(c) > tiny else tiny
        step = d * c
        value *= step
        if abs(step - 1) < 1e-16:
            break
    return value


@Helper
def cdf(k, mu, phi):
    """Return F(k), the probability of k or fewer."""
    if k < 0:
        return 0.0
    if mu <= 0:
        return 1.0
    if k < SHORT:
        found, total = _walk(2.0, int(k), mu, phi)
        if found >= 0:
            return min(total, 1.0)
    r = 1 / max(phi, SMALLEST_DISPERSION)
    q, rest = r / (r + mu), mu / (r + mu)
    p = pmf(k, mu, phi)
    if p == 0:
        return 1.0 if k > mu else 0.0
    if rest < (k + 2) / (r + k + 3):
        return 1 - p * rest * (r + k) / (k + 1) * _beta_fraction(k + 1.0, r, rest)
    if r < LARGE_SIZE:
        return p * rest * (r + k) / r * _beta_fraction(r, k + 1.0, q)
    total = 0.0
    while k >= 0 and p > 1e-18 * total:
        total += p
        p *= k / ((k - 1 + r) * rest)
        k -= 1
    return total


@Helper
def quantile(p, mu, phi, guess):
    """Return the smallest k with F(k) ≥ p, searched from a guess.

    Newton steps while the answer is far, in log F below where F falls by orders of
    magnitude, kept inside what is known to bracket the answer; near it one count at a
    time, F updated by P as long as that loses no accuracy.
    """
    r = 1 / max(phi, SMALLEST_DISPERSION)
    p *= 1 - FUZZ
    if guess < SHORT and mu > 0:
        found, total = _walk(p, SHORT, mu, phi)
        if found >= 0 and total >= p:
            return float(found)
    low, high = -1.0, math.inf  # F(low) < p <= F(high)
    k = max(math.floor(guess), 0.0)
    for _ in range(500):
        f, density = cdf(k, mu, phi), pmf(k, mu, phi)
        if f >= p:
            high = min(high, k)
            near = f - p < NEAR * density
            for _ in range(NEAR if near and f < 2 * p else 0):
                f -= density  # now F(k - 1)
                if f < p:
                    return high
                density *= k / ((k - 1 + r) * (mu / (r + mu)))
                k -= 1
                high = k
            if high - low <= 1:
                return high
            step = math.log(p / f) * f / density if p > 0 and density > 0 else -math.inf
        else:
            low = max(low, k)
            near = p - f < NEAR * density
            for _ in range(NEAR if near else 0):
                density *= (k + r) / (k + 1) * (mu / (r + mu))
                k += 1
                f += density
                if f >= p:
                    return k
                low = k
            step = (p - f) / density if density > 0 else math.inf
        if high - low <= 1:
            return high
        following = math.floor(min(k + step, 4 * (k + mu) + 64))
        if not low < following < high:
            following = 2 * k + 16 if high == math.inf else math.floor((low + high) / 2)
        k = max(following, 0.0)
    return high


@Kernel
def match_quantiles(
    counts, old_mu, old_phi, new_mu, new_phi, bound, out, below=1, tail=TAIL
):
    """Write each count as the same quantile of another distribution.

        out = below + F_new⁻¹(F_old(y - below))      where F_old(y - below) <= 1 - tail

    and y itself elsewhere, and where y is 0 or 1 with `below` 1, as R's sva does; never
    more than `bound`.

    Parameters
    ----------
    counts, old_mu, old_phi, new_mu, new_phi, bound
        (G, n) each; `new_phi` (G,).
    out
        Where to write, (G, n).
    below
        1: the quantile is that of y - 1, so that zeros stay; 0: that of y.
    tail
        Counts whose upper tail is smaller than this stay.

    Returns
    -------
    How many values of each feature were kept down at their bound: (G,).
    """
    n_features, n_rows = counts.shape
    capped = np.zeros(n_features)
    for g in prange(n_features):
        for i in range(n_rows):
            y = counts[g, i]
            out[g, i] = y
            if below == 1 and y <= 1:
                continue
            mu, phi = old_mu[g, i], old_phi[g, i]
            p = cdf(y - below, mu, phi)
            if abs(p - 1) < tail:
                continue
            sd_old = math.sqrt(mu * (1 + phi * mu))
            target, phi_new = new_mu[g, i], new_phi[g]
            sd_new = math.sqrt(target * (1 + phi_new * target))
            guess = target + (y - below - mu) * sd_new / sd_old
            value = below + quantile(p, target, phi_new, guess)
            if value > bound[g, i]:
                value = max(bound[g, i], y)
                capped[g] += 1
            out[g, i] = value
    return capped
