"""Steps that write to a tensor in place: when they are as good as steps that do not.

`y += x` is `y = y + x` if nobody else holds y, nor anything that y is a view of. Then
the graph can be read as it stands; else torch rewrites it first, which takes longer
than the export did.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchcorr.bridge._fold.steps import kind, users
from batchcorr.bridge._torch import torch

if TYPE_CHECKING:
    from torch.fx import Graph, Node

__all__ = ["writes_to_shared_tensors"]

NEW = {
    *(f"conv{k}d" for k in (1, 2, 3)),
    *(f"conv_transpose{k}d" for k in (1, 2, 3)),
    *(f"adaptive_avg_pool{k}d" for k in (1, 2, 3)),
    *(f"avg_pool{k}d" for k in (1, 2, 3)),
    *("add", "batch_norm", "cat", "linear", "mul", "relu", "sub"),
}
"""Steps whose result is always a new tensor."""


def writes_to_shared_tensors(graph: Graph) -> bool:
    """Whether somebody may see a tensor before and after it is written to."""
    return any(not _is_alone(node) for node in graph.nodes if _written(node))


def _written(node: Node) -> list[str]:
    """Return the names of the arguments that a step writes to."""
    if not isinstance(node.target, torch._ops.OpOverload):
        return []
    return [
        argument.name
        for argument in node.target._schema.arguments
        if argument.alias_info is not None and argument.alias_info.is_write
    ]


def _is_alone(step: Node) -> bool:
    """Whether what a step writes to is used by nothing else, through any view."""
    schema = step.target._schema  # type: ignore[union-attr]
    if _written(step) != [schema.arguments[0].name]:
        return False
    holder = step
    while _written(holder) or kind(holder) not in NEW:
        sources = holder.all_input_nodes[:1]
        if not sources or sources[0] is not holder.args[0]:
            return False
        if users(sources[0]) != [holder]:
            return False
        holder = sources[0]
    return True
