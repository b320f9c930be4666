"""Example inputs: what is given, on the right device, and the same for other batch sizes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from batchcorr.bridge._batches import leaves, map_tensors
from batchcorr.bridge._torch import torch
from batchcorr.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

__all__ = ["Example", "read_example"]


@dataclass(frozen=True, eq=False)
class Example:
    """Arguments of one call of a model.

    Attributes
    ----------
    args, kwargs
        By position and by name.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    @property
    def batched(self) -> list[torch.Tensor]:
        """The tensors whose first axis is as long as that of the first one."""
        tensors = [leaf for leaf in leaves((self.args, self.kwargs)) if leaf.ndim > 0]
        return [x for x in tensors if x.shape[0] == tensors[0].shape[0]]

    @property
    def batch_size(self) -> int:
        """Length of the first axis."""
        return int(self.batched[0].shape[0])

    def longer(self) -> Example:
        """The same inputs with the first sample once more, at the end."""
        return self._with(lambda x: torch.cat([x, x[:1]]))

    def single(self) -> Example:
        """The first sample alone."""
        return self._with(lambda x: x[:1].clone())

    def _with(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Example:
        """The same inputs with other samples."""
        changed = {id(x): change(x) for x in self.batched}
        return self._map(lambda leaf: changed.get(id(leaf), leaf))

    def owned(self) -> Example:
        """The same inputs, as tensors that autograd may see."""
        return self._map(lambda leaf: leaf.clone() if leaf.is_inference() else leaf)

    def _map(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Example:
        args, kwargs = map_tensors((self.args, self.kwargs), change)
        return Example(args, kwargs)


def read_example(inputs: object, model: nn.Module) -> Example:
    """Example inputs, checked."""
    if isinstance(inputs, Mapping):
        example = Example((), dict(inputs))
    elif isinstance(inputs, tuple | list):
        example = Example(tuple(inputs), {})
    else:
        example = Example((inputs,), {})
    if not example.batched:
        msg = (
            "example_inputs must hold a tensor with samples along its first axis: give "
            "a tensor, a tuple of positional arguments or a dict of named ones, not "
            f"{type(inputs).__name__}."
        )
        raise InputError(msg)
    _require_device(example, model)
    example = example.owned()
    for tensor in example.batched:
        if tensor.numel() == 0:
            msg = (
                f"example_inputs are empty (shape {tuple(tensor.shape)}), so that "
                "nothing could be measured on them. Give at least one sample."
            )
            raise InputError(msg)
        if tensor.is_floating_point() and bool(torch.isnan(tensor).any()):
            msg = "example_inputs contain NaN: give finite values."
            raise InputError(msg)
    return example


def _require_device(example: Example, model: nn.Module) -> None:
    """Refuse inputs that are not where the model is, and models without values."""
    devices = {x.device for x in [*model.parameters(), *model.buffers()]}
    if torch.device("meta") in devices:
        msg = (
            'The model is on the "meta" device: its weights have no values. Load them '
            "before folding."
        )
        raise InputError(msg)
    elsewhere = {x.device for x in example.batched} - devices
    if devices and elsewhere:
        msg = (
            f"The model is on {_named(devices)}, example_inputs are on "
            f"{_named(elsewhere)}: move one of them with .to(device)."
        )
        raise InputError(msg)


def _named(devices: set[torch.device]) -> str:
    return ", ".join(sorted(str(device) for device in devices))
