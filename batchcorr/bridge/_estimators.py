r"""Estimators of a layer's mean and variance in a new domain, from what it receives.

adabn     x̄, v of the domain (ddof 0, as BatchNorm in training)
mix       α x̄ + (1 - α) μ,   α v + (1 - α) σ²        μ, σ²: what the layer has
combat    μ + σ γ*, σ² δ*²: ComBat's shrinkage, channels as genes, rows as samples
eb        the same with priors and errors of `models.channel_shrinkage`
eb_cov    eb with the domain's classes as covariates that are kept

Correction and classes depend on each other: statistics of a domain of two classes look
like a batch effect, and corrected as one they hide the classes. So two assumptions are
followed for two rounds, that of the model corrected without classes and that of the
uncorrected one,

    assumed shares → correction that keeps them → mean probability of each class → …

and the second is believed only if it makes the first layer's statistics clearly more
probable: under a strong shift the uncorrected model says anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import chi2

from batchcorr.bridge._batches import read_batches
from batchcorr.bridge._channels import shrunken_statistics
from batchcorr.bridge._norms import statistics_of
from batchcorr.bridge._profile import layer_of
from batchcorr.bridge._running import evaluating, run, wide
from batchcorr.bridge._torch import torch
from batchcorr.errors import InputError
from batchcorr.models.channel_shrinkage import shrink_features

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from torch import Tensor, nn
    from torch.nn.modules.batchnorm import _BatchNorm

    from batchcorr.bridge._layerwise import Estimator, Statistics
    from batchcorr.bridge._profile import Profile
    from batchcorr.models.moments import Moments

    Shares = NDArray[np.float64]

__all__ = [
    "EmpiricalBayes",
    "adabn",
    "combat",
    "is_unbalanced",
    "keep_classes",
    "mixed",
]

ROUNDS = 2
CLEARLY = 2.0
"""Log of how many times more probable."""


def adabn(
    name: str, _norm: _BatchNorm, moments: Moments, _n: int
) -> tuple[Tensor, Tensor]:
    """Mean and variance of the domain."""
    if float(moments.n) < 2:
        msg = (
            f"The layer {name!r} receives only one row, which has no variance: give "
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
    whatever is assumed.
    """

    def __init__(
        self, profile: Profile, shares: NDArray[np.float64] | None = None
    ) -> None:
        self.profile, self.shares = profile, shares
        self.evidence = np.nan

    def __call__(
        self, name: str, norm: _BatchNorm, moments: Moments, n: int
    ) -> tuple[Tensor, Tensor]:
        """Mean and variance of the next layer."""
        layer = layer_of(self.profile, name, norm)
        known = layer.variance > 0
        sd = np.sqrt(layer.variance[known])
        assumed = {}
        if self.shares is not None:
            parts = (part[known] for part in layer.mixture(self.shares))
            assumed = dict(zip(("centre", "width"), parts, strict=True))
        null = layer.null(self.profile.sizes, n, single=float(moments.n) < 2)
        posterior = shrink_features(
            (moments.mean[0].cpu().numpy() - layer.mean)[known] / sd,
            moments.variance()[0].cpu().numpy()[known] / sd**2,
            null.select(known),
            **assumed,
        )
        if np.isnan(self.evidence):
            self.evidence = posterior.log_evidence
        mean, variance = layer.mean.copy(), layer.variance.copy()
        mean[known] += sd * posterior.gamma
        variance[known] *= posterior.delta2
        return moments.mean.new_tensor(mean), moments.mean.new_tensor(variance)


# -- classes -----------------------------------------------------------------------------


def keep_classes(
    model: nn.Module,
    loader: Iterable[Any],
    profile: Profile,
    correct: Callable[[EmpiricalBayes], tuple[Statistics, int]],
    restore: Callable[[], None],
    *,
    if_uneven: int | None = None,
) -> tuple[Statistics, Shares] | None:
    """The believed correction that keeps classes: its statistics and their shares.

    With `if_uneven`, a number of samples, it is None where the model gives no logits, or
    classes are as even as they may be by chance. The model comes corrected without
    classes.
    """
    first = _mean_probabilities(model, loader, profile)
    if first is None:
        if if_uneven is not None:
            return None
        msg = (
            "To see which classes there are the model must give logits, samples × "
            f"{len(profile.shares)} classes of the profile: a tensor, or what has one as "
            '`logits` or as its first item. method="eb" goes without classes.'
        )
        raise InputError(msg)
    restore()
    outcomes = []
    for start in (first, _mean_probabilities(model, loader, profile)):
        shares = start
        for _ in range(ROUNDS):
            assumed, estimate = shares, EmpiricalBayes(profile, shares)
            values, _ = correct(estimate)
            shares = _mean_probabilities(model, loader, profile)
        assert assumed is not None
        outcomes.append((estimate.evidence, values, assumed))
    corrected, uncorrected = outcomes
    clearly = uncorrected[0] - corrected[0] > CLEARLY
    _, values, shares = uncorrected if clearly else corrected
    if if_uneven is not None and not is_unbalanced(shares, profile.shares, if_uneven):
        return None
    return values, shares


def is_unbalanced(shares: Shares, expected: Shares, n: int) -> bool:
    """Whether classes are more uneven than chance and than if half were missing.

    Σ (share - expected)²/expected is 1 if half of equal classes are missing; by chance
    it is above the 99 % quantile of χ² with K - 1 degrees of freedom, over n, in one of
    a hundred samples.
    """
    if len(shares) < 2:
        return False
    distance = float(((shares - expected) ** 2 / expected).sum())
    chance = float(chi2.ppf(0.99, len(shares) - 1))
    return distance > max(chance / n, 1.0)


def _mean_probabilities(
    model: nn.Module, loader: Iterable[Any], profile: Profile
) -> Shares | None:
    """The mean probability of each class, (K,); None where the model gives no logits."""
    parts = []
    with evaluating(model):
        for minibatch in read_batches(loader):
            logits = _logits_of(run(model, minibatch.inputs), len(profile.shares))
            if logits is None:
                return None
            parts.append(torch.softmax(wide(logits), dim=1).cpu().numpy())
    shares: Shares = np.concatenate(parts).mean(axis=0)
    return shares


def _logits_of(answer: Any, classes: int) -> Tensor | None:
    """The logits in what a model gave: itself, `logits`, or the first of a tuple."""
    if isinstance(answer, Mapping):
        answer = answer.get("logits")
    elif not isinstance(answer, torch.Tensor):
        first = answer[0] if isinstance(answer, tuple | list) and answer else None
        answer = getattr(answer, "logits", first)
    if not isinstance(answer, torch.Tensor) or not answer.is_floating_point():
        return None
    return answer if answer.ndim == 2 and answer.shape[1] == classes else None
