r"""Classes: which a source has, and which a domain has, from unlabelled samples.

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
from batchcorr.bridge._estimators import EmpiricalBayes
from batchcorr.bridge._running import evaluating, run, wide
from batchcorr.bridge._torch import torch
from batchcorr.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from torch import Tensor, nn

    from batchcorr.bridge._batches import Minibatch
    from batchcorr.bridge._layerwise import Statistics
    from batchcorr.bridge._profile import Profile

    Shares = NDArray[np.float64]

__all__ = ["is_unbalanced", "keep_classes", "read_classes"]

INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
ROUNDS = 2
CLEARLY = 2.0
"""Log of how many times more probable."""


def read_classes(batches: list[Minibatch]) -> NDArray[np.int64] | None:
    """The class of each sample, 0 … K-1, that a loader gave as integers; None: it did not."""
    given = []
    for batch in batches:
        labels = batch.others[0] if batch.others else None
        if not isinstance(labels, torch.Tensor) or labels.shape != (batch.size,):
            continue
        if labels.dtype in INTEGERS:
            given.append(labels.cpu().numpy().astype(np.int64))
    if not given:
        return None
    values = np.concatenate(given)
    present = np.bincount(np.maximum(values, 0)) > 0
    if len(given) < len(batches) or values.min() < 0 or not present.all():
        msg = (
            "Labels of classes must be 0 … K-1, each class there, in every minibatch; "
            f"the loader gives {sorted(set(values.tolist()))[:20]} in {len(given)} "
            f"of {len(batches)} minibatches. Give inputs alone to go without classes."
        )
        raise InputError(msg)
    return values


def keep_classes(
    model: nn.Module,
    loader: Iterable[Any],
    profile: Profile,
    correct: Callable[[EmpiricalBayes], tuple[Statistics, int]],
    restore: Callable[[], None],
    *,
    if_uneven: int | None = None,
) -> tuple[EmpiricalBayes, Statistics, Shares] | None:
    """The believed correction that keeps classes: its estimator, statistics and shares.

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
    found = []
    for start in (first, _mean_probabilities(model, loader, profile)):
        shares = start
        for _ in range(ROUNDS):
            assumed, estimate = shares, EmpiricalBayes(profile, shares)
            values, _ = correct(estimate)
            shares = _mean_probabilities(model, loader, profile)
        assert assumed is not None
        found.append((estimate, values, assumed))
    corrected, uncorrected = found
    gain = uncorrected[0].evidence - corrected[0].evidence
    best = uncorrected if gain > CLEARLY else corrected
    if if_uneven is not None and not is_unbalanced(best[2], profile.shares, if_uneven):
        return None
    return best


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
