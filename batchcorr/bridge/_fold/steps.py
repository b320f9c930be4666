"""One step of an exported graph: its name, arguments, shape, and the layer it is in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from batchcorr.bridge._torch import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch.fx import Node

__all__ = [
    "SHAPE_ONLY",
    "arguments",
    "describe",
    "enclosing",
    "kind",
    "path_of",
    "shape_of",
    "tensors_in",
    "users",
    "value_of",
]

SHAPE_ONLY = frozenset(
    {"sym_size", "sym_stride", "sym_numel", "_assert_tensor_metadata"}
)
"""Steps that look at the shape of a tensor and not at its values."""


def kind(node: Node) -> str:
    """Return what a step does: the operator's name, or placeholder, output, ….

    Only torch's own operators have their names; others are told apart by a dot, so that
    no rule for an operator of torch is used on one of somebody else. One that works in
    place has the name of the one that does not.
    """
    if isinstance(node.target, torch._ops.OpOverload):
        space, _, name = node.target._schema.name.partition("::")
        return name.removesuffix("_") if space == "aten" else f"{space}.{name}"
    if node.op == "call_function":
        name = getattr(node.target, "__name__", str(node.target))
        return name if name == "getitem" else f"python.{name}"
    return node.op


def arguments(node: Node) -> dict[str, Any]:
    """Return a step's arguments by the names of the operator's signature."""
    target: Any = node.target
    found: dict[str, Any] = {}
    for place, argument in enumerate(target._schema.arguments):
        if place < len(node.args):
            found[argument.name] = node.args[place]
        else:
            found[argument.name] = node.kwargs.get(
                argument.name, argument.default_value
            )
    return found


def value_of(node: Node) -> Any:
    """Return what stands for a step's value: a tensor, the first one of several."""
    value = node.meta.get("val")
    return value[0] if isinstance(value, tuple | list) and value else value


def shape_of(node: Node) -> Sequence[int | torch.SymInt]:
    """Return the shape of a step's (first) tensor; sizes of the batch are symbols."""
    value = value_of(node)
    return tuple(value.shape) if isinstance(value, torch.Tensor) else ()


def tensors_in(node: Node) -> list[Node]:
    """Return the steps whose tensors a step is computed from."""
    return [
        source
        for source in node.all_input_nodes
        if isinstance(value_of(source), torch.Tensor)
    ]


def enclosing(node: Node) -> list[str]:
    """Return the paths of the modules in whose calls a step happens, outermost first."""
    stack = node.meta.get("nn_module_stack") or {}
    return [path for path, _ in stack.values()]


def path_of(node: Node) -> str:
    """Return the path of the innermost module in whose call a step happens."""
    return (enclosing(node) or [""])[-1]


def users(node: Node) -> list[Node]:
    """Return the steps that use the values of another, not only its shape."""
    return [user for user in node.users if kind(user) not in SHAPE_ONLY]


def describe(node: Node) -> str:
    """Name a step to somebody who knows the model and not its graph."""
    if node.op == "output":
        return "the model's output"
    if node.op == "placeholder":
        return f"{node.name}, an input or parameter"
    name = kind(node).removeprefix("python.")
    path = path_of(node)
    return f"{name} in {path!r}" if path else name
