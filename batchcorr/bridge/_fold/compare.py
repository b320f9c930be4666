"""Nothing is believed: the folded model is run beside the given one.

    error = max |y' - y| / max |y|

over each tensor of the output, at the given number of samples, at one more, and at one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchcorr.bridge._running import wide
from batchcorr.bridge._torch import torch
from batchcorr.errors import FoldError, InputError

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["TOLERANCES", "relative_error", "require_equal", "require_measurable"]

TOLERANCES = {
    torch.float64: 1e-10,
    torch.float32: 1e-5,
    torch.float16: 2e-2,
    torch.bfloat16: 1e-1,
}


def require_measurable(outputs: list[Tensor]) -> None:
    """Refuse outputs on which nothing could be measured."""
    numbers = [x for x in outputs if x.is_floating_point() and x.numel()]
    if not numbers or any(bool(torch.isnan(x).any()) for x in numbers):
        msg = (
            f"The model returns {'NaN' if numbers else 'no real numbers'} for "
            "example_inputs, so that nothing can be measured. Look for NaN in them, in "
            "the weights and running statistics; or fold a part of the model."
        )
        raise InputError(msg)


def relative_error(outputs: list[Tensor], expected: list[Tensor]) -> float:
    """The largest difference, relative to the largest value expected."""
    if [x.shape for x in outputs] != [x.shape for x in expected]:
        return float("inf")
    pairs = zip(outputs, expected, strict=True)
    return max((_error(wide(x), wide(y)) for x, y in pairs), default=0.0)


def _error(output: Tensor, expected: Tensor) -> float:
    """The error of one tensor; infinite where NaN or infinity differ."""
    finite = torch.isfinite(expected)
    same = torch.equal(torch.isfinite(output), finite)
    if not (
        same and torch.allclose(output[~finite], expected[~finite], equal_nan=True)
    ):
        return float("inf")
    output, expected = output[finite], expected[finite]
    if torch.equal(output, expected):
        return 0.0
    return float((output - expected).abs().max()) / (float(expected.abs().max()) or 1.0)


def require_equal(
    errors: dict[int, float], expected: list[Tensor], model: nn.Module
) -> None:
    """Refuse a folded model that computes something else than rounding explains."""
    kinds = {x.dtype for x in [*expected, *model.parameters(), *model.buffers()]}
    allowed, kind = max((TOLERANCES[kind], str(kind)) for kind in kinds & {*TOLERANCES})
    worst = max(errors, key=lambda size: errors[size])
    if errors[worst] <= allowed:
        return
    msg = (
        f"The folded model differs from the given one by {errors[worst]:.2g} of its "
        f"largest output for {worst} samples, and {allowed:.0e} is allowed for {kind}: "
        "it is not returned. If the weights are ill-scaled, fold model.double() and "
        "convert the result; else the model does something that does not show in one "
        "run, or not the same for any number of samples: fold a part of it."
    )
    raise FoldError(msg)
