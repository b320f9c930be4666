"""Nothing is believed: the folded model is run beside the given one.

    error = max |y' - y| / max |y|

over each tensor of the output, at the given batch size, at one more, and at one sample.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from torch.utils import _pytree as pytree

from batchcorr.bridge._torch import torch
from batchcorr.errors import FoldError, InputError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from batchcorr.bridge._fold.example import Example

__all__ = ["outputs", "relative_error", "require_equal"]

TOLERANCES = {
    torch.float64: 1e-10,
    torch.float32: 1e-5,
    torch.float16: 2e-2,
    torch.bfloat16: 1e-1,
}


def outputs(model: nn.Module, example: Example) -> list[Tensor]:
    """Return all tensors that a model returns; the random state stays as it was."""
    devices = {x.device for x in example.batched if x.is_cuda}
    with torch.no_grad(), torch.random.fork_rng(devices=list(devices)):
        torch.manual_seed(0)
        found: Any = model(*example.args, **example.kwargs)
    return [x for x in pytree.tree_leaves(found) if isinstance(x, torch.Tensor)]


def require_finite(found: list[Tensor]) -> None:
    """Refuse outputs on which nothing could be measured.

    Raises
    ------
    InputError
        If there is no number among them, or some is NaN.
    """
    numbers = [x for x in found if x.is_floating_point() and x.numel()]
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


def relative_error(found: list[Tensor], expected: list[Tensor]) -> float:
    """Return the largest difference, relative to the largest value expected."""
    if [x.shape for x in found] != [x.shape for x in expected]:
        return float("inf")
    return max(
        (_error(x, y) for x, y in zip(found, expected, strict=True)), default=0.0
    )


def _error(found: Tensor, expected: Tensor) -> float:
    """Return the error of one tensor; infinite where NaN or infinity differ."""
    if not expected.is_floating_point():
        return 0.0 if torch.equal(found, expected) else float("inf")
    finite = torch.isfinite(expected)
    if not torch.allclose(found[~finite], expected[~finite], equal_nan=True):
        return float("inf")
    if not bool(finite.any()):
        return 0.0
    x, y = found[finite].double(), expected[finite].double()
    error = float((x - y).abs().max()) / (float(y.abs().max()) or 1.0)
    return float("inf") if math.isnan(error) else error


def require_equal(errors: dict[int, float], expected: list[Tensor]) -> None:
    """Refuse a folded model that computes something else.

    Raises
    ------
    FoldError
        If an error is larger than rounding allows.
    """
    dtype = next(x.dtype for x in expected if x.is_floating_point())
    allowed = TOLERANCES.get(dtype, 1e-1)
    worst = max(errors, key=lambda size: errors[size])
    wrong = [size for size, error in errors.items() if not error <= allowed]
    if wrong == [1] and len(errors) > 1:
        msg = (
            f"The folded model differs from the given one by {errors[1]:.2g} of its "
            "largest output for one sample, and not for more: it is not returned. The "
            "model does something else when it is given one sample: fold a part of it "
            "that does not."
        )
        raise FoldError(msg)
    if wrong:
        msg = (
            f"The folded model differs from the given one by {errors[worst]:.2g} of its "
            f"largest output at batch size {worst}, and {allowed:.0e} is allowed for "
            f"{dtype}: it is not returned. If the weights are ill-scaled, fold "
            "model.double() and convert the result; else the model does something that "
            "its exported graph does not show: fold a part of it."
        )
        raise FoldError(msg)
