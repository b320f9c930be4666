r"""Calls of torch's functions, caught and answered: BatchNorm's, and random draws.

A BatchNorm layer ends in `torch.nn.functional.batch_norm`, dropout in `dropout`; torch
offers to hand such calls to somebody else, and so no layer is replaced, no hook is set
and nothing is to be put back. The answer to BatchNorm is a frozen correction with the
statistics one wants,

    r = γ / √(v + ε),      s = β - r μ
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.nn import functional as F  # noqa: N812
from torch.overrides import TorchFunctionMode

from batchcorr.arrays.generic import tensor_affine, tensor_moments
from batchcorr.bridge._norms import normalizing
from batchcorr.bridge._rows import from_rows, to_rows
from batchcorr.bridge._torch import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    from batchcorr.models.moments import Moments

__all__ = ["Call", "Intercept", "Quiet"]

_BATCH_NORM = inspect.signature(F.batch_norm)

_DROPOUTS: frozenset[Callable[..., Any]] = frozenset(
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

_WITH_DROPOUT: dict[Any, tuple[inspect.Signature, dict[str, Any]]] = {
    F.multi_head_attention_forward: (
        inspect.signature(F.multi_head_attention_forward),
        {"training": False},
    ),
    F.scaled_dot_product_attention: (
        inspect.Signature(
            [
                inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD)
                for name in (
                    *("query", "key", "value", "attn_mask", "dropout_p"),
                    *("is_causal", "scale", "enable_gqa"),
                )
            ]
        ),
        {"dropout_p": 0.0},
    ),
}
"""Functions with dropout inside, and the argument that switches it off."""

_MIDDLES: dict[Callable[..., Any], float] = {
    torch.rand: 0.5,
    torch.rand_like: 0.5,
    Tensor.uniform_: 0.5,
    torch.randn: 0.0,
    torch.randn_like: 0.0,
    Tensor.normal_: 0.0,
}
"""What is drawn, and the middle of its distribution."""


_RANDOM = (
    _DROPOUTS
    | _MIDDLES.keys()
    | _WITH_DROPOUT.keys()
    | {torch.bernoulli, Tensor.bernoulli, Tensor.bernoulli_}
)


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

    def moments(self) -> Moments:
        """The moments of each channel over samples and positions."""
        return tensor_moments(to_rows(self.input))

    def normalized(self, mean: Tensor, variance: Tensor) -> Tensor:
        """The output for given statistics, (1, C) each, differentiably."""
        correction = normalizing(mean, variance, self.eps, self.weight, self.bias)
        rows = tensor_affine(to_rows(self.input), correction)
        output = from_rows(rows, self.input.shape)
        # As torch lays it out: channels last only where the input is, for `view`.
        last = self.input.movedim(1, -1).is_contiguous()
        return output if last else output.contiguous()

    def update_running(self, moments: Moments) -> None:
        """Move the running statistics as torch does after a batch of these moments."""
        news = (moments.mean, moments.variance(ddof=1))
        with torch.no_grad():
            for old, new in zip(
                (self.running_mean, self.running_var), news, strict=True
            ):
                if old is not None:
                    old.lerp_(new[0].to(old.dtype), self.momentum)


class Intercept(TorchFunctionMode):
    """Answers BatchNorm's calls that normalize by their batch; all else goes its way.

    The answer is torch's own, but running statistics stay, and one value per channel is
    normalized, too, to 0.
    """

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
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
        if x.numel() <= x.shape[1]:
            own = call.moments()
            return call.normalized(own.mean, own.variance())
        return F.batch_norm(
            x, None, None, call.weight, call.bias, training=True, eps=call.eps
        )


class Quiet(TorchFunctionMode):
    """Holds random layers still: dropout off, and drawn numbers at a constant.

    What a model computes is then a function of its input alone, so that two
    computations may be compared number by number.
    """

    def __init__(self, *, still: bool = True) -> None:
        super().__init__()
        self.still, self.draws = still, 0

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        still = _still(func, args, kwargs) if func in _RANDOM else None
        if still is None:
            return func(*args, **kwargs)
        number, self.draws = self.draws, self.draws + 1
        return self.answer(number, lambda: func(*args, **kwargs), still)

    def answer(
        self, number: int, drawn: Callable[[], Any], still: Callable[[], Any]
    ) -> Any:
        """What a random function gives, by its number in the forward pass."""
        del number
        return still() if self.still else drawn()


def _still(
    func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Callable[[], Any] | None:
    """A random function held still, or None if it is none."""
    if func in _DROPOUTS:
        return lambda: args[0] if args else kwargs["input"]
    if func in _MIDDLES:
        return lambda: func(*args, **kwargs).fill_(_MIDDLES[func])
    if func in (torch.bernoulli, Tensor.bernoulli) and len(args) == 1:
        return partial(torch.clone, args[0])
    if func is Tensor.bernoulli_:
        p = args[1] if len(args) > 1 else kwargs.get("p", 0.5)
        return lambda: args[0].copy_(torch.as_tensor(p).expand_as(args[0]))
    if func not in _WITH_DROPOUT:
        return None
    signature, change = _WITH_DROPOUT[func]
    bound = signature.bind_partial(*args, **kwargs)
    bound.arguments |= change
    return lambda: func(*bound.args, **bound.kwargs)
