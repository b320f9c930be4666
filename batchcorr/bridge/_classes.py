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
from batchcorr.errors import CovariateWarning, InputError, warn

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from torch import nn

    from batchcorr.bridge._batches import Minibatch
    from batchcorr.bridge._layerwise import Statistics
    from batchcorr.bridge._profile import Profile

__all__ = ["choose_classes", "gives_logits", "is_unbalanced", "read_classes"]

ROUNDS = 2
CLEARLY = 2.0
"""Log of how many times more probable."""


# -- of the source -----------------------------------------------------------------------


def read_classes(batches: list[Minibatch]) -> NDArray[np.int64] | None:
    """The class of each sample, 0 … K-1, that a loader gave; None if it gave none.

    Warns
    -----
    CovariateWarning
        If there is something that looks like labels, in another form.
    """
    labels = [_labels_of(batch) for batch in batches]
    given = [part for part in labels if part is not None]
    if not given:
        _warn_of_other_labels(batches[0])
        return None
    values = np.concatenate(given)
    counts = np.bincount(np.maximum(values, 0))
    if len(given) < len(labels) or values.min() < 0 or (counts == 0).any():
        msg = (
            "Labels of classes must be 0 … K-1, each class there, in every minibatch; "
            f"the loader gives {sorted(set(values.tolist()))[:20]} in {len(given)} "
            f"of {len(labels)} minibatches. Give inputs alone to go without classes."
        )
        raise InputError(msg)
    return values


def _labels_of(batch: Minibatch) -> NDArray[np.int64] | None:
    """Integer labels that came with the inputs, if they did."""
    labels = batch.others[0] if batch.others else None
    if not isinstance(labels, torch.Tensor) or labels.shape != (batch.size,):
        return None
    if labels.is_floating_point() or labels.dtype == torch.bool:
        return None
    values: NDArray[np.int64] = labels.cpu().numpy().astype(np.int64)
    return values


def _warn_of_other_labels(batch: Minibatch) -> None:
    """Warn of classes in another form than integers: as floats, or one-hot."""
    labels = batch.others[0] if batch.others else None
    if not isinstance(labels, torch.Tensor) or labels.layout != torch.strided:
        return
    if labels.ndim not in {1, 2} or not labels.numel() or labels.is_complex():
        return
    if labels.is_floating_point() and bool((labels != labels.round()).any()):
        return
    one_hot = labels.ndim == 2 and labels.shape[1] > 1
    if one_hot and not bool(((labels == 1).sum(1) == labels.count_nonzero(1)).all()):
        return
    if one_hot and not bool((labels.count_nonzero(1) == 1).all()):
        return
    what = "one-hot rows" if one_hot else f"labels of {labels.dtype}"
    msg = (
        f"The loader gives {what}, shape {tuple(labels.shape)}, with the inputs, which "
        "look like classes and are not read: the profile is without classes, which "
        "method='eb_cov' needs. Give one integer for each sample, 0 … K-1: "
        "labels.long(), or labels.argmax(1) of one-hot rows."
    )
    warn(msg, CovariateWarning)


# -- of a domain -------------------------------------------------------------------------


def choose_classes(
    model: nn.Module,
    loader: Iterable[Any],
    profile: Profile,
    correct: Callable[[EmpiricalBayes], tuple[Statistics, int]],
    restore: Callable[[], None],
) -> tuple[EmpiricalBayes, Statistics, NDArray[np.float64]]:
    """The believed correction: its estimator, statistics and class shares."""
    classes = len(profile.shares)
    starts = [_mean_probabilities(model, loader, classes)]
    restore()
    starts.append(_mean_probabilities(model, loader, classes))
    found = []
    for start in starts:
        shares = start
        for _ in range(ROUNDS):
            assumed, estimate = shares, EmpiricalBayes(profile, shares)
            values, _ = correct(estimate)
            shares = _mean_probabilities(model, loader, classes)
        found.append((estimate, values, assumed))
    corrected, uncorrected = found
    gain = uncorrected[0].evidence - corrected[0].evidence
    return uncorrected if gain > CLEARLY else corrected


def is_unbalanced(
    shares: NDArray[np.float64], expected: NDArray[np.float64], n: int
) -> bool:
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


def gives_logits(model: nn.Module, loader: Iterable[Any], classes: int) -> bool:
    """Whether a model's answer to the first minibatch holds a logit for each class."""
    with evaluating(model):
        answer = run(model, next(iter(read_batches(loader))).inputs)
    return _are_logits(_logits_of(answer), classes)


def _mean_probabilities(
    model: nn.Module, loader: Iterable[Any], classes: int
) -> NDArray[np.float64]:
    """The mean probability of each class over a loader: (classes,)."""
    total = np.zeros(classes)
    samples = 0
    with evaluating(model):
        for minibatch in read_batches(loader):
            answer = run(model, minibatch.inputs)
            logits = _logits_of(answer)
            if not _are_logits(logits, classes):
                there = isinstance(logits, torch.Tensor)
                what = f"shape {tuple(logits.shape)}" if there else type(answer)
                msg = (
                    f"The model gives {getattr(what, '__name__', what)}, and to see "
                    "which classes there are it must give logits, samples × "
                    f"{classes} classes of the profile: a tensor, or what has one as "
                    '`logits` or as its first item. method="eb" goes without classes.'
                )
                raise InputError(msg)
            total += torch.softmax(wide(logits), dim=1).sum(dim=0).cpu().numpy()
            samples += minibatch.size
    return total / samples


def _logits_of(answer: Any) -> Any:
    """The logits in what a model gave: itself, `logits`, or the first of a tuple."""
    if isinstance(answer, Mapping):
        return answer.get("logits")
    if isinstance(answer, torch.Tensor):
        return answer
    first = answer[0] if isinstance(answer, tuple | list) and answer else answer
    return getattr(answer, "logits", first)


def _are_logits(logits: Any, classes: int) -> bool:
    if not isinstance(logits, torch.Tensor) or not logits.is_floating_point():
        return False
    return logits.ndim == 2 and logits.shape[1] == classes
