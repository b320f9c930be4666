r"""Measure a profile: the source's statistics, and how those of small supports err.

In one pass over source samples every layer notes the mean and variance of each sample's
positions, which are no replicates. From these numbers come, in units of the source's
mean and sd, the statistics of any support of n samples that is drawn from them,

    γ̂ = mean,   δ̂² = variance   of a support;   N = var γ̂,  b = E log δ̂²,
    V = var log δ̂²   over supports

without running the model again. That holds where the layers before keep the source's
statistics. A layer after corrected ones meets supports whose peculiarity is partly gone:
N and V with all of it absorbed are measured too, by running many supports at once, each
standardized by itself at every layer, as if it were a domain.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from batchcorr.bridge._batches import Minibatch, read_batches, take
from batchcorr.bridge._classes import read_classes
from batchcorr.bridge._fingerprints import fingerprints
from batchcorr.bridge._layerwise import (
    call_order,
    require_reusable,
    restoring,
    statistics,
)
from batchcorr.bridge._norms import require_model
from batchcorr.bridge._profile import LayerProfile, Profile, weights_of
from batchcorr.bridge._source_samples import DRAWS, Classes, drawn_errors, settled
from batchcorr.bridge._supports import absorbed_errors, shuffled
from batchcorr.bridge._torch import torch
from batchcorr.errors import InputError
from batchcorr.estimators.progress import progress

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray
    from torch import nn

    Floats = NDArray[np.float64]

__all__ = ["profile"]

LARGEST = 64
"""Largest support that is drawn; errors of larger ones fall as 1/n."""


def profile(
    model: nn.Module, source_loader: Iterable[Any], *, samples: int = 1024
) -> Profile:
    """Measure what `recalibrate` needs to know of the data a model was trained on.

    Parameters
    ----------
    model
        A torch model with BatchNorm layers; it is put back as it was.
    source_loader
        Source data, shuffled: a DataLoader, or a list of minibatches. Where it gives
        tuples whose second item are integer labels, the moments of classes are kept
        too, which `method="eb_cov"` needs; label k must be the model's logit k.
        Supports are drawn inside minibatches: those of a few hundred samples are best.
    samples
        How many samples are used, the first of the loader; they are held in memory.
        About as many, or twice, are run for each of seven support sizes.

    Returns
    -------
    Profile
        To be saved with the weights, `profile.save("model.profile.npz")`.

    Raises
    ------
    InputError
        If the model has no BatchNorm layers, or lazy ones; if a layer is called twice,
        in some minibatches only, or keeps no statistics; if the loader is an iterator,
        has minibatches of one sample only, or values that are not finite; if labels are
        not 0 … K-1.

    Warns
    -----
    CovariateWarning
        If labels are given in a form that is not read: one-hot, or not integers.

    Notes
    -----
    Two to four runs over the samples of a trained model, up to one for each layer of
    another; then about ten times as many forward samples. At a terminal there is a
    progress bar. A channel without variance in the source has no profile: it keeps its
    statistics. The random numbers are the same every time.

    Examples
    --------
    >>> import torch
    >>> generator = torch.Generator().manual_seed(0)
    >>> model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    >>> found = profile(model, [torch.randn(200, 3, generator=generator)])
    >>> found.sizes.tolist()
    [1, 2, 4, 8, 16, 32, 64]
    """
    model = require_model(model)
    require_reusable(source_loader)
    batches = _first(source_loader, samples)
    loader = [(batch.inputs, *batch.others) for batch in batches]
    order, _ = call_order(model, loader)
    labels = read_classes(batches)
    largest = max(batch.size for batch in batches)
    if largest < 2:
        msg = (
            "The source loader gives one sample at a time, and supports are drawn "
            "inside minibatches: give some hundred samples at a time."
        )
        raise InputError(msg)
    sizes = 2 ** np.arange(int(np.log2(min(largest, LARGEST))) + 1)
    producers = fingerprints(model, loader, order)
    with restoring(order, always=True), progress("Profile", len(sizes) + 2) as advance:
        each = settled(model, batches, order)
        advance(2)
        source = statistics(order)
        plain = {name: drawn_errors(each[name], sizes, None) for name in order}
        absorbed: dict[str, list[Floats]] = {name: [] for name in order}
        for s, n in enumerate(sizes):
            bias = {name: plain[name].bias[s] for name in order}
            wanted = max(64, min(DRAWS, 2 * samples // int(n)))
            found = absorbed_errors(
                model, shuffled(batches, int(n)), order, bias, (int(n), wanted)
            )
            for name, errors in found.items():
                absorbed[name].append(errors)
            advance(1)
    layers = {}
    for name, norm in order.items():
        left = plain[name].left(absorbed[name])
        classes = None if labels is None else Classes.of(each[name], labels)
        none = np.empty((0, 0))
        mean, variance = (part.cpu().numpy() for part in source[name])
        weight, bias_ = weights_of(norm)
        within = None if classes is None else drawn_errors(each[name], sizes, classes)
        layers[name] = LayerProfile(
            mean=mean,
            variance=variance,
            weight=weight,
            bias=bias_,
            producers=producers[name],
            null=plain[name].table(left),
            class_null=None if within is None else within.table(left),
            class_mean=none if classes is None else classes.mean,
            class_square=none if classes is None else classes.square,
        )
    shares = np.empty(0) if labels is None else np.bincount(labels) / len(labels)
    return Profile(layers, sizes, shares)


def _first(loader: Iterable[Any], samples: int) -> list[Minibatch]:
    """The first samples of a loader, in its minibatches."""
    if samples < 2:
        msg = (
            f"samples={samples!r}: give at least 2, some hundred or thousand are best."
        )
        raise InputError(msg)
    batches: list[Minibatch] = []
    left = samples
    for batch in read_batches(loader):
        if batch.size > left:
            few = take((batch.inputs, *batch.others), torch.arange(left))
            batches.append(Minibatch(few[0], few[1:], left))
        else:
            batches.append(batch)
        left -= batches[-1].size
        if left < 1:
            break
    return batches
