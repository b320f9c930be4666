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

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from batchcorr.arrays.generic import tensor_affine, tensor_moments
from batchcorr.bridge._batches import Minibatch, read_batches, take
from batchcorr.bridge._classes import read_classes
from batchcorr.bridge._fingerprints import fingerprints
from batchcorr.bridge._layerwise import (
    call_order,
    put,
    require_reusable,
    restoring,
    statistics,
)
from batchcorr.bridge._norms import eps_of, normalizing, require_model
from batchcorr.bridge._profile import LayerProfile, NullTable, Profile, weights_of
from batchcorr.bridge._rows import positions
from batchcorr.bridge._running import evaluating, hooked, input_of, run, wide
from batchcorr.bridge._torch import torch
from batchcorr.errors import InputError
from batchcorr.estimators.progress import progress
from batchcorr.models.channel_shrinkage import FLOOR, effective_number

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from numpy.typing import NDArray
    from torch import Tensor, nn
    from torch.nn.modules.batchnorm import _BatchNorm

    Floats = NDArray[np.float64]

__all__ = ["profile"]

LARGEST = 64
"""Largest support that is drawn; errors of larger ones fall as 1/n."""

DRAWS = 512
"""Supports that are drawn of the samples' numbers."""

CLOSE = 1e-3
"""How near a layer's new statistics come to those it has, in its sd, to be believed."""


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
        each = _settled(model, batches, order)
        advance(2)
        source = statistics(order)
        plain = {name: _drawn(each[name], sizes, None) for name in order}
        absorbed: dict[str, list[Floats]] = {name: [] for name in order}
        for s, n in enumerate(sizes):
            bias = {name: plain[name].bias[s] for name in order}
            wanted = max(64, min(DRAWS, 2 * samples // int(n)))
            found = _absorbed(
                model, _shuffled(batches, int(n)), order, bias, (int(n), wanted)
            )
            for name, errors in found.items():
                absorbed[name].append(errors)
            advance(1)
    layers = {}
    for name, norm in order.items():
        left = plain[name].left(absorbed[name])
        classes = None if labels is None else _Classes.of(each[name], labels)
        none = np.empty((0, 0))
        mean, variance = (part.cpu().numpy() for part in source[name])
        weight, bias_ = weights_of(norm)
        within = None if classes is None else _drawn(each[name], sizes, classes)
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


# -- one pass: every sample's own numbers --------------------------------------------------


class _Samples(NamedTuple):
    """Mean and variance of each sample's positions, in units of the source: (S, C)."""

    mean: NDArray[np.float32]
    variance: NDArray[np.float32]
    positions: int


def _settled(
    model: nn.Module, batches: list[Minibatch], order: Mapping[str, _BatchNorm]
) -> dict[str, _Samples]:
    """Set the layers to the statistics of the samples, and return each sample's numbers.

    What a layer receives depends on those before it: passes are made until no layer
    moves. The first layers are right after one, all after as many as there are layers;
    a trained model's are nearly right before.
    """
    for _ in range(len(order) + 1):
        each = _pass(model, batches, order)
        new, moved = {}, 0.0
        for name, (mean, variance) in statistics(order).items():
            numbers = each[name]
            there = (variance > 0).cpu().numpy()
            sd = np.where(there, np.sqrt(np.maximum(variance.cpu().numpy(), 0)), 1.0)
            shift = numbers.mean.mean(axis=0, dtype=np.float64)
            square = numbers.variance.mean(axis=0, dtype=np.float64)
            square += numbers.mean.var(axis=0, dtype=np.float64)
            scale = np.where(square > 0, np.sqrt(square), 1.0)
            new[name] = (
                mean.new_tensor(mean.cpu().numpy() + sd * shift),
                mean.new_tensor(sd**2 * square),
            )
            moved = max(moved, float(np.abs(shift / scale).max()))
            moved = max(
                moved, float(np.abs(np.log(np.where(square > 0, square, 1))).max())
            )
            each[name] = _Samples(
                ((numbers.mean - shift) / scale).astype(np.float32),
                (numbers.variance / scale**2).astype(np.float32),
                numbers.positions,
            )
        put(order, new)
        if moved < CLOSE:
            break
    return each


def _pass(
    model: nn.Module, batches: list[Minibatch], order: Mapping[str, _BatchNorm]
) -> dict[str, _Samples]:
    """Each sample's numbers at every layer, in units of what the layer has."""
    names = {norm: name for name, norm in order.items()}
    units = statistics(order)
    parts: dict[str, list[tuple[Any, Any, int]]] = {name: [] for name in order}

    def note(norm: _BatchNorm, args: Any, kwargs: Any) -> None:
        name, x = names[norm], input_of(args, kwargs)
        mean, variance = units[name]
        sd = torch.where(variance > 0, variance, torch.ones_like(variance)).sqrt()
        rows = wide(x.reshape(*x.shape[:2], -1))
        found, at = torch.var_mean(rows, 2, correction=0)
        means = ((at - mean) / sd).float().cpu().numpy()
        variances = (found / sd**2).float().cpu().numpy()
        parts[name].append((means, variances, rows.shape[2]))

    with hooked(order.values(), before=note), evaluating(model):
        for batch in batches:
            run(model, batch.inputs)
    for name, values in parts.items():
        if not all(np.isfinite(part[0]).all() for part in values):
            msg = (
                f"The BatchNorm layer {name!r} receives values that are not finite "
                "(NaN): the model or its inputs are broken before it."
            )
            raise InputError(msg)
    return {
        name: _Samples(
            np.concatenate([part[0] for part in values]),
            np.concatenate([part[1] for part in values]),
            values[0][2],
        )
        for name, values in parts.items()
    }


class _Classes(NamedTuple):
    """The class of each sample, and mean of z and z² in each class: (K, C)."""

    labels: NDArray[np.int64]
    mean: Floats
    square: Floats

    @classmethod
    def of(cls, each: _Samples, labels: NDArray[np.int64]) -> _Classes:
        member = np.eye(int(labels.max()) + 1)[labels]
        member = (member / member.sum(axis=0)).T
        return cls(
            labels,
            member @ each.mean,
            member @ (each.variance + each.mean.astype(float) ** 2),
        )

    def mixture(self, rows: NDArray[np.int64]) -> tuple[Floats, Floats]:
        """Mean and variance that supports of these samples have in the source."""
        shares = np.eye(len(self.mean))[self.labels[rows]].mean(axis=1)
        mean = shares @ self.mean
        return mean, np.maximum(shares @ self.square - mean**2, 1e-6)


# -- supports ------------------------------------------------------------------------------


class _Errors(NamedTuple):
    """How statistics of supports err, by size, with nothing absorbed: (S, C) each."""

    noise: Floats
    spread: Floats
    bias: Floats
    effective: Floats

    def table(self, left: Floats) -> NullTable:
        """The table, given what is left of N and V where all is absorbed: (2, S, C)."""
        noise, spread = (
            np.stack([part, part * share], axis=1)
            for part, share in zip((self.noise, self.spread), left, strict=True)
        )
        return NullTable(noise, spread, self.bias, self.effective)

    def left(self, absorbed: list[Floats]) -> Floats:
        """What is left of N and V, given those where all is absorbed, by size."""
        there = np.stack([self.noise, self.spread])
        found = np.stack(absorbed, axis=1)
        return np.where(there > 0, found, 1.0) / np.where(there > 0, there, 1.0)


def _drawn(
    each: _Samples, sizes: NDArray[np.int64], classes: _Classes | None
) -> _Errors:
    """Errors of supports that are drawn from the samples' numbers."""
    found = []
    effective = np.ones(2)
    for n in sizes:
        rows = _draw(len(each.mean), int(n), DRAWS)
        means = each.mean[rows].astype(np.float64)  # (supports, n, C)
        delta2 = each.variance[rows].mean(axis=1, dtype=np.float64) + means.var(axis=1)
        centre, expected = (0.0, 1.0) if classes is None else classes.mixture(rows)
        gamma = means.mean(axis=1) - centre
        logs = np.log(np.maximum(delta2, FLOOR) / expected)
        if n * each.positions == 1:
            logs = np.full(logs.shape, np.nan)
        if n <= 1:
            effective[0] = effective_number(gamma)
        if n <= 4:
            effective[1] = effective_number(logs)
        found.append(
            (gamma.var(axis=0, ddof=1), logs.var(axis=0, ddof=1), logs.mean(axis=0))
        )
    noise, spread, bias = (np.stack(part) for part in zip(*found, strict=True))
    return _Errors(noise, spread, bias, effective)


def _draw(count: int, n: int, wanted: int) -> NDArray[np.int64]:
    """Samples of supports, each without repeats: (supports, n)."""
    rng = np.random.default_rng(n)
    n = min(n, count)
    rounds = -(-wanted * n // count)
    whole = [
        rng.permutation(count)[: count // n * n].reshape(-1, n) for _ in range(rounds)
    ]
    rows: NDArray[np.int64] = np.concatenate(whole)[:wanted]
    return rows


def _absorbed(
    model: nn.Module,
    inputs: Iterator[Any],
    order: Mapping[str, _BatchNorm],
    bias: Mapping[str, Floats],
    drawn: tuple[int, int],
) -> dict[str, Floats]:
    """N and V of supports that every layer standardizes by themselves: (2, C) each.

    Parameters
    ----------
    model, inputs, order
        The model, inputs of whole supports, and the layers.
    bias
        b of supports of this size, by layer.
    drawn
        Samples in a support, and how many supports there shall be.
    """
    n, wanted = drawn
    names = {norm: name for name, norm in order.items()}
    source = statistics(order)
    parts: dict[str, list[tuple[Floats, Floats]]] = {name: [] for name in order}

    def standardize(norm: _BatchNorm, args: Any, kwargs: Any, _output: Any) -> Tensor:
        name, x = names[norm], input_of(args, kwargs)
        count = x.shape[0] // n
        rows = _side_by_side(x, count)
        moments = tensor_moments(rows)
        at, squared = source[name]
        sd = torch.where(squared > 0, squared, torch.ones_like(squared)).sqrt()
        gamma = (wide(moments.mean).reshape(count, -1) - at) / sd
        delta2 = wide(moments.variance()).reshape(count, -1) / sd**2
        logs = torch.log(torch.where(squared > 0, delta2, 1.0).clamp(min=FLOOR))
        single = len(rows) == 1
        moved = logs - torch.as_tensor(bias[name]).to(logs)
        scale = torch.zeros_like(logs) if single else moved
        parts[name].append((gamma.cpu().numpy(), logs.cpu().numpy()))
        weight, shift = (
            torch.as_tensor(v).to(at).repeat(count) for v in weights_of(norm)
        )
        mean, variance = (at + sd * gamma).reshape(1, -1), squared * torch.exp(scale)
        correction = normalizing(
            mean.to(moments.mean),
            variance.reshape(1, -1).to(moments.mean),
            eps_of(norm),
            weight.to(moments.mean),
            shift.to(moments.mean),
        )
        return _apart(tensor_affine(rows, correction), x.shape, count)

    count = 0
    with hooked(order.values(), after=standardize), evaluating(model):
        for given in inputs:
            run(model, given)
            count = sum(len(gamma) for gamma, _ in parts[next(iter(order))])
            if count >= wanted:
                break
    return {
        name: np.stack(
            [
                np.concatenate(part).var(axis=0, ddof=1)
                for part in zip(*values, strict=True)
            ]
        )
        for name, values in parts.items()
    }


def _shuffled(batches: list[Minibatch], n: int) -> Iterator[Any]:
    """Inputs of whole supports, samples in random order inside minibatches, for ever."""
    rng = np.random.default_rng(n)
    while True:
        for batch in batches:
            whole = batch.size // n * n
            if whole:
                pick = torch.as_tensor(rng.permutation(batch.size)[:whole])
                yield take(batch.inputs, pick)


def _side_by_side(x: Tensor, count: int) -> Tensor:
    """G supports as columns: (G n, C, …) to (n · positions, G · C)."""
    n, channels, places = x.shape[0] // count, x.shape[1], positions(x.shape)
    x = x.reshape(count, n, channels, places)
    return x.permute(1, 3, 0, 2).reshape(n * places, count * channels)


def _apart(rows: Tensor, shape: Any, count: int) -> Tensor:
    """What `_side_by_side` was given."""
    n, channels, places = shape[0] // count, shape[1], positions(shape)
    x = rows.reshape(n, places, count, channels).permute(2, 0, 3, 1)
    return x.reshape(shape)
