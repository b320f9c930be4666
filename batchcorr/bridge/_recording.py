"""What the layers of a network give, batch by batch: samples × channels each.

A layer is a matrix with a row for every sample if it gives one tensor, samples first, as
often in every batch; its positions (time, height, width) are averaged. Its channels are
the axis that is as long as the layer itself: its features, or its bias.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from batchcorr.bridge._torch import torch
from batchcorr.errors import InputError, LayerWarning, warn

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from batchcorr.bridge._batches import Minibatch

__all__ = ["Recording"]

LENGTHS = (
    "out_channels",
    "out_features",
    "num_features",
    "num_channels",
    "embedding_dim",
)
"""Where layers of torch say how many channels they give."""

LAST = (nn.Linear, nn.LayerNorm, nn.RMSNorm, nn.Embedding)
SECOND = (_ConvNd, _NormBase, nn.GroupNorm)
"""Layers whose channels are the last and the second axis where two are as long."""


class Recording:
    """Outputs of layers so far."""

    def __init__(
        self, layers: Mapping[str, nn.Module], axes: Mapping[str, int], *, needed: bool
    ) -> None:
        self.layers = layers
        self.needed = needed
        self.axes = axes
        self.unclear: dict[str, str] = {}
        self.outputs: dict[tuple[str, int], list[Tensor]] = {}
        self.refused: dict[str, str] = {}
        self._calls: list[tuple[str, Tensor]] = []

    def hook(self, name: str) -> Any:
        """The forward hook of a layer: it takes the mean over positions."""

        def record(module: nn.Module, _inputs: Any, output: Any) -> None:
            if name in self.refused:
                return
            if not isinstance(output, torch.Tensor):
                self._refuse(name, f"it gives a {type(output).__name__}, no tensor")
            elif output.ndim < 2:
                self._refuse(name, f"it gives a tensor of shape {tuple(output.shape)}")
            else:
                axis = self._channel_axis(name, module, output)
                self._calls.append((name, _mean_over_positions(name, output, axis)))

        return record

    def end_batch(self, minibatch: Minibatch, number: int) -> None:
        """Add what was recorded in one run; a layer called twice has two matrices."""
        counts: dict[str, int] = {}
        for name, value in self._calls:
            counts[name] = counts.get(name, 0) + 1
            key = (name, counts[name])
            parts = self.outputs.setdefault(key, [])
            why = _unfit(value, parts, minibatch, number)
            if why:
                self._refuse(name, why)
            parts.append(value.detach().cpu())
        self._calls.clear()
        for (name, _), parts in self.outputs.items():
            if len(parts) < number:
                self._refuse(name, f"it was not called in batch {number}, but before")
        for key in list(self.outputs):
            if key[0] in self.refused:
                del self.outputs[key]

    def matrices(self) -> dict[str, Tensor]:
        """The matrix of each layer; says which layers there are none of."""
        for name in self.layers:
            if self.needed and (name, 1) not in self.outputs:
                msg = f"The layer {name!r} is not called: leave it out of layers=."
                raise InputError(msg)
        if not self.outputs:
            msg = (
                "No layer can be captured. "
                f"{_account(self.layers, self.refused) or 'None of them is called.'} "
                "Name modules that give samples × channels with layers=[…]."
            )
            raise InputError(msg)
        if self.refused:
            msg = f"Layers are left out. {_account(self.layers, self.refused)}"
            warn(msg, LayerWarning)
        for name, taken in self.unclear.items():
            if name not in self.refused:
                msg = (
                    f"It is not clear which axis of {name!r} "
                    f"({type(self.layers[name]).__name__}) are its channels: {taken} is "
                    f"taken. Say it with channels={{{name!r}: axis}}."
                )
                warn(msg, LayerWarning)
        return {
            name if call == 1 else f"{name} (call {call})": torch.cat(parts)
            for (name, call), parts in self.outputs.items()
        }

    def _channel_axis(self, name: str, module: nn.Module, output: Tensor) -> int:
        """The axis of the channels: the one told, or the one as long as the layer."""
        if name in self.axes:
            axis = self.axes[name]
            if not -output.ndim <= axis < output.ndim or axis % output.ndim == 0:
                self._refuse(name, f"channels={axis} is no axis of {output.ndim} but 0")
                return 1
            return axis % output.ndim
        size = _length_of(module)
        fitting = [k for k in range(1, output.ndim) if output.shape[k] == size]
        if len(fitting) == 1 or output.ndim == 2:
            return fitting[0] if fitting else 1
        usual = output.ndim - 1 if isinstance(module, LAST) else 1
        if usual not in fitting or not isinstance(module, (*LAST, *SECOND)):
            shape = tuple(output.shape)
            self.unclear.setdefault(name, f"axis {usual} of {shape}")
        return usual

    def _refuse(self, name: str, why: str) -> None:
        """Leave a layer out, or raise if it is needed."""
        if self.needed:
            account = _account(self.layers, {name: why})
            msg = f"A layer cannot be captured. {account} Leave it out of layers=."
            raise InputError(msg)
        self.refused.setdefault(name, why)


def _unfit(
    value: Tensor, parts: list[Tensor], minibatch: Minibatch, number: int
) -> str:
    """Why one run's output does not belong below those before; or ""."""
    if len(value) != minibatch.size:
        return (
            f"not one row for each of the {minibatch.size} samples of batch {number}, "
            f"but {len(value)}"
        )
    if len(parts) != number - 1:
        return f"it was not called in batch {len(parts) + 1}, but later"
    if parts and parts[0].shape[1] != value.shape[1]:
        before = parts[0].shape[1]
        return f"it has {value.shape[1]} channels in batch {number}, {before} before"
    return ""


def _account(layers: Mapping[str, nn.Module], refused: Mapping[str, str]) -> str:
    return " ".join(
        f"{name!r} ({type(layers[name]).__name__}): {why}."
        for name, why in refused.items()
    )


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
            f"The layer {name!r} gives values that are not finite (NaN): the model "
            "or its inputs are broken there."
        )
        raise InputError(msg)
    output = output.movedim(axis, 1)
    wide = output if output.dtype == torch.float64 else output.float()
    # A copy: what comes next may work in place on what the layer gave.
    return wide.flatten(2).mean(2) if wide.ndim > 2 else wide.clone()
