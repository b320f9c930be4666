r"""Each source sample's own numbers at every layer, and supports that are drawn from them.

    γ̂ = mean,   δ̂² = variance   of a support;   N = var γ̂,  b = E log δ̂²,
    V = var log δ̂²   over supports

Positions of an image are no replicates, so that whole samples are drawn.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from batchcorr.bridge._layerwise import put, statistics
from batchcorr.bridge._null_table import NullTable
from batchcorr.bridge._running import evaluating, hooked, input_of, run, wide
from batchcorr.bridge._torch import torch
from batchcorr.errors import InputError
from batchcorr.models.channel_shrinkage import FLOOR, effective_number

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray
    from torch import nn
    from torch.nn.modules.batchnorm import _BatchNorm

    from batchcorr.bridge._batches import Minibatch

    Floats = NDArray[np.float64]

__all__ = ["Classes", "Samples", "drawn_errors", "settled"]

DRAWS = 512
"""Supports that are drawn of the samples' numbers."""

CLOSE = 1e-3
"""How near a layer's new statistics come to those it has, in its sd, to be believed."""


class Samples(NamedTuple):
    """Mean and variance of each sample's positions, in units of the source: (S, C)."""

    mean: NDArray[np.float32]
    variance: NDArray[np.float32]
    positions: int


def settled(
    model: nn.Module, batches: list[Minibatch], order: Mapping[str, _BatchNorm]
) -> dict[str, Samples]:
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
            each[name] = Samples(
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
) -> dict[str, Samples]:
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
        name: Samples(
            np.concatenate([part[0] for part in values]),
            np.concatenate([part[1] for part in values]),
            values[0][2],
        )
        for name, values in parts.items()
    }


class Classes(NamedTuple):
    """The class of each sample, and mean of z and z² in each class: (K, C)."""

    labels: NDArray[np.int64]
    mean: Floats
    square: Floats

    @classmethod
    def of(cls, each: Samples, labels: NDArray[np.int64]) -> Classes:
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


class Errors(NamedTuple):
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


def drawn_errors(
    each: Samples, sizes: NDArray[np.int64], classes: Classes | None
) -> Errors:
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
    return Errors(noise, spread, bias, effective)


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
