r"""The statistics of the whole batch at every BatchNorm call, from micro-batches.

A *site* is one call of BatchNorm in a forward pass: a layer used twice has two. What a
site is normalized by are the moments of the whole batch, which the moments of the
micro-batches are merged to: micro-batches are to it what batches are to a design.

The merge is differentiated by autograd, so that ∂L/∂(μ, v) of the whole gives what each
micro-batch's own moments contribute: dL = Σ_m ⟨μ̄_m, dμ_m⟩ + ⟨M̄_m, dM_m⟩.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import reduce
from typing import TYPE_CHECKING

from batchcorr.bridge._torch import torch
from batchcorr.bridge._training.intercept import Call, Intercept, variance_of
from batchcorr.bridge.accumulate._buffers import Running
from batchcorr.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from batchcorr.models.moments import Moments

__all__ = ["Adjoint", "Gather", "Reached", "Site", "Survey", "site_of"]


@dataclass(frozen=True)
class Site:
    """One BatchNorm call, and the moments of the whole batch at it."""

    parts: Moments
    whole: Moments
    mean: Tensor
    variance: Tensor
    adjoint: tuple[Tensor, Tensor] | None = None

    @property
    def statistics(self) -> tuple[Tensor, Tensor]:
        """μ and v of the whole batch, (1, C) each."""
        return self.mean, self.variance

    def with_adjoint(self, mean: Tensor, variance: Tensor) -> Site:
        """Return the site with μ̄_m and M̄_m, from ∂L/∂μ and ∂L/∂v of the whole."""
        own = self.parts.mean.detach().requires_grad_()
        squares = self.parts.squares.detach().requires_grad_()
        whole = _whole(replace(self.parts, mean=own, squares=squares))
        change = (whole.mean * mean + variance_of(whole) * variance).sum()
        own_bar, squares_bar = torch.autograd.grad(change, (own, squares))
        return replace(self, adjoint=(own_bar, squares_bar))

    def pull(self, part: int, own: Moments) -> Tensor:
        """Return what the loss changes by through one micro-batch's own moments."""
        if self.adjoint is None:
            return torch.zeros((), device=own.mean.device)
        mean_bar, squares_bar = self.adjoint
        terms = own.mean * mean_bar[part] + own.squares * squares_bar[part]
        return torch.sum(terms)


def _whole(parts: Moments) -> Moments:
    """Merge micro-batches by the package's rule."""
    return parts.collapse([0] * parts.n_batches, 1)


def site_of(parts: Sequence[Moments], number: int) -> Site:
    """Return a site from the moments of each micro-batch.

    Raises
    ------
    InputError
        If they are not finite, or there is but one value per channel.
    """
    stacked = reduce(lambda one, other: one.concat(other), parts)
    whole = _whole(stacked)
    if not bool(torch.isfinite(whole.squares).all()):
        msg = (
            f"What comes into BatchNorm call {number + 1} of the forward pass is not "
            "finite. Look for NaN in the data and the weights first."
        )
        raise InputError(msg)
    if float(whole.n) < 2:
        msg = (
            f"BatchNorm call {number + 1} of the forward pass has one value per channel "
            "in the whole batch, and so no variance. Give at least two samples."
        )
        raise InputError(msg)
    return Site(stacked, whole, whole.mean, variance_of(whole))


class Survey(Intercept):
    """Lets every call normalize by itself, and notes moments and running statistics."""

    def __init__(self, buffers: Mapping[str, Tensor] | None = None) -> None:
        super().__init__()
        self.buffers = buffers or {}
        self.moments: list[Moments] = []
        self.running: list[Running] = []

    def answer(self, call: Call) -> Tensor:
        """Normalize by the micro-batch's own moments."""
        own = call.moments()
        self.running.append(Running.of(call, self.buffers))
        self.moments.append(own)
        return call.normalized(own.mean, variance_of(own))


class Reached(BaseException):
    """The site whose moments were wanted: the rest of the forward pass is not needed.

    Not an `Exception`, which a model might catch.
    """


class Gather(Intercept):
    """Normalizes the sites known so far, and takes the moments of the next."""

    def __init__(self, known: Sequence[Site]) -> None:
        super().__init__()
        self.known = known
        self.count = 0
        self.moments: Moments | None = None

    def answer(self, call: Call) -> Tensor:
        """Normalize, or note the moments and stop."""
        if self.count == len(self.known):
            self.moments = call.moments()
            raise Reached
        site = self.known[self.count]
        self.count += 1
        return call.normalized(site.mean, site.variance)


class Adjoint(Intercept):
    """Normalizes by the whole batch, and adds up the pull on the moments.

    Attributes
    ----------
    pulls
        What each site with a known adjoint changes the loss by.
    """

    def __init__(self, sites: Sequence[Site], part: int) -> None:
        super().__init__()
        self.sites = sites
        self.part = part
        self.count = 0
        self.pulls: list[Tensor] = []

    def answer(self, call: Call) -> Tensor:
        """Normalize, and note the pull."""
        if self.count == len(self.sites):
            msg = "The model called BatchNorm more often than before: its flow changes."
            raise InputError(msg)
        site = self.sites[self.count]
        self.count += 1
        if site.adjoint is not None:
            self.pulls.append(site.pull(self.part, call.moments()))
        return call.normalized(site.mean, site.variance)
