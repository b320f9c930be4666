r"""The statistics of the whole batch at every BatchNorm call, from micro-batches.

A *site* is one call of BatchNorm in a forward pass: a layer used twice has two. It is
normalized by the moments of the whole batch, to which those of micro-batches are merged.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING

from batchcorr.arrays.generic import tensor_moments
from batchcorr.bridge._channels import to_rows
from batchcorr.bridge._intercept import Call, Intercept
from batchcorr.bridge._torch import torch
from batchcorr.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from batchcorr.models.moments import Moments

__all__ = ["BySites", "Site", "site_of"]


@dataclass(frozen=True)
class Site:
    """One BatchNorm call: moments of the whole batch, μ and v, and ∂L/∂μ and ∂L/∂v."""

    moments: Moments
    mean: Tensor
    variance: Tensor
    adjoint: tuple[Tensor, Tensor] | None = None

    def contribution(self, x: Tensor) -> Tensor | float:
        """A term with the gradient that samples have through μ and v: of (N, C, …)."""
        if self.adjoint is None:
            return 0.0
        rows, (mean, variance) = to_rows(x), self.adjoint
        off = (rows - self.mean).square()  # μ moves with x, but Σ (x - μ) is 0
        return torch.sum(mean * rows + variance * off) / float(self.moments.n)


def site_of(parts: Sequence[Moments], number: int) -> Site:
    """A site from the moments of each micro-batch."""
    whole = reduce(lambda one, other: one.merge(other), parts)
    call = f"BatchNorm call {number + 1} of the forward pass"
    if not bool(torch.isfinite(whole.squares).all()):
        msg = (
            f"What comes into {call} is not finite. Look for NaN in the data and the "
            "weights first."
        )
        raise InputError(msg)
    if float(whole.n) < 2:
        msg = (
            f"{call} has one value per channel in the whole batch, and so no variance. "
            "Give at least two samples."
        )
        raise InputError(msg)
    return Site(whole, whole.mean, whole.variance())


class BySites(Intercept):
    """Normalizes by the whole batch at sites that are known, further on by its own.

    Attributes
    ----------
    calls
        The calls so far.
    unknown
        Moments of what came into the calls after those of known sites.
    contribution
        What known sites with an adjoint contribute.
    """

    def __init__(self, sites: Sequence[Site] = ()) -> None:
        super().__init__()
        self.sites = sites
        self.calls: list[Call] = []
        self.unknown: list[Moments] = []
        self.contribution: Tensor | float = 0.0

    def answer(self, call: Call) -> Tensor:
        """The output of a call that normalizes by its batch."""
        self.calls.append(call)
        if len(self.calls) > len(self.sites):
            self.unknown.append(tensor_moments(to_rows(call.input.detach())))
            return super().answer(call)
        site = self.sites[len(self.calls) - 1]
        self.contribution = self.contribution + site.contribution(call.input)
        return call.normalized(site.mean, site.variance)
