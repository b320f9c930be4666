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

from batchcorr.bridge._channels import shrunken_statistics
from batchcorr.bridge._norms import statistics_of
from batchcorr.bridge._profile import layer_of
from batchcorr.errors import InputError
from batchcorr.models.channel_shrinkage import shrink_features

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from torch import Tensor
    from torch.nn.modules.batchnorm import _BatchNorm

    from batchcorr.bridge._layerwise import Estimator
    from batchcorr.bridge._profile import Profile
    from batchcorr.models.moments import Moments

__all__ = ["EmpiricalBayes", "adabn", "combat", "mixed"]


def adabn(
    name: str, _norm: _BatchNorm, moments: Moments, _n: int
) -> tuple[Tensor, Tensor]:
    """Mean and variance of the domain."""
    if float(moments.n) < 2:
        msg = (
            f"The layer {name!r} receives one row in all, which has no variance: give "
            'more samples, or use method="mix", "combat" or "eb".'
        )
        raise InputError(msg)
    return moments.mean[0], moments.variance()[0]


def mixed(alpha: Callable[[int], float]) -> Estimator:
    """The estimator that mixes the domain, at a share that depends on the samples."""

    def estimate(
        _name: str, norm: _BatchNorm, moments: Moments, n: int
    ) -> tuple[Tensor, Tensor]:
        (mean, variance), share = statistics_of(norm), alpha(n)
        return (
            (1 - share) * mean + share * moments.mean[0],
            (1 - share) * variance + share * moments.variance()[0],
        )

    return estimate


def combat(
    _name: str, norm: _BatchNorm, moments: Moments, _n: int
) -> tuple[Tensor, Tensor]:
    """Mean and variance of the domain, shrunken as ComBat does."""
    own = (int(moments.n), moments.mean[0], moments.variance()[0])
    return shrunken_statistics(*own, *statistics_of(norm))


class EmpiricalBayes:
    """Shrinkage with a profile, layer after layer; made anew for each run of layers.

    `shares` are those of the classes in the domain, (K,); None: as in the source.
    `evidence` is the log marginal likelihood of what the first layer received, the same
    whatever is assumed; `kept` how much of the differences between channels was kept by
    layer, in location and in scale.
    """

    def __init__(
        self, profile: Profile, shares: NDArray[np.float64] | None = None
    ) -> None:
        self.profile, self.shares = profile, shares
        self.evidence = -np.inf
        self.kept: dict[str, tuple[float, float]] = {}

    def __call__(
        self, name: str, norm: _BatchNorm, moments: Moments, n: int
    ) -> tuple[Tensor, Tensor]:
        """Mean and variance of the next layer."""
        layer = layer_of(self.profile, name, norm)
        known = layer.variance > 0
        sd = np.sqrt(layer.variance[known])
        centre: NDArray[np.float64] | float = 0.0
        width: NDArray[np.float64] | float = 1.0
        if self.shares is not None:
            centre, width = (part[known] for part in layer.mixture(self.shares))
        null = layer.null(self.profile.sizes, n, single=float(moments.n) < 2)
        found = shrink_features(
            (moments.mean[0].cpu().numpy() - layer.mean)[known] / sd,
            moments.variance()[0].cpu().numpy()[known] / sd**2,
            null.select(known),
            centre=centre,
            width=width,
        )
        if not self.kept:
            self.evidence = found.log_evidence
        self.kept[name] = (found.location_share, found.scale_share)
        mean, variance = layer.mean.copy(), layer.variance.copy()
        mean[known] += sd * found.gamma
        variance[known] *= found.delta2
        return moments.mean.new_tensor(mean), moments.mean.new_tensor(variance)
