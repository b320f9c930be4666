"""One training step as a function: the loss, from parameters, buffers and a batch.

Buffers come in as copies and what becomes of them is given back, so that a step can be
taken as often as one likes and leaves the model as it was.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias

from torch import nn
from torch.func import functional_call

from batchcorr.bridge._norms import require_model
from batchcorr.bridge._torch import torch
from batchcorr.bridge._training.samples import leaves
from batchcorr.bridge._training.slots import fill, held
from batchcorr.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import Tensor

__all__ = [
    "LossFunction",
    "Step",
    "fixed_seed",
    "require_any",
    "require_trainable",
    "rng_states",
    "set_rng_states",
    "unchanged",
]

LossFunction: TypeAlias = "Callable[[nn.Module, Any], Tensor]"
"""`loss(model, batch)`: runs the model on the batch and returns a scalar."""


_OTHER_MODEL = (
    "The loss does not depend on any trainable parameter. loss(model, batch) must run "
    "the model it is given, with gradients on."
)


def require_trainable(model: object, loss: object, batch: Any) -> nn.Module:
    """Return `model` if a training step of it can be taken apart.

    Raises
    ------
    InputError
        If it is none, is spread over processes or devices, has nothing to train, is not
        where the data are; or if the loss cannot be called.
    """
    model = require_model(model)
    parallel = (nn.DataParallel, nn.parallel.DistributedDataParallel)
    if isinstance(model, parallel):
        msg = f"Give the model inside the {type(model).__name__}: model.module."
        raise InputError(msg)
    for name, module in model.named_modules():
        if isinstance(module, nn.SyncBatchNorm):
            msg = (
                f"{name} is a SyncBatchNorm, whose batch is spread over processes. Look "
                "at a copy of the model with nn.BatchNorm layers, on one process."
            )
            raise InputError(msg)
    ready_made = isinstance(loss, nn.modules.loss._Loss) or (
        getattr(loss, "__module__", None) == "torch.nn.functional"
    )
    if ready_made or not callable(loss):
        msg = (
            "The loss must be a function of the model and a batch that returns a "
            "scalar, for instance: lambda model, batch: "
            f"F.cross_entropy(model(batch[0]), batch[1]). It is {loss!r}."
        )
        raise InputError(msg)
    if not any(value.requires_grad for value in model.parameters()):
        msg = "No parameter of the model has requires_grad=True: nothing is trained."
        raise InputError(msg)
    _require_one_place(model, batch)
    return model


def _require_one_place(model: nn.Module, batch: Any) -> None:
    devices = {str(value.device) for value in [*model.parameters(), *model.buffers()]}
    given = {str(value.device) for value in leaves(batch)}
    if not given <= devices:
        msg = (
            f"The model is on {', '.join(sorted(devices))} and the data are on "
            f"{', '.join(sorted(given))}: move one to the other with .to(device)."
        )
        raise InputError(msg)
    if "meta" in devices:
        msg = "The model is on the meta device: it has shapes, but no values."
        raise InputError(msg)


class _Inner(nn.Module):
    """The model as a part of a module whose forward pass is the loss."""

    def __init__(self, model: nn.Module, loss: LossFunction) -> None:
        super().__init__()
        self.model = model
        self._loss = (loss,)  # in a tuple: a loss that is a module stays outside
        self.outputs: list[Tensor] = []

    def forward(self, batch: Any) -> Any:
        def note(_model: nn.Module, _args: Any, output: Any) -> None:
            self.outputs.extend(leaves(output))

        handle = self.model.register_forward_hook(note)
        try:
            return self._loss[0](self.model, batch)
        finally:
            handle.remove()


@dataclass(frozen=True)
class Step:
    """The loss of a model on a batch, as a function without side effects on tensors."""

    model: nn.Module
    loss: LossFunction

    @cached_property
    def parameters(self) -> dict[str, Tensor]:
        """Trainable parameters by name."""
        return {
            name: value
            for name, value in self.model.named_parameters()
            if value.requires_grad
        }

    @cached_property
    def devices(self) -> list[int]:
        """CUDA devices whose random numbers the model may draw."""
        return sorted(
            {
                value.device.index or 0
                for value in self.model.parameters()
                if value.is_cuda
            }
        )

    def buffers(self) -> dict[str, Tensor]:
        """Return copies of all buffers by name."""
        return {name: value.clone() for name, value in self.model.named_buffers()}

    def __call__(
        self,
        batch: Any,
        buffers: dict[str, Tensor] | None = None,
        parameters: dict[str, Tensor] | None = None,
    ) -> Tensor:
        """Return the loss; `buffers` are changed as the step changes them.

        It may be anything with `parameters` of one's own, but else must be finite.
        """
        buffers = self.buffers() if buffers is None else buffers
        slots = fill(self.model, (parameters or {}) | buffers)
        given = {f"model.{slot}": value for slot, value in slots.items()}
        inner = _Inner(self.model, self.loss)
        value = functional_call(inner, given, (batch,), tie_weights=False)
        buffers.update({name: given[f"model.{name}"] for name in buffers})
        loss = _scalar(value)
        if parameters is None:
            _require_finite(loss, batch, inner.outputs)
        return loss


def _scalar(value: Any) -> Tensor:
    if not isinstance(value, torch.Tensor) or value.numel() != 1:
        what = (
            f"a tensor of shape {tuple(value.shape)}"
            if isinstance(value, torch.Tensor)
            else f"a {type(value).__name__}"
        )
        msg = (
            f"loss(model, batch) must return one number as a tensor, not {what}. Take "
            "the mean or the sum over the samples."
        )
        raise InputError(msg)
    if torch.is_grad_enabled() and not value.requires_grad:
        raise InputError(_OTHER_MODEL)
    return value.reshape(())


def _require_finite(loss: Tensor, batch: Any, outputs: Sequence[Tensor]) -> None:
    if bool(torch.isfinite(loss).all()):
        return
    sizes = [len(value) for value in leaves(batch) if value.ndim]
    of = f"{sizes[0] if sizes else 'some'} samples"
    msg = f"The loss of {of} is not finite ({loss.item()}): "
    if outputs and all(bool(torch.isfinite(value).all()) for value in outputs):
        msg += (
            "all that the model gives is, so it is the loss that has no value there. A "
            "mean over no target at all does that, where ignore_index or a mask leaves "
            "none in a micro-batch: use a sum (reduction='sum'), divided by a number "
            "that is the same for every micro-batch."
        )
    else:
        msg += "activations are not finite. Look for NaN in the data and the weights first."
    raise InputError(msg)


def require_any(
    gradients: Sequence[Tensor | None],
) -> Sequence[Tensor | None]:
    """Return gradients, of which there must be one.

    Raises
    ------
    InputError
        If there is none: the loss is that of another model.
    """
    if all(gradient is None for gradient in gradients):
        raise InputError(_OTHER_MODEL)
    return gradients


def rng_states(devices: Sequence[int]) -> list[Tensor]:
    """Return the state of the generators, of the CPU and of CUDA devices."""
    return [torch.get_rng_state(), *(torch.cuda.get_rng_state(d) for d in devices)]


def set_rng_states(devices: Sequence[int], states: list[Tensor]) -> None:
    """Set the states `rng_states` gave."""
    torch.set_rng_state(states[0])
    for device, state in zip(devices, states[1:], strict=True):
        torch.cuda.set_rng_state(state, device)


@contextmanager
def fixed_seed(devices: Sequence[int], seed: int) -> Iterator[None]:
    """Draw from a seed of one's own, and leave the generators as they were."""
    with torch.random.fork_rng(devices=list(devices)):
        torch.manual_seed(seed)
        yield


@contextmanager
def unchanged(step: Step) -> Iterator[None]:
    """Put tensors and generators back at the end, whatever happened."""
    with (
        held(step.model),
        torch.random.fork_rng(devices=step.devices),
        torch.enable_grad(),
    ):
        yield
