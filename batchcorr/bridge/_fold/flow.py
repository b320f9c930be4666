"""Which steps of the exported graph are calls of layers that can be changed.

A step counts as the call of a layer only if it happens inside that layer and uses its
own parameters as they are; and a layer can be changed only if nobody else uses them. So
a weight that is computed (weight norm, pruning), tied to another layer's, or used by a
function outside is left alone, and the reason is kept.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.parametrize import is_parametrized

from batchcorr.bridge._fold.steps import (
    SHAPE_ONLY,
    arguments,
    describe,
    enclosing,
    kind,
    path_of,
    users,
)

if TYPE_CHECKING:
    from torch import Tensor
    from torch.export import ExportedProgram
    from torch.fx import Node

__all__ = ["LAYERS", "NORMS", "Flow", "flow_of"]

LAYERS: dict[str, type[nn.Module]] = {
    "linear": nn.Linear,
    "conv1d": nn.Conv1d,
    "conv2d": nn.Conv2d,
    "conv3d": nn.Conv3d,
    "conv_transpose1d": nn.ConvTranspose1d,
    "conv_transpose2d": nn.ConvTranspose2d,
    "conv_transpose3d": nn.ConvTranspose3d,
}
NORMS = ("batch_norm", "_native_batch_norm_legit_no_training")
FORWARDS = {layer.forward for layer in LAYERS.values()}


@dataclass(frozen=True)
class Flow:
    """The steps of a model.

    Attributes
    ----------
    model
        The model that was exported, with a module of its own for every name.
    nodes
        Steps in order of execution.
    calls
        Path of the layer, for each step that is a call of one that can be changed.
    fixed
        Path of each layer that is called and cannot be changed: the reason.
    """

    model: nn.Module
    nodes: tuple[Node, ...]
    calls: dict[Node, str] = field(default_factory=dict)
    fixed: dict[str, str] = field(default_factory=dict)

    def calls_of(self, path: str) -> list[Node]:
        """Return the steps that are calls of a layer."""
        return [node for node, name in self.calls.items() if name == path]


def flow_of(program: ExportedProgram, model: nn.Module) -> Flow:
    """Return the steps of an exported model, with the calls of its layers found."""
    flow = Flow(model, tuple(program.graph.nodes))
    signature = program.graph_signature
    paths = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    held = {
        node: _tensor(model, paths[node.name])
        for node in flow.nodes
        if node.op == "placeholder" and node.name in paths
    }
    modules = dict(model.named_modules())
    for node in flow.nodes:
        module = modules.get(path_of(node))
        if kind(node) in NORMS and isinstance(module, _BatchNorm):
            reason = _why_no_norm_call(arguments(node), held, module)
        elif kind(node) in LAYERS and isinstance(module, LAYERS[kind(node)]):
            reason = _why_no_layer_call(arguments(node), held, module)
        else:
            continue
        flow.calls[node] = path_of(node)
        if reason:
            flow.fixed[path_of(node)] = reason
    memory = _names_by_memory(model)
    for path in dict.fromkeys(flow.calls.values()):
        reason = flow.fixed.get(path) or _why_not_alone(flow, path, memory)
        if reason:
            flow.fixed[path] = reason
    for node in [node for node, path in flow.calls.items() if path in flow.fixed]:
        del flow.calls[node]
    return flow


def _tensor(model: nn.Module, path: str) -> Tensor | None:
    """Return the parameter or buffer of a name."""
    above, _, name = path.rpartition(".")
    module = model.get_submodule(above)
    found = module._parameters.get(name)
    return found if found is not None else module._buffers.get(name)


def _uses(given: Any, held: dict[Node, Tensor | None], own: Tensor | None) -> bool:
    """Whether a step was given a layer's own tensor, or none where there is none."""
    return own is None if given is None else own is not None and held.get(given) is own


def _why_no_norm_call(
    given: dict[str, Any], held: dict[Node, Tensor | None], norm: _BatchNorm
) -> str:
    if given.get("training"):
        return "it normalizes each batch by itself"
    names = ("weight", "bias", "running_mean", "running_var")
    own = all(_uses(given[name], held, getattr(norm, name)) for name in names)
    if not own or given["eps"] != norm.eps:
        return "its parameters are computed from others each time it is called"
    return ""


def _why_no_layer_call(
    given: dict[str, Any], held: dict[Node, Tensor | None], layer: nn.Module
) -> str:
    own = layer._parameters
    tensors = (own.get("weight"), own.get("bias"))
    if (
        is_parametrized(layer)
        or tensors[0] is None
        or not _uses(given["weight"], held, tensors[0])
        or not _uses(given["bias"], held, tensors[1])
    ):
        return (
            "its weight is computed each time it is called (weight norm, spectral "
            "norm, pruning …): make it a plain parameter to have it folded"
        )
    if not tensors[0].is_floating_point():
        return f"its weight is {tensors[0].dtype}, not real numbers"
    if tensors[1] is None and type(layer).forward not in FORWARDS:
        return (
            f"{type(layer).__name__} has a forward of its own that may not add a bias"
        )
    return ""


def _why_not_alone(flow: Flow, path: str, memory: dict[int, list[str]]) -> str:
    """Return why a layer's parameters are not only its own, or "" if they are."""
    calls = flow.calls_of(path)
    module = flow.model.get_submodule(path)
    names = [name for name, value in module._parameters.items() if value is not None]
    for node in calls:
        given = arguments(node)
        for name in [*names, *(["running_mean"] if kind(node) in NORMS else [])]:
            others = [user for user in users(given[name]) if user not in calls]
            if others:
                return f"its {name} is also used by {describe(others[0])}"
    for name in names:
        own = f"{path}.{name}" if path else name
        held = memory.get(module.get_parameter(name).data_ptr(), [])
        ties = [tie for tie in held if tie != own]
        if ties:
            return f"its {name} is tied to {ties[0]!r}"
    if isinstance(module, _BatchNorm):
        return _why_not_only_norm(flow, path)
    return ""


def _names_by_memory(model: nn.Module) -> dict[int, list[str]]:
    """Return all names of parameters and buffers, by where their values lie."""
    found: dict[int, list[str]] = {}
    for name, value in [
        *model.named_parameters(remove_duplicate=False),
        *model.named_buffers(remove_duplicate=False),
    ]:
        if value.numel():
            found.setdefault(value.data_ptr(), []).append(name)
    return found


def _why_not_only_norm(flow: Flow, path: str) -> str:
    """Return what else happens in the call of a BatchNorm: it would be lost."""
    calls = flow.calls_of(path)
    for node in flow.nodes:
        its_own = node in calls or (kind(node) == "getitem" and node.args[0] in calls)
        if path in enclosing(node) and not its_own and kind(node) not in SHAPE_ONLY:
            return f"more happens in its call than normalization: {kind(node)}"
    return ""
