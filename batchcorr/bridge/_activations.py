"""What the layers of a network give, batch by batch: samples × channels each.

A layer is a matrix with a row for every sample if it gives one tensor, samples first, as
often in every batch; its positions (time, height, width) are averaged. Its channels are
the axis that is as long as the layer itself: its features, or its bias.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from batchcorr.bridge._running import hooked
from batchcorr.bridge._torch import torch
from batchcorr.bridge.nn._domain_norm import DomainBatchNorm
from batchcorr.errors import InputError, LayerWarning, some, warn

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray
    from torch import Tensor

__all__ = ["Activations"]

LENGTHS = [
    "num_features",
    "num_channels",
    "out_features",
    "out_channels",
    "embedding_dim",
]
"""Where layers of torch say how many channels they give."""

LAST = (nn.Linear, nn.LayerNorm, nn.RMSNorm, nn.Embedding)
SECOND = (_ConvNd, _NormBase, nn.GroupNorm, DomainBatchNorm)
"""Layers whose channels are the last and the second axis where two are as long."""


class Activations:
    """Outputs of layers so far: of each call in each batch."""

    def __init__(
        self, layers: Mapping[str, nn.Module], axes: Mapping[str, int]
    ) -> None:
        self.layers, self.axes = layers, axes
        self.size = 0
        self.outputs: dict[str, list[list[Tensor]]] = {name: [] for name in layers}
        self.refused: dict[str, str] = {}
        self.unclear: dict[str, str] = {}

    @contextmanager
    def recorded(self) -> Iterator[None]:
        """Record what the layers give."""
        with ExitStack() as stack:
            for name, module in self.layers.items():
                after = partial(self._record, name)
                stack.enter_context(hooked([module], after=after))
            yield

    def begin(self, size: int) -> None:
        """Begin a batch of so many samples."""
        self.size = size
        for batches in self.outputs.values():
            batches.append([])

    def _record(
        self, name: str, module: nn.Module, _args: Any, _kwargs: Any, output: Any
    ) -> None:
        if not isinstance(output, torch.Tensor):
            self.refused[name] = f"it gives a {type(output).__name__}, no tensor"
        elif output.ndim < 2 or len(output) != self.size:
            shape = tuple(output.shape)
            self.refused[name] = f"not one row for each of {self.size} samples: {shape}"
        elif name not in self.refused:
            axis = self._channel_axis(name, module, output)
            self.outputs[name][-1].append(_mean_over_positions(name, output, axis))

    def matrices(self, *, needed: bool) -> dict[str, NDArray[Any]]:
        """The matrix of each call of a layer; all layers are `needed`, or some may lack."""
        matrices, account = {}, ""
        for name, module in self.layers.items():
            batches, why = self.outputs[name], self.refused.get(name)
            widths = [[value.shape[1] for value in calls] for calls in batches]
            if why is None and any(width != widths[0] for width in widths):
                why = f"its calls have other channels in some batches: {widths[:9]}"
            elif why is None and needed and not widths[0]:
                why = "it is not called"
            if why:
                account += f" {name!r} ({type(module).__name__}): {why}."
                continue
            for k, parts in enumerate(zip(*batches, strict=True)):
                label = f"{name} (call {k + 1})" if k else name
                matrices[label] = torch.cat(parts).numpy()
        if account and (needed or not matrices):
            msg = f"No layer, or not all asked for, can be captured.{account}"
            raise InputError(msg)
        if account:
            warn(f"Layers are left out.{account}", LayerWarning)
        if not matrices:
            msg = (
                "No layer can be captured: none is called. Name others with layers=[…]."
            )
            raise InputError(msg)
        if unclear := [name for name in self.unclear if name in matrices]:
            kinds = [f"{name!r} ({self.unclear[name]} is taken)" for name in unclear]
            msg = (
                f"It is not clear which axis are the channels of {some(kinds)}. Say it "
                f"with channels={{{unclear[0]!r}: axis}}."
            )
            warn(msg, LayerWarning)
        return matrices

    def _channel_axis(self, name: str, module: nn.Module, output: Tensor) -> int:
        """The axis of the channels: the one told, or the one as long as the layer."""
        if name in self.axes:
            axis = self.axes[name]
            if -output.ndim <= axis < output.ndim and axis % output.ndim:
                return axis % output.ndim
            self.refused[name] = f"channels={axis} is no axis of {output.ndim} but 0"
            return 1
        size = _length_of(module)
        fitting = [k for k in range(1, output.ndim) if output.shape[k] == size]
        if len(fitting) == 1 or output.ndim == 2:
            return fitting[0] if fitting else 1
        usual = output.ndim - 1 if isinstance(module, LAST) else 1
        if usual not in fitting or not isinstance(module, (*LAST, *SECOND)):
            self.unclear.setdefault(name, f"axis {usual} of {tuple(output.shape)}")
        return usual


def _length_of(module: nn.Module) -> int | None:
    """How many channels a layer gives, as far as it says so itself."""
    for name in LENGTHS:
        length = getattr(module, name, None)
        if isinstance(length, int):
            return length
    shape = getattr(module, "normalized_shape", None)
    if isinstance(shape, tuple | list) and shape:
        return int(shape[-1])
    own = [value for value in module._parameters.values() if value is not None]
    lengths = {len(value) for value in own if value.ndim == 1}
    return lengths.pop() if len(lengths) == 1 else None


def _mean_over_positions(name: str, output: Tensor, axis: int) -> Tensor:
    """Samples × channels that the network cannot change any more."""
    if not bool(torch.isfinite(output).all()):
        msg = (
            f"The layer {name!r} returns values that are not finite (NaN): check the "
            "model and its inputs."
        )
        raise InputError(msg)
    output = output.detach().movedim(axis, 1)
    wide = output if output.dtype == torch.float64 else output.float()
    # A copy: what comes next may work in place on what the layer gave.
    return (wide.flatten(2).mean(2) if wide.ndim > 2 else wide.clone()).cpu()
