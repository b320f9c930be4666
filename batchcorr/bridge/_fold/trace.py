r"""What a model does with the results of its layers: one call of it, followed.

While the model runs, every function of torch that it calls is seen, and each tensor has
a mark: it is the result of a layer's call, moved about (`moves`), or it is not, and why.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from torch import nn
from torch.overrides import TorchFunctionMode

from batchcorr.bridge._batches import leaves
from batchcorr.bridge._fold.moves import (
    LIKE,
    MAXIMA,
    MOVES,
    SHAPE_ONLY,
    channels_after,
    sees_border,
)
from batchcorr.bridge._norms import correction_of, is_batch_norm, is_frozen, rest_of
from batchcorr.bridge._running import hooked, input_of, wide
from batchcorr.bridge._torch import torch

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn.modules.batchnorm import _BatchNorm

__all__ = ["LAYERS", "TOLERANCES", "Call", "Mark", "Trace"]

TOLERANCES = {
    torch.float64: 1e-10,
    torch.float32: 1e-5,
    torch.float16: 2e-2,
    torch.bfloat16: 1e-1,
}
"""Relative differences that rounding explains."""

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

NO_RESULT = "it corrects an input of the model, or a constant"
COMPUTED = (
    "the weight of {} is computed each time it is called (weight norm, pruning …), or "
    "is not that of the layer in whose call it is used"
)
UNTRACKED = (
    "it keeps no running statistics (track_running_stats=False): it normalizes each "
    "batch by itself, in evaluation too"
)


@dataclass(eq=False)
class Call:
    """A call of a layer or a BatchNorm.

    `given` is the mark of its input, `axis` that of the channels, `users` are the calls
    that are given its result and the names of other steps that use it, `problem` says why
    the layer cannot be changed, and `border` why not by what is before it.
    """

    step: str
    layer: str
    given: Mark | str
    axis: int
    is_norm: bool = False
    users: list[Call | str] = field(default_factory=list)
    problem: str = ""
    border: str = ""

    def __str__(self) -> str:
        return self.step


class Mark(NamedTuple):
    """A result of a call, of which place k along `axis` is channel `channels[k]`.

    `maxima` is the step on its way that takes maxima, or "".
    """

    call: Call
    axis: int
    channels: Tensor
    maxima: str = ""

    def moved(
        self, places: tuple[int, Tensor] | None, step: str, *, maxima: bool
    ) -> Mark | str:
        """The mark of what a step makes of it, which has the channels at other places."""
        if places is None:
            return f"{step} leaves no axis of its own to the channels"
        axis, channels = places
        taken = step if maxima else self.maxima
        return Mark(self.call, axis, self.channels[channels], taken)


class Trace(TorchFunctionMode):
    """The calls of each layer in one run of a model.

    `used` has the parameters and buffers, by id, that others than their layers use, and
    `reads` the steps that gave numbers of a tensor to Python, which may branch on them.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.calls: dict[str, list[Call]] = {}
        self.used: dict[int, str] = {}
        self.reads: list[str] = []
        self._model = model
        self._names = {
            module: name
            for name, module in model.named_modules()
            if not isinstance(module, torch.jit.ScriptModule)
        }
        self._modules = [model]  # those being called
        self._norm: nn.Module | None = None  # the BatchNorm being called
        self._marks: dict[int, tuple[Tensor, Mark | str]] = {}
        for tensor in [*model.parameters(), *model.buffers()]:
            self._set_mark(tensor, NO_RESULT)

    def run(self, *args: Any, **kwargs: Any) -> None:
        """Call the model and follow it."""
        with hooked(self._names, before=self._enter, after=self._leave), self:
            given = self._model(*args, **kwargs)
        for tensor in leaves(given):
            self._use(tensor, "the model's output")
        self._marks.clear()

    def _mark_of(self, tensor: Tensor) -> Mark | str:
        return self._marks.get(id(tensor), (tensor, NO_RESULT))[1]

    def _set_mark(self, tensor: Tensor, mark: Mark | str) -> None:
        # The tensor is kept, too: the id of a dead one would be given again.
        self._marks[id(tensor)] = tensor, mark

    def _use(self, tensor: Tensor, user: Call | str) -> None:
        """Note who uses a tensor."""
        mark = self._mark_of(tensor)
        if not isinstance(mark, str):
            mark.call.users.append(user)
        elif id(tensor) in self._marks:
            self.used.setdefault(id(tensor), str(user))

    def _add(self, call: Call, x: Tensor, results: list[Tensor]) -> None:
        """Note the call of a layer."""
        self._use(x, call)
        self.calls.setdefault(call.layer, []).append(call)
        for tensor in results:
            channels = torch.arange(tensor.shape[call.axis], device="cpu")
            self._set_mark(tensor, Mark(call, call.axis, channels))

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        given = list({id(x): x for x in leaves((args, kwargs))}.values())
        name = getattr(func, "__name__", str(func))
        if self._norm is not None or not given or name in SHAPE_ONLY:
            return func(*args, **kwargs)
        result = func(*args, **kwargs)
        new = list(leaves(result)) if name != "__setitem__" else given[:1]
        if name in {"__get__", "__set__"} and not new:
            return result
        inside = self._names[self._modules[-1]]
        step = f"{name} in {inside!r}" if inside else name
        if name in LAYERS and self._layer_called(step, func, args, kwargs, new):
            return result
        if not new:
            self.reads.append(step)
        used = given[:1] if name in LIKE else given
        mark: Mark | str = self._mark_of(used[0])
        if name in MOVES and len(used) == len(new) == 1:
            if not isinstance(mark, str):
                places = channels_after(func, (args, kwargs), used[0], mark.axis)
                mark = mark.moved(places, step, maxima=name in MAXIMA)
        else:
            mark = f"{step} is no step that a correction of channels could pass"
            if name in LAYERS:
                mark = COMPUTED.format(step)
        if isinstance(mark, str):
            for tensor in used:
                self._use(tensor, step)
        for tensor in new:
            self._set_mark(tensor, mark)
        return result

    def _layer_called(
        self, step: str, func: Any, args: Any, kwargs: Any, new: list[Tensor]
    ) -> bool:
        """Note the call of a layer, if a function was given the layer's own weight."""
        layer = self._modules[-1]
        given = dict(zip(("input", "weight", "bias"), args, strict=False)) | kwargs
        x, weight = given["input"], given["weight"]
        own = weight is layer._parameters.get("weight")
        if not own or not isinstance(layer, LAYERS[func.__name__]):
            return False
        kernel = weight.ndim - 2  # its dimensions
        axis = x.ndim - 1 - kernel
        call = Call(step, self._names[layer], self._mark_of(x), axis)
        if given.get("bias", x) is not layer._parameters.get("bias"):
            call.problem = "its forward adds no bias, or another one than its own"
        if not isinstance(call.given, str) and call.given.call.is_norm:
            call.border = _border(step, func, args, kwargs)
        self._add(call, x, new)
        return True

    def _enter(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        del args, kwargs
        self._modules.append(module)
        if self._norm is None and (is_batch_norm(module) or is_frozen(module)):
            self._norm = module

    def _leave(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        self._modules.pop()
        if self._norm is module:
            x, name = input_of(args, kwargs), self._names[module]
            step = f"batch_norm in {name!r}"
            call = Call(step, name, self._mark_of(x), axis=1, is_norm=True)
            call.problem = _problem_of(cast("_BatchNorm", module), args, kwargs, output)
            self._norm = None
            self._add(call, x, list(leaves(output)))


def _border(step: str, func: Any, args: Any, kwargs: Any) -> str:
    """Why a layer cannot take up a correction before it; or ""."""
    if func.__name__ == "linear" or not sees_border(func, args, kwargs):
        return ""
    if func.__name__.startswith("conv_transpose"):
        return f"{step} would need a bias for each position"
    return f"{step} pads with zeros, which are not corrected"


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
