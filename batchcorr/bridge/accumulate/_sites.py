r"""The statistics of the whole batch at every BatchNorm call, from micro-batches.

A *site* is one call of BatchNorm in a forward pass: a layer used twice has two. It is
normalized by the moments of the whole batch, to which the moments of the micro-batches
are merged: micro-batches are to it what batches are to a design. The merge is
differentiated by autograd, so that ∂L/∂(μ, v) of the whole gives what each micro-batch's
own moments contribute: dL = Σ_m ⟨μ̄_m, dμ_m⟩ + ⟨M̄_m, dM_m⟩.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import reduce
from typing import TYPE_CHECKING

from batchcorr.bridge._intercept import Call, Intercept
from batchcorr.bridge._torch import torch
from batchcorr.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from batchcorr.models.moments import Moments

__all__ = ["Reached", "Site", "Survey", "Whole", "add_to"]


@dataclass(frozen=True)
class Site:
    """One BatchNorm call: moments of the micro-batches, and μ and v of the whole batch.

    `adjoint` are μ̄_m and M̄_m of the micro-batches, once they are known.
    """

    parts: Moments
    mean: Tensor
    variance: Tensor
    adjoint: tuple[Tensor, Tensor] | None = None

    @classmethod
    def of(cls, parts: Sequence[Moments], number: int) -> Site:
        """A site from the moments of each micro-batch."""
        stacked = reduce(lambda one, other: one.concat(other), parts)
        whole = _merged(stacked)
        call = f"BatchNorm call {number + 1} of the forward pass"
        if not bool(torch.isfinite(whole.squares).all()):
            msg = (
                f"What comes into {call} is not finite. Look for NaN in the data and "
                "the weights first."
            )
            raise InputError(msg)
        if float(whole.n) < 2:
            msg = (
                f"{call} has one value per channel in the whole batch, and so no "
                "variance. Give at least two samples."
            )
            raise InputError(msg)
        return cls(stacked, whole.mean, whole.variance())

    @property
    def whole(self) -> Moments:
        """Moments of the whole batch."""
        return _merged(self.parts)

    def with_adjoint(self, mean: Tensor, variance: Tensor) -> Site:
        """The site with μ̄_m and M̄_m, from ∂L/∂μ and ∂L/∂v of the whole."""
        own = self.parts.mean.detach().requires_grad_()
        squares = self.parts.squares.detach().requires_grad_()
        whole = _merged(replace(self.parts, mean=own, squares=squares))
        change = (whole.mean * mean + whole.variance() * variance).sum()
        mean_bar, squares_bar = torch.autograd.grad(change, (own, squares))
        return replace(self, adjoint=(mean_bar, squares_bar))

    def contribution(self, part: int, own: Moments) -> Tensor | float:
        """What the loss changes by through one micro-batch's own moments."""
        if self.adjoint is None:
            return 0.0
        mean, squares = self.adjoint
        return torch.sum(own.mean * mean[part] + own.squares * squares[part])


def add_to(totals: Sequence[Tensor], gradients: Sequence[Tensor | None]) -> None:
    """Add gradients to their totals, where there are any."""
    for total, gradient in zip(totals, gradients, strict=True):
        if gradient is not None:
            total.add_(gradient)


def _merged(parts: Moments) -> Moments:
    return parts.collapse([0] * parts.n_batches, 1)


class Survey(Intercept):
    """Lets every call normalize by its own batch, and keeps the moments of all calls."""

    def __init__(self) -> None:
        super().__init__()
        self.moments: list[Moments] = []

    def answer(self, call: Call) -> Tensor:
        """The output of a call that normalizes by its own batch."""
        own = call.moments()
        self.moments.append(own)
        return call.normalized(own.mean, own.variance())


class Reached(BaseException):
    """The first site that is not known yet: the rest need not be run.

    Not an `Exception`, which a model might catch.
    """

    def __init__(self, moments: Moments) -> None:
        super().__init__()
        self.moments = moments


class Whole(Intercept):
    """Normalizes by the statistics of the whole batch at the sites that are known.

    Attributes
    ----------
    calls
        The calls so far.
    contribution
        What the micro-batch's own moments change the loss by, at sites with an adjoint.
    """

    def __init__(
        self, sites: Sequence[Site], part: int = 0, *, last: bool = True
    ) -> None:
        super().__init__()
        self.sites, self.part, self.last = sites, part, last
        self.calls: list[Call] = []
        self.contribution: Tensor | float = 0.0

    def answer(self, call: Call) -> Tensor:
        """The output by the whole batch's statistics."""
        if len(self.calls) == len(self.sites):
            if not self.last:
                raise Reached(call.moments())
            msg = "The model called BatchNorm more often than before: its flow changes."
            raise InputError(msg)
        site = self.sites[len(self.calls)]
        self.calls.append(call)
        if site.adjoint is not None:
            self.contribution = self.contribution + site.contribution(
                self.part, call.moments()
            )
        return call.normalized(site.mean, site.variance)
