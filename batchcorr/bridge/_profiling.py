r"""Measure a profile: the source layer by layer, and how small supports of it err.

Each source sample's mean and variance at every layer are kept; supports are drawn from
them, and their statistics γ̂, δ̂² in units of the source give

    N = var γ̂,      b = E log δ̂²,      V = var log δ̂²

Positions of an image are no replicates, so that whole samples are drawn.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from batchcorr.bridge._batches import Minibatch, read_batches, take
from batchcorr.bridge._layerwise import not_finite, put, restore, snapshot, watch
from batchcorr.bridge._norms import batch_norms, require_model, statistics_of
from batchcorr.bridge._profile import LayerProfile, Profile, fingerprints
from batchcorr.bridge._running import wide
from batchcorr.bridge._torch import torch
from batchcorr.errors import InputError
from batchcorr.estimators.progress import progress
from batchcorr.models.channel_shrinkage import FLOOR, effective_number

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray
    from torch import Tensor, nn
    from torch.nn.modules.batchnorm import _BatchNorm

    Floats = NDArray[np.float64]

__all__ = ["profile", "read_classes"]

SIZES = 2 ** np.arange(7)
"""Supports that are drawn; errors of larger ones fall as 1/n."""

DRAWS = 512
"""Supports of each size."""

INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
CLOSE = 1e-3
"""How near a layer's new statistics come to those it has, in its sd, to be believed."""

ROUNDING = 2e-6
"""How near is as near as numbers in float32 can be."""

FAR = 8
"""Changes of log variances, over layers, up to which what the next receives is believed."""


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
    samples
        How many samples are used, the first of the loader; they are held in memory.

    Returns
    -------
    Profile
        To be saved with the weights, `profile.save("model.profile.npz")`.

    Raises
    ------
    InputError
        If the model has no BatchNorm layers, or lazy ones; if a layer is called twice,
        in some minibatches only, or keeps no statistics; if the loader has one sample
        only, or values that are not finite; if labels are not 0 … K-1.

    Notes
    -----
    Three to five runs over the samples of a trained model, up to one for each layer of
    another, with a progress bar. A channel without variance in the source has no profile:
    it keeps its statistics. The random numbers are the same every time.

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
    norms = batch_norms(model)
    batches = _first(source_loader, samples)
    count = sum(batch.size for batch in batches)
    if count < 2:
        msg = f"A profile of {count} samples is not possible: use some hundred."
        raise InputError(msg)
    sizes, labels = SIZES[count >= SIZES], read_classes(batches)
    layers = {}
    before = snapshot(norms)
    with ExitStack() as stack:
        stack.callback(restore, norms, before)
        advance = stack.enter_context(progress("Profile", 2 + len(norms)))
        each = _settled(model, [batch.inputs for batch in batches], norms)
        advance(2)
        for name, numbers in each.items():
            mean, variance = (part.cpu().numpy() for part in statistics_of(norms[name]))
            layers[name] = LayerProfile(
                mean.copy(),
                variance.copy(),
                *_drawn_errors(numbers, sizes),
                *_by_class(numbers, labels),
            )
            advance(1)
    shares = np.empty(0) if labels is None else np.bincount(labels) / len(labels)
    return Profile(layers, sizes, shares, fingerprints(model))


def _first(loader: Iterable[Any], samples: int) -> list[Minibatch]:
    """The first samples of a loader, in its minibatches."""
    batches: list[Minibatch] = []
    left = max(samples, 0)
    for batch in read_batches(loader):
        if batch.size > left:
            few = take((batch.inputs, *batch.others), torch.arange(left, device="cpu"))
            batch = Minibatch(few[0], few[1:], left)  # noqa: PLW2901
        batches.append(batch)
        left -= batch.size
        if not left:
            break
    return batches


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


class _Samples(NamedTuple):
    """Mean and variance of each sample's positions, in units of the source: (S, C)."""

    mean: Tensor
    variance: Tensor
    positions: int


