r"""The statistics of the whole batch at every BatchNorm call, and whether no others meet.

A *site* is one call of BatchNorm in a forward pass: a layer used twice has two. It is
normalized by the moments of the whole batch, to which those of micro-batches are merged.
With these held, and random layers still,

    Σ_m (n_m / N) ℓ(m)   for a mean,      Σ_m ℓ(m)   for a sum,

is the same for every partition into groups m, if samples meet nowhere else.
"""

from __future__ import annotations

from functools import reduce
from numbers import Integral
from typing import TYPE_CHECKING, Any

from batchcorr.arrays.generic import tensor_moments
from batchcorr.bridge._batches import n_samples, take
from batchcorr.bridge._channels import to_rows
from batchcorr.bridge._intercept import Call, Intercept, Quiet
from batchcorr.bridge._layerwise import ReachedError
from batchcorr.bridge._step import Step
from batchcorr.bridge._torch import torch
from batchcorr.bridge.nn._combat_norm import ComBatNorm
from batchcorr.bridge.nn._domain_norm import DomainBatchNorm
from batchcorr.errors import InputError
from batchcorr.models.moments import Moments

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from batchcorr.bridge._step import LossFunction

__all__ = ["BySites", "Site", "Whole", "require_size"]

REDUCTIONS = ("mean", "sum")
OTHERS = (torch.nn.SyncBatchNorm, ComBatNorm, DomainBatchNorm)


# -- sites -----------------------------------------------------------------------------


class Site:
    """One BatchNorm call: moments of the whole batch, μ and v, and ∂L/∂μ and ∂L/∂v."""

    def __init__(self, parts: Sequence[Moments], number: int) -> None:
        self.moments = reduce(Moments.merge, parts)
        self.mean, self.variance = self.moments.mean, self.moments.variance()
        self.adjoint: Sequence[Tensor] = ()
        squares = self.moments.squares
        if float(self.moments.n) < 2 or not bool(torch.isfinite(squares).all()):
            msg = (
                f"What comes into BatchNorm call {number + 1} of the forward pass is not "
                "finite (NaN in the data or the weights), or one value per channel in the "
                "whole batch, which has no variance."
            )
            raise InputError(msg)

    def contribution(self, x: Tensor) -> Tensor | float:
        """A term with the gradient that samples have through μ and v: of (N, C, …)."""
        if not self.adjoint:
            return 0.0
        rows, (mean, variance) = to_rows(x), self.adjoint
        off = (rows - self.mean).square()  # μ moves with x, but Σ (x - μ) is 0
        return torch.sum(mean * rows + variance * off) / float(self.moments.n)


class BySites(Intercept):
    """Normalizes by the whole batch at sites that are known, further on by its own.

    `calls` are those so far, `unknown` the moments of what came into those after known
    sites, and `contribution` is what known sites with an adjoint contribute. It may `stop`
    the forward pass at the first that is unknown.
    """

    loss: Tensor

    def __init__(self, sites: Sequence[Site] = (), *, stop: bool = False) -> None:
        super().__init__()
        self.sites, self.stop = sites, stop
        self.calls: list[Call] = []
        self.unknown: list[Moments] = []
        self.contribution: Tensor | float = 0.0

    def answer(self, call: Call) -> Tensor:
        """The output of a call that normalizes by its batch."""
        self.calls.append(call)
        if len(self.calls) > len(self.sites):
            self.unknown.append(tensor_moments(to_rows(call.input.detach())))
            if self.stop:
                raise ReachedError
            return super().answer(call)
        site = self.sites[len(self.calls) - 1]
        self.contribution = self.contribution + site.contribution(call.input)
        return call.normalized(site.mean, site.variance)


# -- the whole batch, and what is refused ------------------------------------------------


def require_size(size: object, n: int) -> int:
    """A micro-batch size, at most that of the batch."""
    if isinstance(size, bool) or not isinstance(size, Integral) or size < 1:
        msg = f"A micro-batch has a whole number of samples, at least 1, not {size!r}."
        raise InputError(msg)
    return min(int(size), n)


class Whole:
    """A batch, and the step of a model that may be run on parts of it.

    The model has no layers that normalize by the batch otherwise than BatchNorm.
    """

    def __init__(
        self, model: object, batch: Any, loss: LossFunction, reduction: str
    ) -> None:
        self.n, self.batch, self.reduction = n_samples(batch), batch, reduction
        self.step = Step.of(model, loss)
        if reduction not in REDUCTIONS:
            msg = f"reduction must be 'mean' or 'sum', not {reduction!r}."
            raise InputError(msg)
        for name, module in self.step.model.named_modules():
            if module.training and isinstance(module, OTHERS):
                msg = (
                    f"The layer {name or 'model'!r} is a {type(module).__name__}, which "
                    "mixes samples otherwise than BatchNorm: what it does with the whole "
                    "batch cannot be told from micro-batches. Put a torch.nn.BatchNorm in "
                    "its place, or freeze it with .eval()."
                )
                raise InputError(msg)

    def loss(self, rows: Tensor) -> Tensor:
        """What the loss of some samples counts for in that of all."""
        return self._weight(rows, self.reduction) * self.step(take(self.batch, rows))

    def _weight(self, rows: Tensor, reduction: str) -> float:
        return len(rows) / self.n if reduction == "mean" else 1.0

    def require_additive(self, parts: Sequence[Tensor], sites: Sequence[Site]) -> None:
        """Require that the losses of the parts of a batch add up to one of the whole.

        It is compared for the parts, and for groups of half their size (pairs, where they
        are single) whose rows lie far apart.
        """
        n = self.n
        groups = min(2 * len(parts), n) if len(parts) < n else (n + 1) // 2
        strided = [
            torch.arange(start, n, groups, device="cpu") for start in range(groups)
        ]

        def value(rows: Tensor) -> float:
            with torch.no_grad(), BySites(sites), Quiet():
                return float(self.step(take(self.batch, rows)))

        one, other = (
            [(rows, value(rows)) for rows in some] for some in (parts, strided)
        )
        allowed = torch.finfo(next(self.step.model.parameters()).dtype).eps ** 0.5

        def adds_up(kind: str) -> bool:
            first, second = (
                [self._weight(rows, kind) * loss for rows, loss in some]
                for some in (one, other)
            )
            return bool(abs(sum(first) - sum(second)) <= allowed * sum(map(abs, first)))

        if adds_up(self.reduction):
            return
        msg = f"The loss is not the {self.reduction} over samples."
        (alternative,) = set(REDUCTIONS) - {self.reduction}
        if adds_up(alternative):
            msg += (
                f" It is the {alternative} over them: give reduction={alternative!r}."
            )
        else:
            msg += (
                " A mean over some of the samples only (ignore_index), weights that depend "
                "on the labels, a term that compares samples, a layer other than BatchNorm "
                "that mixes them, or random numbers of its own do that. Use a sum, or "
                "normalize by a number that is the same for every micro-batch; put layers "
                "in place that take every sample by itself."
            )
        raise InputError(msg)
