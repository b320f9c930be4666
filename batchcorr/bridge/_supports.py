r"""Supports that are run, each standardized by itself at every layer, as if a domain.

A layer after corrected ones meets supports whose peculiarity is partly gone: here all of
it is, and what is left of N and V is measured.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from batchcorr.arrays.generic import tensor_affine, tensor_moments
from batchcorr.bridge._batches import Minibatch, take
from batchcorr.bridge._layerwise import statistics
from batchcorr.bridge._norms import eps_of, normalizing
from batchcorr.bridge._profile import weights_of
from batchcorr.bridge._rows import positions
from batchcorr.bridge._running import evaluating, hooked, input_of, run, wide
from batchcorr.bridge._torch import torch
from batchcorr.models.channel_shrinkage import FLOOR

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray
    from torch import Tensor, nn
    from torch.nn.modules.batchnorm import _BatchNorm

    Floats = NDArray[np.float64]

__all__ = ["absorbed_errors", "shuffled"]


def absorbed_errors(
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


def shuffled(batches: list[Minibatch], n: int) -> Iterator[Any]:
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
