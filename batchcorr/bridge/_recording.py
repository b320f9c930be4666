"""What the layers of a network give, batch by batch: samples × channels each.

A layer is a matrix with a row for every sample if it gives one tensor, samples first, as
often in every batch; its positions (time, height, width) are averaged.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn

from batchcorr.bridge._torch import torch
from batchcorr.errors import InputError, LayerWarning, warn

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from batchcorr.bridge._batches import Minibatch

__all__ = ["Recording"]

CHANNELS_LAST = (nn.Linear, nn.LayerNorm, nn.Embedding)
"""Layers whose channels are the last axis; those of all others are the second."""


class Recording:
    """Outputs of layers so far.

    Parameters
    ----------
    layers
        The modules, by name.
    needed
        Whether all of them must be there: else those that are not matrices are left
        out.
    """

    def __init__(self, layers: Mapping[str, nn.Module], *, needed: bool) -> None:
        self.layers = layers
        self.needed = needed
        self.outputs: dict[tuple[str, int], list[Tensor]] = {}
        self.refused: dict[str, str] = {}
        self._calls: list[tuple[str, Tensor]] = []

    def hook(self, name: str) -> Any:
        """Return the forward hook of a layer: it takes the mean over positions."""

        def record(module: nn.Module, _inputs: Any, output: Any) -> None:
            if name in self.refused:
                return
            if not isinstance(output, torch.Tensor):
                self._refuse(name, f"it gives a {type(output).__name__}, no tensor")
            elif output.ndim < 2:
                self._refuse(name, f"it gives a tensor of shape {tuple(output.shape)}")
            else:
                self._calls.append((name, _mean_over_positions(name, module, output)))

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
        """Return the matrix of each layer, and say which layers there are none of.

        Raises
        ------
        InputError
            If there is none, or one that is needed was never called.
        """
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
        return {
            name if call == 1 else f"{name} (call {call})": torch.cat(parts)
            for (name, call), parts in self.outputs.items()
        }

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
    """Return why one run's output does not belong below those before, or nothing."""
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


def _mean_over_positions(name: str, module: nn.Module, output: Tensor) -> Tensor:
    """Return samples × channels that the network cannot change any more.

    Raises
    ------
    InputError
        If values are not finite.
    """
    if not bool(torch.isfinite(output).all()):
        msg = (
            f"The layer {name!r} gives values that are not finite (NaN): the model "
            "or its inputs are broken there."
        )
        raise InputError(msg)
    if isinstance(module, CHANNELS_LAST):
        output = output.movedim(-1, 1)
    wide = output if output.dtype == torch.float64 else output.float()
    # A copy: what comes next may work in place on what the layer gave.
    return wide.flatten(2).mean(2) if wide.ndim > 2 else wide.clone()
