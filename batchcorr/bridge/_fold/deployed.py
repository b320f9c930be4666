"""A folded model compiled by torch, or exported to ONNX, compared with the given one."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from batchcorr.bridge._fold.compare import difference, outputs_of, tolerance_of
from batchcorr.bridge._torch import torch
from batchcorr.errors import FoldError, MissingPackageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

    from batchcorr.bridge._fold.compare import Arguments

__all__ = ["compiled", "exported", "require_same"]

ONNX = ("onnx", "onnxscript", "onnxruntime")


def compiled(model: nn.Module, arguments: Arguments) -> Callable[..., Any]:
    """The model compiled by torch, when it is first called."""
    del arguments
    runs: Callable[..., Any] = torch.compile(model)
    return runs


def exported(model: nn.Module, arguments: Arguments) -> Callable[..., Any]:
    """The model in ONNX, which ONNX Runtime runs."""
    if missing := [name for name in ONNX if find_spec(name) is None]:
        msg = (
            f"For onnx=True {' and '.join(missing)} must be installed: "
            f"pip install {' '.join(ONNX)}"
        )
        raise MissingPackageError(msg)
    args, kwargs = arguments
    how: dict[str, Any] = {"dynamo": True, "verbose": False}
    program: Any = torch.onnx.export(model, args, kwargs=kwargs, **how)
    runs: Callable[..., Any] = program
    return runs


def require_same(
    how: str,
    deploy: Callable[[nn.Module, Arguments], Callable[..., Any]],
    model: nn.Module,
    arguments: Arguments,
    expected: list[Tensor],
) -> float:
    """The relative difference of a deployed model; refuse more than rounding explains."""

    def run(*args: Any, **kwargs: Any) -> Any:
        return deploy(model, arguments)(*args, **kwargs)

    try:
        outputs = outputs_of(run, arguments, model)
    except MissingPackageError:
        raise
    except Exception as error:
        msg = f"The folded model cannot be {how}: {type(error).__name__}: {error}"
        raise FoldError(msg) from error
    found = difference(outputs, expected)
    allowed, kind = tolerance_of(expected, model)
    if found > allowed:
        msg = (
            f"The folded model, {how}, differs from the given one by {found:.2g} of its "
            f"largest output, and {allowed:.0e} is allowed for {kind}."
        )
        raise FoldError(msg)
    return found
