r"""Calls of torch's functions, caught and answered: BatchNorm's, and random draws.

A BatchNorm layer ends in `torch.nn.functional.batch_norm`, dropout in `dropout`; torch
offers to hand such calls to somebody else, so that no layer is replaced and nothing is to
be put back. The answer to BatchNorm is a frozen correction with the statistics one wants,

    r = γ / √(v + ε),      s = β - r μ
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.nn import functional as F  # noqa: N812
from torch.overrides import TorchFunctionMode

from batchcorr.bridge._norms import normalizing
from batchcorr.bridge._torch import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    from batchcorr.models.moments import Moments

__all__ = ["Call", "Intercept", "Quiet"]


# -- BatchNorm -------------------------------------------------------------------------

_BATCH_NORM = inspect.signature(F.batch_norm)


@dataclass(frozen=True)
class Call:
    """What `torch.nn.functional.batch_norm` was called with."""

    input: Tensor
    running_mean: Tensor | None
    running_var: Tensor | None
    weight: Tensor | None
    bias: Tensor | None
    training: bool
    momentum: float
    eps: float

    def normalized(self, mean: Tensor, variance: Tensor) -> Tensor:
        """The output for given statistics, (1, C) each, differentiably."""
        correction = normalizing(mean, variance, self.eps, self.weight, self.bias)
        shape = (1, -1, *[1] * (self.input.ndim - 2))
        scale, shift = correction.scale.reshape(shape), correction.shift.reshape(shape)
        output: Tensor = (self.input * scale + shift).to(self.input.dtype)
        return output

    def update_running(self, moments: Moments) -> None:
        """Move the running statistics as torch does after a batch of these moments."""
        if self.running_mean is not None and self.running_var is not None:
            with torch.no_grad():
                mean, variance = moments.mean[0], moments.variance(ddof=1)[0]
                self.running_mean.lerp_(mean.to(self.running_mean), self.momentum)
                self.running_var.lerp_(variance.to(self.running_var), self.momentum)


class Intercept(TorchFunctionMode):
    """Answers BatchNorm's calls that normalize by their batch; all else goes its way.

    The answer is torch's own, but running statistics stay, and one value per channel is
    normalized, too, to β.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is not F.batch_norm:
            return func(*args, **kwargs)
        bound = _BATCH_NORM.bind(*args, **kwargs)
        bound.apply_defaults()
        call = Call(**bound.arguments)
        return self.answer(call) if call.training else func(*args, **kwargs)

    def answer(self, call: Call) -> Tensor:
        """The output of a call that normalizes by its own batch."""
        x = call.input
        alone = x.numel() == x.shape[1]
        if alone:
            x = torch.cat([x, x])
        out = F.batch_norm(
            x, None, None, call.weight, call.bias, training=True, eps=call.eps
        )
        return out[:1] if alone else out


# -- random draws ----------------------------------------------------------------------

_DROPOUTS: set[Any] = {F.dropout, F.dropout1d, F.dropout2d, F.dropout3d}
_DROPOUTS |= {F.alpha_dropout, F.feature_alpha_dropout}
"""What torch's dropout layers call, their input first."""

_MIDDLES: dict[Callable[..., Any], float] = {
    torch.rand: 0.5,
    torch.rand_like: 0.5,
    Tensor.uniform_: 0.5,
    torch.randn: 0.0,
    torch.randn_like: 0.0,
    Tensor.normal_: 0.0,
}
"""What is drawn, and the middle of its distribution."""


class Quiet(TorchFunctionMode):
    """Holds random layers still: dropout off, and drawn numbers at a constant."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _DROPOUTS:
            return args[0] if args else kwargs["input"]
        if func in _MIDDLES:
            return func(*args, **kwargs).fill_(_MIDDLES[func])
        if func in (torch.bernoulli, Tensor.bernoulli) and len(args) == 1:
            return args[0].clone()
        if func is Tensor.bernoulli_:
            p = args[1] if len(args) > 1 else kwargs.get("p", 0.5)
            return args[0].copy_(torch.as_tensor(p).expand_as(args[0]))
        if func is F.multi_head_attention_forward:
            kwargs = kwargs | {"training": False}
        if func is F.scaled_dot_product_attention:
            args = (*args[:4], *[0.0] * (len(args) > 4), *args[5:])
            kwargs = kwargs | ({"dropout_p": 0.0} if len(args) < 5 else {})
        return func(*args, **kwargs)
