r"""Posterior means of batches' effects, where not every variance is known.

From the standardized effects γ̂, δ̂² = SS / (n - 1) of B batches on G features to γ*, δ²*:
by normal and inverse-gamma priors (`empirical_bayes`), or with every other feature as a
draw (`nonparametric`).

A variance is not known where covariates fit a batch's samples exactly, or where a value
stands alone. Such a feature is located only, as those of a batch of one sample are
(δ²* = 1), and takes no part in the prior of variances.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from batchcorr.models.empirical_bayes import Prior, prior_of, shrink, shrink_location
from batchcorr.models.nonparametric import average_likely, far_from_all

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from batchcorr.models.namespace import Matrix

__all__ = ["Effects", "Posterior", "by_name", "posterior"]


class Effects(NamedTuple):
    """Standardized effects of batches on features.

    Attributes
    ----------
    gamma, squares
        γ̂, and SS about it: (B, G).
    n
        Observed values: (B, 1|G).
    known
        Whether SS tells a variance: (B, G).
    """

    gamma: NDArray[np.float64]
    squares: NDArray[np.float64]
    n: NDArray[np.float64]
    known: NDArray[np.bool_]

    @property
    def delta2(self) -> NDArray[np.float64]:
        """δ̂², 1 where no variance is known: (B, G)."""
        df = np.where(self.known, self.n - 1, 1.0)
        return np.where(self.known, self.squares / df, 1.0)

    def of(self, batches: Any) -> Effects:
        """The effects of one of the batches, or of some of them."""
        gamma, squares, n, known = self
        return Effects(gamma[batches], squares[batches], n[batches], known[batches])


@dataclass(frozen=True)
class Posterior:
    """Posterior means of batches' effects on features.

    Attributes
    ----------
    prior
        The batches' priors.
    gamma, delta2
        γ* and δ²*: (B, G); 0 and 1 of a batch that has no effects.
    rounds
        Rounds of the iteration, 0 where there was none: (B,).
    far
        Whether no other feature is near, by non-parametric priors: (B, G).
    """

    prior: Prior
    gamma: NDArray[np.float64]
    delta2: NDArray[np.float64]
    rounds: NDArray[np.int64]
    far: NDArray[np.bool_]


def by_name(
    effects: Effects,
    features: NDArray[np.bool_],
    *,
    shrink: bool = True,
    parametric: bool = True,
    reference: int | None = None,
) -> dict[str, NDArray[Any]]:
    """Effects and what they are shrunk to, NaN of features left out; priors (B,).

    Parameters
    ----------
    effects
        On some of the features.
    features
        Which these are: (G,).
    shrink
        False: the effects themselves in the place of posterior means.
    parametric, reference
        As in `posterior`.
    """
    others = np.arange(len(effects.gamma))[:, None] != reference
    gamma, delta2 = effects.gamma * others, np.where(others, effects.delta2, 1)
    more: dict[str, NDArray[Any]] = {}
    if shrink:
        found = posterior(effects, parametric=parametric, reference=reference)
        gamma, delta2, prior = found.gamma, found.delta2, found.prior
        more = {
            "gamma_bar": prior.location[:, 0],
            "t2": prior.location_variance[:, 0],
            "a_prior": prior.shape[:, 0],
            "b_prior": prior.rate[:, 0],
            "rounds": found.rounds,
        }
        if not parametric:
            more["far"] = _placed(found.far, features, fill=False)
    return {
        "gamma_hat": _placed(effects.gamma, features, np.nan),
        "delta_hat": _placed(effects.delta2, features, np.nan),
        "gamma_star": _placed(gamma, features, np.nan),
        "delta_star": _placed(delta2, features, np.nan),
    } | more


def _placed(
    values: NDArray[np.generic], features: NDArray[np.bool_], fill: object
) -> Matrix:
    """Values (B, G) of some features among all of them, `fill` elsewhere."""
    found = np.full((len(values), len(features)), fill, dtype=values.dtype)
    found[:, features] = values
    return found


def posterior(
    effects: Effects, *, parametric: bool = True, reference: int | None = None
) -> Posterior:
    """Shrink the effects of each batch, over its features.

    Parameters
    ----------
    effects
        On two features or more.
    parametric
        Whether priors are normal and inverse gamma, or the other features.
    reference
        A batch that has no effects by definition.

    Examples
    --------
    Effects of one batch on three features, of 4 samples each, drawn to their mean:

    >>> gamma, squares = np.array([[1.0, 2, 3]]), np.array([[3.0, 3, 3]])
    >>> known = np.ones((1, 3), dtype=bool)
    >>> found = posterior(Effects(gamma, squares, np.full((1, 1), 4.0), known))
    >>> found.gamma.round(2).tolist()
    [[1.2, 2.0, 2.8]]
    """
    alone = effects.known.sum(axis=1) < 2
    effects = effects._replace(known=effects.known & ~alone[:, None])
    gamma, known = effects.gamma, effects.known
    # Where a batch has no known variance all are 1, and so are their mean and prior.
    prior = prior_of(gamma, effects.delta2, known | alone[:, None])
    found = Posterior(
        prior,
        np.zeros_like(gamma),
        np.ones_like(gamma),
        np.zeros(len(gamma), dtype=np.int64),
        np.zeros(gamma.shape, dtype=bool),
    )
    takes_part = np.arange(len(gamma)) != reference
    if parametric:
        _fill_from_priors(found, effects, takes_part)
    else:
        _fill_from_features(found, effects, takes_part)
    return found


def _fill_from_priors(
    found: Posterior, effects: Effects, takes_part: NDArray[np.bool_]
) -> None:
    """Shrink by normal and inverse-gamma priors, all batches at once."""
    located = shrink_location(effects.gamma, found.prior)
    found.gamma[takes_part] = located[takes_part]
    scaled = takes_part & effects.known.any(axis=1)
    if not scaled.any():
        return
    own, known = effects.of(scaled), effects.known[scaled]
    prior = Prior(*(each[scaled] for each in vars(found.prior).values()))
    gamma, delta2, rounds = shrink(
        own.gamma, own.delta2, own.squares, own.n, prior, known=known
    )
    found.gamma[scaled] = np.where(known, gamma, located[scaled])
    found.delta2[scaled] = np.where(known, delta2, 1.0)
    found.rounds[scaled] = rounds


def _fill_from_features(
    found: Posterior, effects: Effects, takes_part: NDArray[np.bool_]
) -> None:
    """Shrink with the other features as draws, batch by batch."""
    variances = effects.delta2
    for b in np.flatnonzero(takes_part):
        gamma, squares, n, known = effects.of(b)
        if not known.all():
            found.gamma[b], _ = average_likely(gamma, np.ones_like(gamma), squares, n)
        if known.any():
            found.gamma[b, known], found.delta2[b, known] = average_likely(
                gamma[known],
                variances[b, known],
                squares[known],
                n if len(n) == 1 else n[known],
            )
        found.far[b] = far_from_all(gamma, n, found.gamma[b], found.delta2[b])