def _settled(
    model: nn.Module, inputs: list[Any], norms: Mapping[str, _BatchNorm]
) -> dict[str, _Samples]:
    """Set the layers to the statistics of the samples: each sample's numbers.

    A layer receives what those before it give: passes are made until none moves. The
    first are right after one, all after as many as there are; a trained model's nearly
    are before. Where layers together change by orders of magnitude, those behind wait.
    """
    for _ in range(len(norms) + 1):
        each = _pass(model, inputs, norms)
        moved = changed = 0.0
        for name, (means, variances, positions) in each.items():
            if changed > FAR:
                moved = np.inf
                break
            shift = means.double().mean(0)
            square = variances.double().mean(0) + means.double().var(0, correction=0)
            mean, sd = statistics_of(norms[name])[0], _sd(norms[name])
            scale = square.where(square > 0, 1).sqrt()
            steps = [
                float(step.abs().max()) for step in (shift / scale, 2 * scale.log())
            ]
            if max(steps) > ROUNDING:  # else it would move all layers behind it
                new = mean + sd * shift.to(sd), sd.square() * square.to(sd)
                put(norms, {name: new})
            moved, changed = max(moved, *steps), changed + steps[1]
            settled = ((means - shift) / scale).float()
            width = (variances / scale.square()).float()
            each[name] = _Samples(settled, width, positions)
        if moved < CLOSE:
            break
    return each


def _sd(norm: _BatchNorm) -> Tensor:
    """A layer's running standard deviation, 1 where there is none."""
    variance = statistics_of(norm)[1]
    return variance.where(variance > 0, 1).sqrt()


def _pass(
    model: nn.Module, inputs: list[Any], norms: Mapping[str, _BatchNorm]
) -> dict[str, _Samples]:
    """Each sample's numbers at every layer, in units of what the layer has."""
    parts: dict[str, list[_Samples]] = {name: [] for name in norms}

    def note(name: str, x: Tensor) -> None:
        mean, sd = statistics_of(norms[name])[0], _sd(norms[name])
        rows = wide(x.reshape(*x.shape[:2], -1))
        at = rows.mean(2)
        own = (rows - at[:, :, None]).square_().mean(2)
        values = ((at - mean) / sd).float().cpu(), (own / sd.square()).float().cpu()
        if not bool(torch.isfinite(values[0]).all()):
            raise InputError(not_finite(name))
        parts[name].append(_Samples(*values, rows.shape[2]))

    order, _ = watch(model, inputs, norms, note)
    each = {}
    for name in order:
        means, variances, positions = zip(*parts[name], strict=True)
        each[name] = _Samples(torch.cat(means), torch.cat(variances), positions[0])
    return each


def _by_class(each: _Samples, labels: NDArray[np.int64] | None) -> list[Floats]:
    """Mean of z and z² in each class, (K, C) each; empty without labels."""
    if labels is None:
        return [np.empty((0, 0))] * 2
    member = np.eye(int(labels.max()) + 1)[labels]
    member = (member / member.sum(axis=0)).T
    mean = each.mean.double().numpy()
    return [member @ mean, member @ (each.variance.numpy() + mean**2)]


def _drawn_errors(each: _Samples, sizes: NDArray[np.int64]) -> list[Floats]:
    """N, b and V of supports by size, (S, C) each, and effective numbers of channels."""
    noise, bias, variance = [], [], []
    effective = np.ones(2)
    mean = each.mean.double().numpy()
    square = each.variance.numpy() + mean**2
    for n in sizes:
        rows = _draw(len(each.mean), int(n))
        shares = np.zeros((len(rows), len(mean)))  # of each sample in each support
        np.put_along_axis(shares, rows, 1 / rows.shape[1], axis=1)
        gamma = shares @ mean
        logs = np.log(np.maximum(shares @ square - gamma**2, FLOOR))
        if n * each.positions == 1:
            logs = np.full(logs.shape, np.nan)
        if n == 1:
            effective[0] = effective_number(gamma)
        if n <= 4:
            effective[1] = effective_number(logs)
        noise.append(gamma.var(axis=0, ddof=1))
        bias.append(logs.mean(axis=0))
        variance.append(logs.var(axis=0, ddof=1))
    return [*map(np.stack, (noise, bias, variance)), effective]


def _draw(count: int, n: int) -> NDArray[np.int64]:
    """Samples of supports, each without repeats: (supports, n)."""
    rng = np.random.default_rng(n)
    rounds = -(-DRAWS * n // count)
    whole = [
        rng.permutation(count)[: count // n * n].reshape(-1, n) for _ in range(rounds)
    ]
    rows: NDArray[np.int64] = np.concatenate(whole)[:DRAWS]
    return rows
