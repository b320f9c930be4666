"""What a model computes from what: one call of it, recorded function by function.

While the model runs, every function of torch that it calls is recorded with the tensors
that went in and came out. A tensor that is written to in place has a new value from then
on. A function is the call of a layer if it is given that layer's own weight and bias; a
BatchNorm layer is recorded as a whole, with whatever else its module does (dropout and
activation in timm's), and is tried on the spot: is it the correction that it should be?
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from torch import nn
from torch.overrides import TorchFunctionMode

from batchcorr.bridge._batches import leaves, map_tensors
from batchcorr.bridge._fold.verify import TOLERANCES
from batchcorr.bridge._norms import correction_of, is_batch_norm, is_frozen
from batchcorr.bridge._running import hooked, input_of, wide
from batchcorr.bridge._torch import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor
    from torch.nn.modules.batchnorm import _BatchNorm

__all__ = [
    "LAYERS",
    "TOLERANCES",
    "Step",
    "Trace",
    "Value",
    "rest_of",
]

LAYERS: dict[str, type[nn.Module]] = {
    "linear": nn.Linear,
    "conv1d": nn.Conv1d,
    "conv2d": nn.Conv2d,
    "conv3d": nn.Conv3d,
    "conv_transpose1d": nn.ConvTranspose1d,
    "conv_transpose2d": nn.ConvTranspose2d,
    "conv_transpose3d": nn.ConvTranspose3d,
}
SHAPE_ONLY = frozenset(
    {"__len__", "dim", "element_size", "get_device", "is_complex", "is_contiguous"}
    | {"is_floating_point", "ndimension", "nelement", "numel", "size", "stride"}
    | {"new_empty", "new_full", "new_ones", "new_zeros"}
    | {"empty_like", "full_like", "ones_like", "rand_like", "randn_like", "zeros_like"}
)
"""Functions that look at the shape of a tensor and not at its values."""

LIKE = frozenset({"expand_as", "reshape_as", "type_as", "view_as"})
"""Functions that look at the shape or type of their second tensor only."""


@dataclass(eq=False)
class Value:
    """A tensor at one time: where it came from and who used it.

    Attributes
    ----------
    shape, dtype, device
        Of the tensor.
    source
        The step that computed it; None for inputs, parameters and buffers.
    users
        The steps that used its values.
    is_output
        Whether the model returned it.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device
    source: Step | None = None
    users: list[Step] = field(default_factory=list)
    is_output: bool = False


