"""Run a model, or a copy, and leave no trace: modes, hooks and random numbers are put back.

Random numbers are seeded and restored on the CPU and on the devices that are named, and
nowhere else: `torch.manual_seed` would seed every accelerator of the process.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from batchcorr.bridge._batches import leaves
from batchcorr.bridge._torch import torch
from batchcorr.errors import BatchCorrError, InputError, some

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from torch import Tensor, nn

__all__ = [
    "RandomStates",
    "accelerators",
    "copy_of",
    "evaluating",
    "has_hooks",
    "hooked",
    "input_of",
    "random_states",
    "require_evaluation",
    "run",
    "seeded",
    "set_random_states",
    "wide",
]

RandomStates: TypeAlias = "dict[torch.device, Tensor]"


def run(model: nn.Module, inputs: Any) -> Any:
    """What a model gives for a tensor, or for a mapping of named tensors."""
    try:
        return model(**inputs) if isinstance(inputs, Mapping) else model(inputs)
    except BatchCorrError:
        raise
    except Exception as error:
        shapes = ", ".join(str(tuple(value.shape)) for value in leaves(inputs))
        named = f" and names {some(inputs)}" if isinstance(inputs, Mapping) else ""
        msg = (
            f"The model cannot take a batch of shape {shapes}{named}: "
            f"{type(error).__name__}: {error}\nOf a tuple of the loader the first item is "
            "taken; a mapping goes to the model by name, so that it must hold what the "
            "model is given, and no more."
        )
        raise InputError(msg) from error


def require_evaluation(modules: Mapping[str, nn.Module], why: str) -> None:
    """Refuse modules, by name, that are in training mode."""
    if training := [name or "the model" for name, m in modules.items() if m.training]:
        msg = (
            f"The model is in training mode ({some(training)}), {why}: call model.eval() "
            "first."
        )
        raise InputError(msg)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """A model in evaluation mode without gradients, and put back after."""
    flags = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in flags:
            module.training = training


def copy_of(model: nn.Module, copies: dict[int, Any] | None = None) -> nn.Module:
    """A copy, also of weights that are computed (weight norm, pruning), as they are.

    `copies` are those of parts that there are already, by the id of the part.
    """
    memo: dict[int, Any] = {} if copies is None else copies
    for module in model.modules():
        for value in vars(module).values():
            if isinstance(value, torch.Tensor) and not value.is_leaf:
                memo.setdefault(id(value), value.detach().clone())
    try:
        return deepcopy(model, memo)
    except (RuntimeError, TypeError) as error:
        msg = (
            "The model cannot be copied, which is needed because the model itself is not "
            f"changed: {error}. Remove attributes that cannot be copied, such as open "
            "files or generators."
        )
        raise InputError(msg) from error


# -- hooks -----------------------------------------------------------------------------


@contextmanager
def hooked(
    modules: Iterable[nn.Module],
    *,
    before: Callable[..., Any] | None = None,
    after: Callable[..., Any] | None = None,
) -> Iterator[None]:
    """Call functions before and after each of some modules, as torch's hooks with kwargs.

    What `after` returns, if anything, replaces the output.
    """
    with ExitStack() as stack:
        for module in modules:
            if before is not None:
                handle = module.register_forward_pre_hook(before, with_kwargs=True)
                stack.callback(handle.remove)
            if after is not None:
                handle = module.register_forward_hook(after, with_kwargs=True)
                stack.callback(handle.remove)
        yield


def has_hooks(model: nn.Module) -> bool:
    """Whether anybody watches a forward pass of the model."""
    return any(
        module._forward_hooks or module._forward_pre_hooks for module in model.modules()
    )


def input_of(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
    """The activations that a layer is called with, by position or by name."""
    given: Tensor = args[0] if args else kwargs["input"]
    return given


# -- devices and random numbers ----------------------------------------------------------


def accelerators(*trees: Any) -> list[torch.device]:
    """The devices, other than the CPU, of modules and of nestings of tensors."""
    devices: set[torch.device] = set()
    for tree in trees:
        module = isinstance(tree, torch.nn.Module)
        tensors = [*tree.parameters(), *tree.buffers()] if module else leaves(tree)
        devices |= {value.device for value in tensors}
    known = [device for device in devices if device.type not in {"cpu", "meta"}]
    return sorted(known, key=str)


def wide(values: Tensor) -> Tensor:
    """Values in float64; on the CPU where the device has no float64 (Apple's MPS)."""
    return (values.cpu() if values.device.type == "mps" else values).double()


def _generator(device: torch.device) -> torch.Generator:
    """The random numbers of one device."""
    if device.type == "cpu":
        return torch.default_generator
    module: Any = torch.get_device_module(device)
    if device.type == "mps":
        return cast("torch.Generator", module._get_default_mps_generator())
    return cast("torch.Generator", module.default_generators[device.index or 0])


def random_states(devices: Iterable[torch.device] = ()) -> RandomStates:
    """The state of the random numbers on the CPU and on the devices named."""
    places = [torch.device("cpu"), *devices]
    return {place: _generator(place).get_state() for place in places}


def set_random_states(states: RandomStates) -> None:
    """Put random numbers where `random_states` found them."""
    for device, state in states.items():
        _generator(device).set_state(state)


@contextmanager
def seeded(
    devices: Iterable[torch.device] = (), seed: int | None = 0
) -> Iterator[None]:
    """Draw from a seed (None: go on as before) and leave the random numbers as they were."""
    states = random_states(devices)
    try:
        for device in states if seed is not None else ():
            _generator(device).manual_seed(seed or 0)
        yield
    finally:
        set_random_states(states)
