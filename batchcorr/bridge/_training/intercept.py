r"""Every call of BatchNorm that normalizes by its own batch, caught and answered.

A BatchNorm layer ends in `torch.nn.functional.batch_norm`; torch offers to hand such
calls to somebody else, and so no layer is replaced, no hook is set and nothing is to be
put back. The answer is a frozen correction with the statistics one wants,

    r = γ / √(v + ε),      s = β - r μ
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch.nn.functional import batch_norm
from torch.overrides import TorchFunctionMode

from batchcorr.arrays.generic import tensor_affine, tensor_moments
from batchcorr.bridge._norms import normalizing
from batchcorr.bridge._rows import from_rows, to_rows

if TYPE_CHECKING:
    from torch import Tensor

    from batchcorr.models.moments import Moments

__all__ = ["Call", "Intercept", "variance_of"]

_SIGNATURE = inspect.signature(batch_norm)


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
        """Return the moments of each channel over samples and positions."""
        return tensor_moments(to_rows(self.input))

    def normalized(self, mean: Tensor, variance: Tensor) -> Tensor:
        """Return the output for given statistics, (1, C) each, differentiably."""
        correction = normalizing(mean, variance, self.eps, self.weight, self.bias)
        rows = tensor_affine(to_rows(self.input), correction)
        output = from_rows(rows, self.input.shape)
        # As torch lays it out: channels last only where the input is, for `view`.
        last = self.input.movedim(1, -1).is_contiguous()
        return output if last else output.contiguous()


def variance_of(moments: Moments) -> Tensor:
    """Return the variance a BatchNorm normalizes by, M / n: (1, C)."""
    variance: Tensor = moments.squares / moments.n
    return variance


class Intercept(TorchFunctionMode):
    """Answers BatchNorm's calls while it is entered; all else goes its usual way."""

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func is not batch_norm:
            return func(*args, **kwargs)
        bound = _SIGNATURE.bind(*args, **kwargs)
        bound.apply_defaults()
        call = Call(**bound.arguments)
        return self.answer(call) if call.training else func(*args, **kwargs)

    def answer(self, call: Call) -> Tensor:
        """Return the output of a call that normalizes by its own batch."""
        own = call.moments()
        return call.normalized(own.mean, variance_of(own))
