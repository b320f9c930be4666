"""Nothing is believed: the folded model is run beside the given one.

    error = max |y' - y| / max |y|

over each tensor of the output, at the given number of samples, at one more, and at one.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from batchcorr.bridge._batches import leaves
from batchcorr.bridge._running import accelerators, seeded, wide
from batchcorr.bridge._torch import torch
from batchcorr.errors import FoldError, InputError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from batchcorr.bridge._fold.example import Example

__all__ = [
    "TOLERANCES",
    "outputs_of",
    "outputs_of_folded",
    "relative_error",
    "require_equal",
    "require_finite",
]

TOLERANCES = {
    torch.float64: 1e-10,
    torch.float32: 1e-5,
    torch.float16: 2e-2,
    torch.bfloat16: 1e-1,
}


def outputs_of(model: nn.Module, example: Example) -> list[Tensor]:
    """All tensors that a model returns; the random state stays as it was."""
    with torch.no_grad(), seeded(accelerators(model, example.args, example.kwargs)):
        return list(leaves(model(*example.args, **example.kwargs)))


def outputs_of_folded(model: nn.Module, example: Example) -> list[Tensor]:
    """The folded model's outputs."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the given model has said it
            return outputs_of(model, example)
    except Exception as error:
        msg = (
            f"The folded model fails: {type(error).__name__}: {error}\nThe given one "
            "does not, so its code needs a BatchNorm in a way that does not show while "
            "it runs: fold a part of the model."
        )
        raise FoldError(msg) from error


def require_finite(outputs: list[Tensor]) -> None:
    """Refuse outputs on which nothing could be measured."""
    numbers = [x for x in outputs if x.is_floating_point() and x.numel()]
    if not numbers:
        msg = (
            "The model returns no real numbers for example_inputs, so that nothing can "
            "be measured. Fold the part of it that does."
        )
        raise InputError(msg)
    if any(bool(torch.isnan(x).any()) for x in numbers):
        msg = (
            "The model returns NaN for example_inputs, so that nothing can be measured. "
            "Look for NaN in its weights and running statistics."
        )
        raise InputError(msg)


def relative_error(outputs: list[Tensor], expected: list[Tensor]) -> float:
    """The largest difference, relative to the largest value expected."""
    if [x.shape for x in outputs] != [x.shape for x in expected]:
        return float("inf")
    pairs = zip(outputs, expected, strict=True)
    return max((_error(x, y) for x, y in pairs), default=0.0)


def _error(output: Tensor, expected: Tensor) -> float:
    """The error of one tensor; infinite where NaN or infinity differ."""
    if not expected.is_floating_point():
        return 0.0 if torch.equal(output, expected) else float("inf")
    finite = torch.isfinite(expected)
    if not torch.allclose(output[~finite], expected[~finite], equal_nan=True):
        return float("inf")
    if not bool(finite.any()):
        return 0.0
    x, y = wide(output[finite]), wide(expected[finite])
    error = float((x - y).abs().max()) / (float(y.abs().max()) or 1.0)
    return error if error == error else float("inf")  # noqa: PLR0124 - NaN


def require_equal(
    errors: dict[int, float], expected: list[Tensor], model: nn.Module
) -> None:
    """Refuse a folded model that computes something else than rounding explains."""
    kinds = {x.dtype for x in [*expected, *model.parameters(), *model.buffers()]}
    allowed, kind = max((TOLERANCES[kind], str(kind)) for kind in kinds & {*TOLERANCES})
    wrong = [size for size, error in errors.items() if not error <= allowed]
    if not wrong:
        return
    worst = max(wrong, key=lambda size: errors[size])
    msg = (
        f"The folded model differs from the given one by {errors[worst]:.2g} of its "
        f"largest output for {worst} samples, and {allowed:.0e} is allowed for {kind}: "
        "it is not returned. If the weights are ill-scaled, fold model.double() and "
        "convert the result; else the model does something that does not show while it "
        "runs: fold a part of it."
    )
    raise FoldError(msg)
