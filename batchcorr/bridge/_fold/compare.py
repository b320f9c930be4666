"""Nothing is believed: the folded model is run beside the given one.

    error = max |y' - y| / max |y|

over each tensor of the output, at the given number of samples, at one more, and at one.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from batchcorr.bridge._batches import leaves, map_tensors
from batchcorr.bridge._fold.trace import TOLERANCES
from batchcorr.bridge._running import accelerators, seeded, wide
from batchcorr.bridge._torch import torch
from batchcorr.errors import FoldError, InputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

__all__ = [
    "Arguments",
    "difference",
    "error_of",
    "examples_of",
    "outputs_of",
    "outputs_of_given",
    "require_equal",
    "tolerance_of",
]

Arguments = tuple[tuple[Any, ...], dict[str, Any]]


def examples_of(inputs: object) -> list[Arguments]:
    """Arguments of calls with the given samples, with one more, and with one."""
    given: Arguments = (inputs,), {}
    if isinstance(inputs, Mapping):
        given = (), dict(inputs)
    elif isinstance(inputs, tuple | list):
        given = tuple(inputs), {}
    tensors = [leaf for leaf in leaves(given) if leaf.ndim]
    if not tensors:
        msg = (
            "example_inputs must hold a tensor with samples along its first axis: give "
            "a tensor, a tuple of positional arguments or a dict of named ones, not "
            f"{type(inputs).__name__}."
        )
        raise InputError(msg)
    samples = {id(x) for x in tensors if len(x) == len(tensors[0])}

    def resized(change: Callable[[Tensor], Tensor]) -> Any:
        return map_tensors(given, lambda x: change(x) if id(x) in samples else x)

    return [
        given,
        resized(lambda x: torch.cat([x, x[:1]])),
        resized(lambda x: x[:1]),
    ]


def outputs_of(
    run: Callable[..., Any], arguments: Arguments, model: nn.Module
) -> list[Tensor]:
    """All tensors that a call returns; inputs and random numbers stay as they were."""
    args, kwargs = map_tensors(arguments, torch.clone)
    devices = accelerators(model, arguments)
    with torch.no_grad(), seeded(devices), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return list(leaves(run(*args, **kwargs)))


def outputs_of_given(
    model: nn.Module, examples: list[Arguments]
) -> dict[int, tuple[Arguments, list[Tensor]]]:
    """Arguments and outputs of the given model by the number of samples, if it takes it."""
    expected: dict[int, tuple[Arguments, list[Tensor]]] = {}
    for arguments in examples:
        try:
            outputs = outputs_of(model, arguments, model)
        except Exception as error:
            if expected:
                continue
            msg = (
                f"The model fails on example_inputs: {type(error).__name__}: {error}\n"
                "Give them as the model takes them: a tensor, a tuple of positional "
                "arguments, or a dict of named ones."
            )
            raise InputError(msg) from error
        numbers = [x for x in outputs if x.is_floating_point() and x.numel()]
        if numbers and not any(bool(torch.isnan(x).any()) for x in numbers):
            size = next(len(x) for x in leaves(arguments) if x.ndim)
            expected[size] = arguments, outputs
        elif not expected:
            msg = (
                f"The model returns {'NaN' if numbers else 'no real numbers'} for "
                "example_inputs, so that nothing can be measured. Look for NaN in them, "
                "in the weights and running statistics; or fold a part of the model."
            )
            raise InputError(msg)
    return expected


def error_of(folded: nn.Module, arguments: Arguments, expected: list[Tensor]) -> float:
    """The largest difference, relative to the largest value of each tensor expected."""
    try:
        outputs = outputs_of(folded, arguments, folded)
    except Exception as error:
        msg = (
            f"The folded model fails: {type(error).__name__}: {error}\nThe given one "
            "does not, so its code needs a BatchNorm in a way that does not show while "
            "it runs: fold a part of the model."
        )
        raise FoldError(msg) from error
    return difference(outputs, expected)


def difference(outputs: list[Tensor], expected: list[Tensor]) -> float:
    """The largest difference of outputs, relative to the largest value of each expected."""
    if [x.shape for x in outputs] != [x.shape for x in expected]:
        return float("inf")
    worst = 0.0
    for x, y in zip(map(wide, outputs), map(wide, expected), strict=True):
        if not torch.equal(x, y):
            off = torch.where(x == y, 0, x - y).abs().nan_to_num(float("inf")).max()
            size = float(y.nan_to_num(0, 0, 0).abs().max()) or 1.0
            worst = max(worst, float(off) / size)
    return worst


def require_equal(
    errors: dict[int, float], expected: list[Tensor], model: nn.Module
) -> None:
    """Refuse a folded model that computes something else than rounding explains."""
    allowed, kind = tolerance_of(expected, model)
    worst = max(errors, key=lambda size: errors[size])
    if errors[worst] > allowed:
        msg = (
            f"The folded model differs from the given one by {errors[worst]:.2g} of its "
            f"largest output for {worst} sample{'s' * (worst != 1)}, and {allowed:.0e} is "
            f"allowed for {kind}: it is not returned. Fold model.double(), in case it is "
            "rounding, and convert the result; else the model does something that does "
            "not show in one run, or not the same for any number of samples: fold a part."
        )
        raise FoldError(msg)


def tolerance_of(expected: list[Tensor], model: nn.Module) -> tuple[float, str]:
    """The difference that rounding explains, and the least precise numbers there are."""
    kinds = {x.dtype for x in [*expected, *model.parameters(), *model.buffers()]}
    return max((TOLERANCES[kind], str(kind)) for kind in kinds & {*TOLERANCES})
