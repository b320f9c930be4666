r"""Running statistics after one step of the whole batch, not one per micro-batch.

    running mean     ← (1 - m) running mean + m μ
    running variance ← (1 - m) running variance + m M / (n - 1)

with the momentum m of the call, 1 / (number of batches seen) where it is None. All other
buffers move as one forward pass moves them, which must not depend on the samples.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from batchcorr.bridge._torch import torch
from batchcorr.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor, nn

    from batchcorr.bridge._training.intercept import Call
    from batchcorr.bridge.accumulate._sites import Site

__all__ = ["Running", "advance", "require_same"]


@dataclass(frozen=True)
class Running:
    """Which buffers a BatchNorm call updates, and how far: none where it keeps none."""

    mean: str | None
    variance: str | None
    momentum: float

    @classmethod
    def of(cls, call: Call, buffers: Mapping[str, Tensor]) -> Self:
        """Find the buffers a call was given by their identity."""
        names = {id(value): name for name, value in buffers.items()}
        return cls(
            mean=names.get(id(call.running_mean)),
            variance=names.get(id(call.running_var)),
            momentum=call.momentum,
        )


def require_same(first: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> None:
    """Require that two micro-batches left the buffers alike.

    Raises
    ------
    InputError
        If one differs: nothing says what the whole batch would have made of it.
    """
    for name, value in first.items():
        if not torch.equal(value, other[name]):
            msg = (
                f"The buffer {name} changes with the samples, and is no running "
                "statistic of a BatchNorm: what the whole batch would make of it "
                "cannot be told from micro-batches. Put that layer into evaluation mode."
            )
            raise InputError(msg)


def advance(
    model: nn.Module,
    after: Mapping[str, Tensor],
    running: Sequence[Running],
    sites: Sequence[Site],
) -> None:
    """Move the buffers of a model as one step of the whole batch does."""
    values = dict(after)
    for where, site in zip(running, sites, strict=True):
        whole = site.whole
        news = {
            where.mean: whole.mean,
            where.variance: whole.squares / (whole.n - 1),
        }
        for name, new in news.items():
            if name is not None:
                old, m = values[name], where.momentum
                values[name] = (1 - m) * old + m * new[0].to(old.dtype)
    with torch.no_grad():
        for name, buffer in model.named_buffers():
            buffer.copy_(values[name])
