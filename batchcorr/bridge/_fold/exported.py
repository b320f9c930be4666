"""The data flow of a model, as torch.export finds it: one graph without side effects.

The graph is only read. What runs in the end is the model's own code, so the graph must
hold for every batch size; a model whose code asks how many samples there are is
followed for the given number only.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from batchcorr.bridge._fold.writes import writes_to_shared_tensors
from batchcorr.bridge._torch import torch
from batchcorr.errors import InputError

if TYPE_CHECKING:
    from torch import nn
    from torch.export import ExportedProgram

    from batchcorr.bridge._fold.example import Example

__all__ = ["export"]


def export(
    model: nn.Module, example: Example, longer: Example | None
) -> tuple[ExportedProgram, bool]:
    """Return the exported model, and whether it holds for any batch size.

    Parameters
    ----------
    model
        In evaluation mode.
    example
        Inputs as given.
    longer
        Inputs with one sample more; None if the model takes no other batch size.

    Raises
    ------
    InputError
        If torch.export cannot follow the model.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, about its inner workings
        if longer is not None:
            program = _export(model, longer, any_batch=True)
            if _holds_for_any_batch(program):
                return _functional(program), True
        return _functional(_export(model, example, any_batch=False)), False


def _export(model: nn.Module, example: Example, *, any_batch: bool) -> ExportedProgram:
    shapes: Any = torch.export.ShapesCollection()  # type: ignore[no-untyped-call]
    if any_batch:
        for tensor in example.batched:
            shapes[tensor] = {0: torch.export.Dim.AUTO}
    try:
        return torch.export.export(
            model,
            example.args,
            example.kwargs,
            dynamic_shapes=shapes if any_batch else None,
            strict=False,
        )
    except Exception as error:
        said = str(error).strip().split("\n\n")[0]
        msg = (
            "torch.export cannot follow this model, so no BatchNorm can be proved to "
            f"stand where it could be folded. It says: {type(error).__name__}: {said}"
            "\nFold a part of the model that has no control flow depending on values, "
            "and put it back."
        )
        raise InputError(msg) from error


def _holds_for_any_batch(program: ExportedProgram) -> bool:
    """Whether the graph was not narrowed to certain batch sizes.

    Sizes 0 and 1 are always cut off by torch.export, which treats them as constants.
    """
    names = set(program.graph_signature.user_inputs)
    sizes = {
        str(size)  # a number, if the model allows no other
        for node in program.graph.nodes
        if node.name in names and isinstance(node.meta.get("val"), torch.Tensor)
        for size in node.meta["val"].shape[:1]
        if isinstance(size, torch.SymInt)
    }
    free = {
        str(symbol)
        for symbol, values in program.range_constraints.items()
        if values.lower <= 2 and values.upper >= 2**31
    }
    return bool(sizes) and sizes <= free


def _functional(program: ExportedProgram) -> ExportedProgram:
    """Return a graph that reads as if nothing was written to, and all is used."""
    shared = writes_to_shared_tensors(program.graph)
    functional = program.run_decompositions({}) if shared else program
    functional.graph.eliminate_dead_code()
    return functional
