"""What every BatchNorm of a model meets in one training step."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from batchcorr.arrays.generic import tensor_moments
from batchcorr.bridge._norms import batch_norms
from batchcorr.bridge._rows import to_rows
from batchcorr.bridge._torch import torch

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.nn.modules.batchnorm import _BatchNorm

    from batchcorr.bridge._lint.subject import Subject
    from batchcorr.models.moments import Moments

__all__ = ["Observed", "Trail", "observe"]


@dataclass
class Observed:
    """The inputs one BatchNorm was called with.

    Attributes
    ----------
    norm
        The layer, in the copy.
    inputs
        Input of each call, without its graph.
    learns_before
        Whether an input depends on something that is trained.
    """

    norm: _BatchNorm
    inputs: list[Tensor] = field(default_factory=list)
    learns_before: bool = False

    @property
    def by_batch(self) -> bool:
        """Whether it normalizes by the batch, not by frozen statistics."""
        return self.norm.training or self.norm.running_mean is None

    @property
    def rows(self) -> int:
        """Values per channel in the smallest call."""
        return min(x.numel() // x.shape[1] for x in self.inputs)

    @property
    def samples(self) -> int:
        """Length of the first axis in the smallest call."""
        return min(int(x.shape[0]) for x in self.inputs)

    @property
    def moments(self) -> Moments:
        """Moments of each channel, over all calls."""
        return tensor_moments(torch.cat([to_rows(x) for x in self.inputs]))

    @property
    def variance(self) -> Tensor:
        """Variance of each channel, over all calls: (C,)."""
        moments = self.moments
        variance: Tensor = (moments.squares / moments.n)[0]
        return variance


def observe(subject: Subject) -> dict[str, Observed]:
    """Return what each BatchNorm that is called meets, by name."""
    found = {
        name: Observed(norm)
        for name, norm in batch_norms(subject.step.model, needed=False).items()
    }
    handles = [
        one.norm.register_forward_pre_hook(_noter(one), with_kwargs=True)
        for one in found.values()
    ]
    try:
        subject.run()
    finally:
        for handle in handles:
            handle.remove()
    return {name: one for name, one in found.items() if one.inputs}


def _noter(one: Observed) -> Any:
    def note(_norm: nn.Module, args: Any, kwargs: Any) -> None:
        x = args[0] if args else kwargs["input"]
        one.inputs.append(x.detach().clone())
        one.learns_before |= x.requires_grad

    return note


class Trail:
    """Where in a model the computation is: `name` of the innermost module.

    Set hooks on a copy only: they stay.
    """

    def __init__(self, model: nn.Module) -> None:
        self._inside: list[str] = []
        for name, module in model.named_modules():
            module.register_forward_pre_hook(self._enter(name))
            module.register_forward_hook(self._leave)

    @property
    def name(self) -> str:
        """Name of the innermost module."""
        return self._inside[-1] if self._inside else ""

    def _enter(self, name: str) -> Any:
        def enter(_module: nn.Module, _args: Any) -> None:
            self._inside.append(name)

        return enter

    def _leave(self, _module: nn.Module, _args: Any, _output: Any) -> None:
        self._inside.pop()
