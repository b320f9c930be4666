r"""What gradient accumulation costs a model, by the size of the micro-batch.

With g the gradient of the whole batch and g_p what accumulation over the p-th of P random
partitions gives,

    error of one  = mean_p ‖g_p - g‖ / ‖g‖,
    error of mean = ‖mean_p g_p - g‖ / ‖g‖,     s.e. = √(Σ var_p(g_p) / P) / ‖g‖.

Were the error noise of the partition, its mean would go to zero with the s.e.; where it
does not, accumulation follows the gradient of another function.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from batchcorr.bridge._torch import torch
from batchcorr.bridge._training.quiet import Quiet
from batchcorr.bridge._training.samples import n_samples, take
from batchcorr.bridge._training.step import (
    Step,
    fixed_seed,
    require_any,
    require_trainable,
    unchanged,
)
from batchcorr.bridge.accumulate._additive import require_additive, weight_of
from batchcorr.bridge.accumulate._cost import Cost, CostAt
from batchcorr.bridge.accumulate._mixing import require_plain_norms
from batchcorr.bridge.accumulate._sites import Survey, site_of
from batchcorr.bridge.accumulate._sizes import sizes_to_try
from batchcorr.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor, nn

    from batchcorr.bridge._training.step import LossFunction

__all__ = ["check"]


def check(
    model: nn.Module,
    batch: Any,
    loss: LossFunction,
    *,
    micro_batch_sizes: Sequence[int] | None = None,
    partitions: int = 20,
    reduction: str = "mean",
) -> Cost:
    r"""Measure what gradient accumulation costs a model.

    The gradient of the whole batch is compared with what accumulation over random
    partitions gives. Without BatchNorm the difference is rounding; with it the gradient
    is wrong by an amount that grows as micro-batches shrink, and on average too.

    Parameters
    ----------
    model
        The model, in training mode; a BatchNorm in evaluation mode costs nothing.
    batch
        The whole batch: tensors, or tuples, lists and mappings of them, samples on
        axis 0. It is run as one, with gradients.
    loss
        `loss(model, batch)`: runs the model on a batch and returns a scalar.
    micro_batch_sizes
        Sizes to try; by default 2, 4, 8, … below the whole. Micro-batches of a
        partition are as equal as can be, and at most this large.
    partitions
        Random partitions for each size, at least 2, always the same ones.
    reduction
        Whether the loss is the `"mean"` or the `"sum"` over the samples.

    Returns
    -------
    Cost
        Errors by size, with a readable `str`.

    Raises
    ------
    InputError
        If the model is in evaluation mode or cannot be taken apart; if the loss is not
        additive; if a size leaves BatchNorm one value per channel.

    Notes
    -----
    Random layers are held still (dropout passes its input on), so that only the
    partition differs. The model, its gradients and the random generators stay as they
    were.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> _ = torch.manual_seed(0)
    >>> model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    >>> def loss(model, batch):
    ...     return model(batch).square().mean()
    >>> cost = check(model, torch.randn(32, 3), loss, micro_batch_sizes=[4, 16])
    >>> cost.sizes[0].error > cost.sizes[1].error > 0.01
    True
    >>> model[1] = nn.LayerNorm(4)
    >>> check(model, torch.randn(32, 3), loss).ok
    True
    """
    whole = _Whole(
        Step(require_trainable(model, loss, batch), loss),
        batch,
        n_samples(batch),
        reduction,
    )
    if not model.training:
        msg = (
            "The model is in evaluation mode, where BatchNorm is frozen and accumulation "
            "costs nothing: call model.train() first."
        )
        raise InputError(msg)
    if (
        isinstance(partitions, bool)
        or not isinstance(partitions, int)
        or partitions < 2
    ):
        msg = f"partitions must be a whole number from 2 on, not {partitions!r}."
        raise InputError(msg)
    weight_of(1, 1, reduction)
    require_plain_norms(model)
    with unchanged(whole.step):
        sizes = sizes_to_try(micro_batch_sizes, whole.n, whole.positions())
        with Quiet():
            gradient = whole.gradient([torch.arange(whole.n)])
            found = tuple(_cost_at(whole, gradient, size, partitions) for size in sizes)
    return Cost(whole.n, partitions, found)


@dataclass(frozen=True)
class _Whole:
    """A batch, and the step it is for."""

    step: Step
    batch: Any
    n: int
    reduction: str

    def positions(self) -> float:
        """Return the fewest values per channel and sample any BatchNorm has.

        The loss is required to be additive on the way.
        """
        survey = Survey()
        with fixed_seed(self.step.devices, 0), torch.no_grad(), survey:
            self.step(self.batch)
        sites = [site_of([own], k) for k, own in enumerate(survey.moments)]
        if self.n > 1:
            halves = torch.arange(self.n).tensor_split(2)
            require_additive(self.step, self.batch, halves, sites, self.reduction)
        return min(
            (float(site.whole.n) / self.n for site in sites), default=float("inf")
        )

    def gradient(self, parts: Sequence[Tensor]) -> Tensor:
        """Return the accumulated gradient of all parameters, a vector in float64."""
        parameters = list(self.step.parameters.values())
        total = [torch.zeros_like(p, dtype=torch.float64) for p in parameters]
        for part in parts:
            loss = self.step(take(self.batch, part))
            weight = weight_of(len(part), self.n, self.reduction)
            found = torch.autograd.grad(loss, parameters, allow_unused=True)
            for k, gradient in enumerate(require_any(found)):
                if gradient is not None:
                    total[k] += weight * gradient
        return torch.cat([values.cpu().flatten() for values in total])


def _cost_at(whole: _Whole, gradient: Tensor, size: int, partitions: int) -> CostAt:
    """Return what one size costs."""
    generator = torch.Generator().manual_seed(size)
    norm = float(gradient.norm())
    if norm == 0:
        msg = "The gradient of the whole batch is zero: there is no relative error."
        raise InputError(msg)
    total, squares, error = torch.zeros_like(gradient), 0.0, 0.0
    for _ in range(partitions):
        order = torch.randperm(whole.n, generator=generator)
        off = (
            whole.gradient(order.tensor_split(-(-whole.n // size))) - gradient
        ) / norm
        total += off
        squares += float(off.square().sum())
        error += float(off.norm())
    mean = total / partitions
    spread = max(squares / partitions - float(mean.square().sum()), 0.0)
    return CostAt(
        micro_batch_size=size,
        error=error / partitions,
        systematic=float(mean.norm()),
        standard_error=(spread / (partitions - 1)) ** 0.5,
    )
