"""What a model computes from what: one call of it, recorded function by function.

While the model runs, every function of torch that it calls is recorded with the tensors
that went in and came out. A tensor that is written to in place has a new value from then
on. A function is the call of a layer if the layer's own forward gives it the layer's
weight and bias. A BatchNorm is recorded as a whole, with whatever else its module does
(dropout and activation in timm's), and is tried on the spot: is it what it should be?
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from torch import nn
from torch.overrides import TorchFunctionMode

from batchcorr.bridge._batches import leaves, map_tensors
from batchcorr.bridge._fold.compare import TOLERANCES
from batchcorr.bridge._norms import correction_of, is_batch_norm, is_frozen
from batchcorr.bridge._running import hooked, input_of, wide
from batchcorr.bridge._torch import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor
    from torch.nn.modules.batchnorm import _BatchNorm

__all__ = ["LAYERS", "Step", "Trace", "Value", "rest_of"]

LAYERS: dict[str, type[nn.Module]] = {
    "linear": nn.Linear,
    "conv1d": nn.Conv1d,
    "conv2d": nn.Conv2d,
    "conv3d": nn.Conv3d,
    "conv_transpose1d": nn.ConvTranspose1d,
    "conv_transpose2d": nn.ConvTranspose2d,
    "conv_transpose3d": nn.ConvTranspose3d,
}
"""The function that each kind of layer calls."""

SHAPE_ONLY = frozenset(
    {"__len__", "dim", "element_size", "get_device", "is_complex", "is_contiguous"}
    | {"is_floating_point", "ndimension", "nelement", "numel", "size", "stride"}
    | {"new_empty", "new_full", "new_ones", "new_zeros"}
    | {"empty_like", "full_like", "ones_like", "rand_like", "randn_like", "zeros_like"}
)
"""Functions that look at the shape of a tensor and not at its values."""

LIKE = frozenset({"expand_as", "reshape_as", "type_as", "view_as"})
"""Functions that look at the shape or type of their second tensor only."""


UNTRACKED = (
    "it keeps no running statistics (track_running_stats=False): it normalizes each "
    "batch by itself, in evaluation too"
)


@dataclass(eq=False)
class Value:
    """A tensor at one time: the step that computed it, and those that used it."""

    shape: tuple[int, ...]
    source: Step | None = None
    users: list[Step] = field(default_factory=list)
    is_output: bool = False


@dataclass(eq=False)
class Step:
    """A call of a function of torch, with `Value` for tensors; or of a BatchNorm.

    `module` is the innermost module in whose call it happened, `layer` the one that it is
    the call of, and `problem` why that layer cannot be changed.
    """

    name: str
    function: Callable[..., Any] | None
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    inputs: list[Value]
    outputs: list[Value] = field(default_factory=list)
    module: str = ""
    layer: str | None = None
    problem: str = ""

    def __str__(self) -> str:
        return f"{self.name} in {self.module!r}" if self.module else self.name


class Trace(TorchFunctionMode):
    """The steps of one call of a model.

    `calls` has those of each layer, `parameters` the values of parameters and buffers by
    id (their own layers are no users), and `reads` the steps that gave numbers of a tensor
    to Python, which may branch on them.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.calls: dict[str, list[Step]] = {}
        self.reads: list[Step] = []
        self._model = model
        self._names = {
            module: name
            for name, module in model.named_modules()
            if not isinstance(module, torch.jit.ScriptModule)
        }
        self._modules: list[nn.Module] = []  # those being called
        self._norm: nn.Module | None = None  # the BatchNorm being called
        self._seen: dict[int, tuple[Tensor, Value]] = {}
        tensors = [*model.parameters(), *model.buffers()]
        self.parameters = {id(tensor): self._value(tensor) for tensor in tensors}

    def run(self, *args: Any, **kwargs: Any) -> None:
        """Call the model and record it."""
        with hooked(self._names, before=self._enter, after=self._leave), self:
            given = self._model(*args, **kwargs)
        for tensor in leaves(given):
            self._value(tensor).is_output = True
        self._seen.clear()

    def _value(self, tensor: Tensor) -> Value:
        if id(tensor) not in self._seen:
            # The tensor is kept, too: the id of a dead one would be given again.
            self._seen[id(tensor)] = tensor, Value(tuple(tensor.shape))
        return self._seen[id(tensor)][1]

    def _add(self, step: Step, outputs: list[Tensor]) -> None:
        for value in step.inputs:
            value.users.append(step)
        if step.layer is not None:
            self.calls.setdefault(step.layer, []).append(step)
        for tensor in outputs:
            value = Value(tuple(tensor.shape), step)
            self._seen[id(tensor)] = tensor, value
            step.outputs.append(value)

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        given = list(leaves((args, kwargs)))
        name = getattr(func, "__name__", str(func))
        if self._norm is not None or not given or name in SHAPE_ONLY:
            return func(*args, **kwargs)
        values = {id(tensor): self._value(tensor) for tensor in given}
        result = func(*args, **kwargs)
        new = list(leaves(result)) if name != "__setitem__" else given[:1]
        if name in {"__get__", "__set__"} and not new:
            return result
        used = given[:1] if name in LIKE else given
        step = Step(
            name=name,
            function=func,
            args=map_tensors(args, lambda tensor: values[id(tensor)]),
            kwargs=map_tensors(kwargs, lambda tensor: values[id(tensor)]),
            inputs=list({id(tensor): values[id(tensor)] for tensor in used}.values()),
            module=self._names[self._modules[-1]] if self._modules else "",
        )
        if name in LAYERS and self._modules:
            self._name_layer(step, self._modules[-1], args, kwargs)
        self._add(step, new)
        if not new:
            self.reads.append(step)
        return result

    def _name_layer(
        self, step: Step, layer: nn.Module, args: tuple[Any, ...], kwargs: Any
    ) -> None:
        """See whether a function was given the weight and bias of a layer."""
        weight, bias = (layer._parameters.get(key) for key in ("weight", "bias"))
        given = (args[1] if len(args) > 1 else kwargs.get("weight")) is weight
        if weight is None or not given or not isinstance(layer, LAYERS[step.name]):
            return
        step.layer = step.module
        step.inputs = step.inputs[:1]  # weight and bias are the layer's own
        if bias is not (args[2] if len(args) > 2 else kwargs.get("bias")):
            step.problem = "its forward adds no bias, or another one than its own"

    def _enter(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        del args, kwargs
        self._modules.append(module)
        if self._norm is None and (is_batch_norm(module) or is_frozen(module)):
            self._norm = module

    def _leave(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        self._modules.pop()
        if self._norm is not module:
            return
        name, given = self._names[module], [self._value(input_of(args, kwargs))]
        step = Step("batch_norm", None, (), {}, given, module=name, layer=name)
        step.problem = _problem_of(cast("_BatchNorm", module), args, kwargs, output)
        self._norm = None
        self._add(step, list(leaves(output)))


def _problem_of(norm: _BatchNorm, args: Any, kwargs: Any, output: Any) -> str:
    """Why a BatchNorm is not the correction it should be, by trying it; or ""."""
    if norm.running_mean is None:
        return UNTRACKED
    x = input_of(args, kwargs)
    if len(args) + len(kwargs) > 1 or not isinstance(output, torch.Tensor):
        return "it is called with more than activations"
    correction, shape = correction_of(norm), (1, -1, *[1] * (x.ndim - 2))
    scale, shift = correction.scale.reshape(shape), correction.shift.reshape(shape)
    exact = wide(x) * scale + shift
    expected = wide(rest_of(norm)(exact.to(output)))
    size = (wide(x) * scale).abs() + shift.abs()  # what rounding is relative to
    kinds = (x.dtype, output.dtype, norm.running_mean.dtype)
    allowed = max(TOLERANCES.get(kind, 0.1) for kind in kinds) * float(size.max())
    same = expected.shape == output.shape
    if same and bool(((wide(output) - expected).abs() <= allowed).all()):
        return ""
    return f"{type(norm).__name__} does more in its call than normalize"


def rest_of(norm: nn.Module) -> nn.Module:
    """What a BatchNorm module does after it has normalized: its parts, in order."""
    parts = OrderedDict((k, v) for k, v in norm._modules.items() if v is not None)
    if all(type(part) is nn.Identity for part in parts.values()):
        return nn.Identity()
    return nn.Sequential(parts)
