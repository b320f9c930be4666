"""The data flow of a model, as torch.export finds it: one graph without side effects.

The graph is only read. What runs in the end is the model's own code, so the graph must
hold for every batch size that the model takes. torch.export can prove it from two
samples on: 0 and 1 it takes for constants.
"""

from __future__ import annotations

import io
import logging
import warnings
from contextlib import contextmanager, redirect_stderr
from typing import TYPE_CHECKING, Any

from batchcorr.bridge._fold.writes import writes_to_shared_tensors
from batchcorr.bridge._torch import torch
from batchcorr.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn
    from torch.export import ExportedProgram

    from batchcorr.bridge._fold.example import Example

__all__ = ["export"]


def export(
    model: nn.Module, example: Example, *, any_batch: bool
) -> ExportedProgram | None:
    """Return the exported model.

    Parameters
    ----------
    model
        In evaluation mode.
    example
        Inputs of two samples or more if `any_batch`.
    any_batch
        Whether the graph must hold for any number of samples, not the given one only;
        None is returned if it does not.

    Raises
    ------
    InputError
        If torch.export cannot follow the model.
    """
    with _quietly():
        if not any_batch:
            return _functional(_export(model, example))
        program = _export(model, example, any_batch=True)
        if not _holds_for_any_batch(program):
            try:  # reading the code itself, which takes longer, it can follow len(x)
                program = _export(model, example, any_batch=True, strict=True)
            except InputError:
                return None
        return _functional(program) if _holds_for_any_batch(program) else None


@contextmanager
def _quietly() -> Iterator[None]:
    """Keep back what torch says about its inner workings: a failure is told in short."""
    log = logging.getLogger("torch.fx.experimental.symbolic_shapes")
    before = log.disabled
    log.disabled = True
    try:
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        log.disabled = before


def _export(
    model: nn.Module, example: Example, *, any_batch: bool = False, strict: bool = False
) -> ExportedProgram:
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
            strict=strict,
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
    Neither a range may be left nor a guard, a condition under which the graph holds.
    """
    names = set(program.graph_signature.user_inputs)
    sizes = [
        size  # a number, if the model allows no other
        for node in program.graph.nodes
        if node.name in names and isinstance(node.meta.get("val"), torch.Tensor)
        for size in node.meta["val"].shape[:1]
        if isinstance(size, torch.SymInt)
    ]
    free = {
        str(symbol)
        for symbol, values in program.range_constraints.items()
        if values.lower <= 2 and values.upper >= 2**31
    }
    guards = [guard.expr for size in sizes for guard in size.node.shape_env.guards]
    guarded = not all(_is_of_two_inputs(expression) for expression in guards)
    return bool(sizes) and not guarded and {str(size) for size in sizes} <= free


def _is_of_two_inputs(expression: Any) -> bool:
    """Whether a condition only says that two inputs have as many samples."""
    return bool(expression.is_Equality) and all(
        side.is_Symbol for side in expression.args
    )


def _functional(program: ExportedProgram) -> ExportedProgram:
    """Return a graph that reads as if nothing was written to, and all is used."""
    shared = writes_to_shared_tensors(program.graph)
    functional = program.run_decompositions({}) if shared else program
    functional.graph.eliminate_dead_code()
    return functional
