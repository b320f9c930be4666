"""Random layers held still: dropout off, and drawn numbers at a constant.

What a model computes is then a function of its input alone, so that two computations
may be compared number by number.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.nn import functional as F  # noqa: N812
from torch.overrides import TorchFunctionMode

from batchcorr.bridge._torch import torch

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["DROPOUTS", "Quiet"]

DROPOUTS: frozenset[Callable[..., Any]] = frozenset(
    {
        F.dropout,
        F.dropout1d,
        F.dropout2d,
        F.dropout3d,
        F.alpha_dropout,
        F.feature_alpha_dropout,
    }
)
"""What torch's dropout layers call, their input first."""

_ATTENTION = inspect.signature(F.multi_head_attention_forward)

_CONSTANTS: dict[Callable[..., Any], float] = {
    torch.rand: 0.5,
    torch.rand_like: 0.5,
    Tensor.uniform_: 0.5,
    torch.randn: 0.0,
    torch.randn_like: 0.0,
    Tensor.normal_: 0.0,
}
"""What is drawn, and the middle of its distribution."""


class Quiet(TorchFunctionMode):
    """Holds random layers still while it is entered.

    Examples
    --------
    >>> with Quiet():
    ...     F.dropout(torch.ones(3), p=0.9).tolist()
    [1.0, 1.0, 1.0]
    """

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func in DROPOUTS:
            return args[0] if args else kwargs["input"]
        if func in _CONSTANTS:
            return func(*args, **kwargs).fill_(_CONSTANTS[func])
        if func in (torch.bernoulli, Tensor.bernoulli) and len(args) == 1:
            return args[0].clone()
        if func is Tensor.bernoulli_:
            p = args[1] if len(args) > 1 else kwargs.get("p", 0.5)
            return args[0].copy_(torch.as_tensor(p).expand_as(args[0]))
        if func is F.scaled_dot_product_attention:
            args = (*args[:4], 0.0, *args[5:]) if len(args) > 4 else args
            kwargs = {key: v for key, v in kwargs.items() if key != "dropout_p"}
        if func is F.multi_head_attention_forward:
            bound = _ATTENTION.bind(*args, **kwargs)
            bound.arguments["training"] = False
            return func(*bound.args, **bound.kwargs)
        return func(*args, **kwargs)