@dataclass(eq=False)
class Step:
    """A call of a function of torch, or of a BatchNorm layer.

    Attributes
    ----------
    name
        Of the function; "batch_norm" for a layer.
    function, args, kwargs
        What was called, with `Value` in place of tensors.
    inputs, outputs
        The values that were used and computed.
    module
        Name of the innermost module in whose call it happened.
    layer
        Name of the layer that it is the call of, or None.
    problem
        Why that layer cannot be changed, or "".
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
        """Name the step to somebody who knows the model and not its trace."""
        return f"{self.name} in {self.module!r}" if self.module else self.name


class Trace(TorchFunctionMode):
    """The steps of one call of a model.

    Attributes
    ----------
    steps
        In the order of execution.
    by_layer
        The calls of each layer.
    parameters
        The values of parameters and buffers; calls of their own layers are no users.
    reads
        Steps that gave numbers of a tensor to Python, which may branch on them.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.steps: list[Step] = []
        self.by_layer: dict[str, list[Step]] = {}
        self.reads: list[Step] = []
        self._model = model
        self._modules = {
            module: name
            for name, module in model.named_modules()
            if not isinstance(module, torch.jit.ScriptModule)
        }
        self._owners = _owners_of_weights(self._modules)
        self._seen: dict[int, tuple[Tensor, Value]] = {}
        self._inside: list[str] = []  # names of the modules being called
        self._norm: tuple[nn.Module, Step] | None = None  # the BatchNorm being called
        self.parameters: dict[str, Value] = {}
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            self.parameters[name] = self._bind(tensor)

    def run(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """What the model gives, while it is recorded."""
        with hooked(self._modules, before=self._enter, after=self._leave), self:
            given = self._model(*args, **kwargs)
        for tensor in leaves(given):
            self._value(tensor).is_output = True
        self._seen.clear()
        return given

    # -- values ----------------------------------------------------------------------

    def _bind(self, tensor: Tensor, source: Step | None = None) -> Value:
        """Give a tensor a new value."""
        value = Value(tuple(tensor.shape), tensor.dtype, tensor.device, source)
        self._seen[id(tensor)] = (tensor, value)  # kept: an id is reused after death
        return value

    def _value(self, tensor: Tensor) -> Value:
        if id(tensor) not in self._seen:
            return self._bind(tensor)
        return self._seen[id(tensor)][1]

    # -- functions ---------------------------------------------------------------------

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        given = list(leaves((args, kwargs)))
        if self._norm is not None or not given:
            return func(*args, **kwargs)
        values = {id(tensor): self._value(tensor) for tensor in given}
        name = getattr(func, "__name__", str(func))
        result = func(*args, **kwargs)
        new = list(leaves(result)) if name != "__setitem__" else given[:1]
        if name in SHAPE_ONLY or (name in {"__get__", "__set__"} and not new):
            return result
        used = given[:1] if name in LIKE else given
        step = Step(
            name=name,
            function=func,
            args=map_tensors(args, lambda tensor: values[id(tensor)]),
            kwargs=map_tensors(kwargs, lambda tensor: values[id(tensor)]),
            inputs=list({id(x): values[id(x)] for x in used}.values()),
            module=self._inside[-1] if self._inside else "",
        )
        if name in LAYERS:
            self._name_layer(step, args, kwargs)
        step.outputs = [self._bind(tensor, step) for tensor in new]
        self._add(step)
        if not new:
            self.reads.append(step)
        return result

    def _add(self, step: Step) -> None:
        self.steps.append(step)
        for value in step.inputs:
            value.users.append(step)
        if step.layer is not None:
            self.by_layer.setdefault(step.layer, []).append(step)

    def _name_layer(self, step: Step, args: tuple[Any, ...], kwargs: Any) -> None:
        """Find the layer whose weight a function was given."""
        weight = args[1] if len(args) > 1 else kwargs.get("weight")
        bias = args[2] if len(args) > 2 else kwargs.get("bias")
        owners = self._owners.get(id(weight), {})
        name = step.module if step.module in owners else next(iter(owners), None)
        if name is None or not isinstance(owners[name], LAYERS[step.name]):
            return
        step.layer, layer = name, owners[name]
        step.inputs = step.inputs[:1]  # weight and bias are the layer's own
        if bias is not layer._parameters.get("bias"):
            step.problem = "its forward adds no bias, or another one than its own"
        elif not weight.is_floating_point():
            step.problem = f"its weight is {weight.dtype}, not real numbers"

    # -- modules -----------------------------------------------------------------------

    def _enter(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        name = self._modules[module]
        self._inside.append(name)
        if self._norm is not None or not (is_batch_norm(module) or is_frozen(module)):
            return
        given = [self._value(input_of(args, kwargs))]
        step = Step("batch_norm", None, (), {}, given, module=name, layer=name)
        self._norm = (module, step)

    def _leave(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        self._inside.pop()
        if self._norm is None or self._norm[0] is not module:
            return
        step = self._norm[1]
        step.problem = _problem_of(cast("_BatchNorm", module), args, kwargs, output)
        step.outputs = [self._bind(tensor, step) for tensor in leaves(output)]
        self._norm = None
        self._add(step)


def _owners_of_weights(
    modules: Mapping[nn.Module, str],
) -> dict[int, dict[str, nn.Module]]:
    """The layers of each weight by name, by the weight's identity."""
    owners: dict[int, dict[str, nn.Module]] = {}
    for module, name in modules.items():
        if not isinstance(module, tuple(LAYERS.values())):
            continue
        weight = module._parameters.get("weight")
        if weight is not None:
            owners.setdefault(id(weight), {})[name] = module
    return owners


def _problem_of(norm: _BatchNorm, args: Any, kwargs: Any, output: Any) -> str:
    """Why a BatchNorm is not the correction it should be, by trying it; or ""."""
    if norm.running_mean is None:
        return "it keeps no running statistics"
    x = input_of(args, kwargs)
    if len(args) + len(kwargs) > 1 or not isinstance(output, torch.Tensor):
        return "it is called with more than activations"
    correction, shape = correction_of(norm), (1, -1, *[1] * (x.ndim - 2))
    scale, shift = (
        part.reshape(shape) for part in (correction.scale, correction.shift)
    )
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
