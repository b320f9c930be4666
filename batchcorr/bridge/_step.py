"""One training step of a model, taken as often as one likes without a trace."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias

from batchcorr.bridge._batches import leaves, n_samples
from batchcorr.bridge._norms import require_model
from batchcorr.bridge._running import accelerators, hooked, seeded
from batchcorr.bridge._torch import torch
from batchcorr.errors import BatchCorrError, InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import Tensor, nn

__all__ = ["LossFunction", "Step"]

LossFunction: TypeAlias = "Callable[[nn.Module, Any], Tensor]"
"""`loss(model, batch)`: runs the model on the batch and returns a scalar."""

_OTHER_MODEL = (
    "The loss does not depend on any trainable parameter. loss(model, batch) must run "
    "the model it is given, with gradients on."
)


@dataclass(frozen=True)
class Step:
    """The loss of a model on a batch."""

    model: nn.Module
    loss: LossFunction

    @classmethod
    def of(cls, model: object, loss: LossFunction) -> Step:
        """The step of a model that can be taken apart, unwrapped."""
        model = require_model(model)
        if not any(value.requires_grad for value in model.parameters()):
            msg = (
                "No parameter of the model has requires_grad=True: nothing is trained."
            )
            raise InputError(msg)
        return cls(model, loss)

    def require_training(self) -> None:
        """Refuse a model in evaluation mode, where BatchNorm is frozen."""
        if not self.model.training:
            msg = (
                "The model is in evaluation mode, but this measures a training step: "
                "call model.train() first, then freeze again the layers that should be "
                "frozen."
            )
            raise InputError(msg)

    @cached_property
    def parameters(self) -> dict[str, Tensor]:
        """Trainable parameters by name."""
        named = self.model.named_parameters()
        return {name: value for name, value in named if value.requires_grad}

    @cached_property
    def devices(self) -> list[torch.device]:
        """Accelerators whose random numbers the model may draw."""
        return accelerators(self.model)

    def __call__(self, batch: Any, outputs: list[Tensor] | None = None) -> Tensor:
        """The loss; the tensors that the model gives are added to `outputs`.

        Without `outputs` the loss must be finite.
        """

        def note(_module: nn.Module, _args: Any, _kwargs: Any, output: Any) -> None:
            if outputs is not None:
                outputs.extend(leaves(output))

        try:
            with hooked([self.model], after=note):
                value = self.loss(self.model, batch)
        except BatchCorrError:
            raise
        except Exception as error:
            shapes = ", ".join(str(tuple(tensor.shape)) for tensor in leaves(batch))
            msg = (
                f"loss(model, batch) fails on a batch of shapes {shapes}, "
                f"{type(error).__name__}: {error}\nIt must be a function of the model and "
                "a batch that runs as in your training loop, for instance: lambda model, "
                "batch: F.cross_entropy(model(batch[0]), batch[1])."
            )
            raise InputError(msg) from error
        if not isinstance(value, torch.Tensor) or value.numel() != 1:
            shape = tuple(getattr(value, "shape", ()))
            msg = (
                "loss(model, batch) must return one number as a tensor, not a "
                f"{type(value).__name__} of shape {shape}. Take the mean or the sum over "
                "the samples, and no .item() or .detach()."
            )
            raise InputError(msg)
        if torch.is_grad_enabled() and not value.requires_grad:
            raise InputError(_OTHER_MODEL)
        if outputs is None and not bool(torch.isfinite(value).all()):
            msg = (
                f"The loss of {n_samples(batch)} samples is not finite ({value.item()}). "
                "Look for NaN in the data and the weights, and for a mean over no target "
                "at all (ignore_index, a mask): use a sum (reduction='sum') there, divided "
                "by a number that is the same for every micro-batch."
            )
            raise InputError(msg)
        return value.reshape(())

    def gradients(
        self, value: Tensor, by: Sequence[Tensor] = ()
    ) -> tuple[Tensor | None, ...]:
        """The gradient of a loss by some tensors, or by the parameters, None without one."""
        wanted = list(by) or list(self.parameters.values())
        try:
            found = torch.autograd.grad(value, wanted, allow_unused=True)
        except RuntimeError as error:
            msg = (
                f"loss(model, batch).backward() fails: {error}\nSwitch activation "
                "checkpointing off, if it is on: here BatchNorm must not run again."
            )
            raise InputError(msg) from error
        if not by and _hides_layers(value):
            msg = (
                "The model has activation checkpoints with use_reentrant=True, whose "
                "gradients can only be had by loss.backward(): give use_reentrant=False "
                "or switch them off."
            )
            raise InputError(msg)
        if not by and all(gradient is None for gradient in found):
            raise InputError(_OTHER_MODEL)
        return found

    @contextmanager
    def preserved(self) -> Iterator[Callable[[], None]]:
        """Put tensors and random numbers back at the end, and, by what it yields, before."""
        slots: list[tuple[Any, dict[str, Any]]] = [
            (tensors, dict(tensors))
            for module in self.model.modules()
            for tensors in (module._parameters, module._buffers)
            if tensors
        ]
        buffers = [(buffer, buffer.clone()) for buffer in self.model.buffers()]

        def reset() -> None:
            for tensors, before in slots:
                tensors.update(before)
            with torch.no_grad():
                for buffer, value in buffers:
                    buffer.copy_(value)

        with seeded(self.devices, None), torch.enable_grad():
            try:
                yield reset
            finally:
                reset()


def _hides_layers(value: Tensor) -> bool:
    """Whether layers are outside of a graph, under a reentrant checkpoint."""
    nodes, seen = [value.grad_fn], set()
    while nodes:
        node = nodes.pop()
        if node is None or node in seen:
            continue
        if "CheckpointFunction" in node.name():
            return True
        seen.add(node)
        nodes += [behind for behind, _ in node.next_functions]
    return False
