r"""Estimators of a layer's mean and variance in a new domain, from what it receives.

adabn     x̄, v of the domain (ddof 0, as BatchNorm in training)
mix       α x̄ + (1 - α) μ,   α v + (1 - α) σ²        μ, σ²: what the layer has
combat    μ + σ γ*, σ² δ*²: ComBat's shrinkage, channels as genes, rows as samples
eb        the same with priors and errors of `models.channel_shrinkage`
eb_cov    eb with the domain's classes as covariates that are kept
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from batchcorr.bridge._shrink import shrunken_statistics
from batchcorr.errors import InputError
from batchcorr.models.channel_shrinkage import shrink_features

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from torch import Tensor

    from batchcorr.bridge._layerwise import Observed, Statistics
    from batchcorr.bridge._profile import Profile

__all__ = ["EmpiricalBayes", "adabn", "combat", "mixed"]


def adabn(name: str, observed: Observed) -> tuple[Tensor, Tensor]:
    """Return mean and variance of the domain.

    Raises
    ------
    InputError
        If there is one row only.
    """
    moments = observed.moments
    if float(moments.n[0, 0]) < 2:
        msg = (
            f"The layer {name!r} receives one row in all, which has no variance: give "
            'more samples, or use method="mix", "combat" or "eb".'
        )
        raise InputError(msg)
    return moments.mean[0], moments.squares[0] / moments.n[0]


def mixed(
    before: Statistics, alpha: Callable[[int], float]
) -> Callable[[str, Observed], tuple[Tensor, Tensor]]:
    """Return the estimator that mixes the domain with what was before.

    Parameters
    ----------
    before
        Statistics of the layers until now.
    alpha
        Gives the domain's share from the number of samples.
    """

    def estimate(name: str, observed: Observed) -> tuple[Tensor, Tensor]:
        moments, share = observed.moments, alpha(observed.samples)
        mean, variance = before[name]
        own = moments.squares[0] / moments.n[0]
        return (
            (1 - share) * mean + share * moments.mean[0],
            (1 - share) * variance + share * own,
        )

    return estimate


def combat(before: Statistics) -> Callable[[str, Observed], tuple[Tensor, Tensor]]:
    """Return the estimator that shrinks as ComBat does."""

    def estimate(name: str, observed: Observed) -> tuple[Tensor, Tensor]:
        moments = observed.moments
        own = (int(moments.n[0, 0]), moments.mean[0], moments.variance()[0])
        return shrunken_statistics(*own, *before[name])

    return estimate


class EmpiricalBayes:
    """Shrinkage with a profile, layer after layer; made anew for each run of layers.

    Parameters
    ----------
    profile
        What is known of the source.
    shares
        Share of each class in the domain, (K,); None: as in the source.

    Attributes
    ----------
    evidence
        Log marginal likelihood of what the first layer received: that of the same data
        whatever classes are assumed, which later layers do not see the same of.
    kept
        By layer: how much of the differences between channels was kept, in location and
        in scale.
    """

    def __init__(
        self, profile: Profile, shares: NDArray[np.float64] | None = None
    ) -> None:
        self.profile, self.shares = profile, shares
        self.evidence = -np.inf
        self.kept: dict[str, tuple[float, float]] = {}
        self._absorbed = (0.0, 0.0)

    def __call__(self, name: str, observed: Observed) -> tuple[Tensor, Tensor]:
        """Return mean and variance of the next layer."""
        layer, moments = self.profile.layers[name], observed.moments
        mean = moments.mean[0].double().cpu().numpy()
        single = float(moments.n[0, 0]) < 2
        variance = (moments.squares[0] / moments.n[0]).double().cpu().numpy()
        known = layer.variance > 0
        sd = np.sqrt(layer.variance[known])
        table = layer.null
        centre: NDArray[np.float64] | float = 0.0
        spread: NDArray[np.float64] | float = 1.0
        if self.shares is not None and layer.class_null is not None:
            table = layer.class_null
            centre, spread = (part[known] for part in layer.mixture(self.shares))
        null = table.at(
            self.profile.sizes, observed.samples, self._absorbed, single=single
        )
        found = shrink_features(
            (mean - layer.mean)[known] / sd,
            variance[known] / sd**2,
            null.select(known),
            centre=centre,
            spread=spread,
        )
        if not self.kept:
            self.evidence = found.log_evidence
        self.kept[name] = (found.location_share, found.scale_share)
        location, scale = self._absorbed
        self._absorbed = (
            1 - (1 - location) * (1 - found.location_share),
            1 - (1 - scale) * (1 - found.scale_share),
        )
        mean, variance = layer.mean.copy(), layer.variance.copy()
        mean[known] += sd * found.gamma
        variance[known] *= found.delta2
        like = moments.mean
        return like.new_tensor(mean), like.new_tensor(variance)
