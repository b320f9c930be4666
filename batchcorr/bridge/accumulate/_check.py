r"""What gradient accumulation costs a model, by the size of the micro-batch.

With g the gradient of the whole batch and g_p what accumulation over the p-th of P random
partitions gives,

    error of one  = mean_p ‖g_p - g‖ / ‖g‖,
    error of mean = ‖mean_p g_p - g‖ / ‖g‖,     s.e. = √(Σ var_p(g_p) / P) / ‖g‖.

Were the error noise of the partition, its mean would go to zero with the s.e.; where it
does not, accumulation follows the gradient of another function.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from numbers import Integral
from typing import TYPE_CHECKING, Any

from batchcorr.bridge._intercept import Quiet
from batchcorr.bridge._running import seeded
from batchcorr.bridge._torch import torch
from batchcorr.bridge.accumulate._sites import BySites, Site, Whole, require_size
from batchcorr.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor, nn

    from batchcorr.bridge._step import LossFunction

__all__ = ["Cost", "CostAt", "check"]


@dataclass(frozen=True)
class CostAt:
    """What accumulation costs at one micro-batch size, relative to the gradient.

    Parameters
    ----------
    micro_batch_size
        Samples in a micro-batch, at most.
    error
        ‖g_p - g‖ / ‖g‖, mean over partitions.
    systematic
        ‖mean_p g_p - g‖ / ‖g‖.
    standard_error
        What chance alone would leave of `systematic`.

    Examples
    --------
    >>> CostAt(4, error=0.6, systematic=0.3, standard_error=0.04).is_systematic
    True
    """

    micro_batch_size: int
    error: float
    systematic: float
    standard_error: float

    @property
    def is_systematic(self) -> bool:
        """Whether the mean is off by more than two standard errors, and rounding."""
        return self.systematic > max(2 * self.standard_error, 1e-4)


@dataclass(frozen=True)
class Cost:
    """What accumulation costs a model; `str` gives a table.

    Parameters
    ----------
    samples
        Samples in the whole batch.
    partitions
        Random partitions for each size.
    sizes
        One entry for each size of the micro-batch.

    Examples
    --------
    >>> print(Cost(64, 20, (CostAt(4, 0.61, 0.32, 0.04),)))
    Gradient accumulation against the whole batch of 64 samples, 20 random partitions
    micro-batch  error of one  error of mean     s.e.
              4          0.61           0.32     0.04  systematic
    """

    samples: int
    partitions: int
    sizes: tuple[CostAt, ...]

    @property
    def ok(self) -> bool:
        """Whether accumulation gives the gradient of the whole batch, to rounding."""
        return all(at.error < 1e-4 for at in self.sizes)

    def __str__(self) -> str:
        title = (
            f"Gradient accumulation against the whole batch of {self.samples} samples, "
            f"{self.partitions} random partitions"
        )
        lines = [title, "micro-batch  error of one  error of mean     s.e."]
        for at in self.sizes:
            numbers = (
                f"{at.error:12.2g}  {at.systematic:13.2g}  {at.standard_error:7.1g}"
            )
            note = "  systematic" if at.is_systematic else ""
            lines.append(f"{at.micro_batch_size:11d}  {numbers}{note}")
        return "\n".join(lines)


def check(
    model: nn.Module,
    batch: Any,
    loss: LossFunction,
    *,
    micro_batch_sizes: Sequence[int] | int | None = None,
    partitions: int = 20,
    reduction: str = "mean",
) -> Cost:
    r"""Measure what gradient accumulation costs a model.

    Against the gradient of the whole batch, without BatchNorm the difference is rounding;
    with it the gradient is wrong, the more the smaller micro-batches are, and on average.

    Parameters
    ----------
    model
        The model, in training mode; a BatchNorm in evaluation mode costs nothing.
    batch
        The whole batch: tensors, or tuples, lists, mappings and dataclasses of them,
        samples on axis 0. It is run as one, with gradients.
    loss
        `loss(model, batch)`: runs the model on a batch and returns a scalar.
    micro_batch_sizes
        Sizes to try, or one; by default 2, 4, 8, … below the whole. Micro-batches of a
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
    were. In half precision, autocast too, rounding alone makes errors of some thousandths:
    measure in float32.

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
    whole = Whole(model, batch, loss, reduction)
    n, step, everything = whole.n, whole.step, torch.arange(whole.n, device="cpu")
    step.require_training()
    if not isinstance(partitions, Integral) or partitions < 2:
        msg = f"partitions must be a whole number from 2 on, not {partitions!r}."
        raise InputError(msg)
    with step.preserved() as reset:
        with seeded(step.devices), torch.no_grad(), BySites() as own:
            step(batch)
        if n > 1:
            sites = [Site([moments], k) for k, moments in enumerate(own.unknown)]
            whole.require_additive(everything.tensor_split(2), sites)
        rows = min((float(moments.n) for moments in own.unknown), default=math.inf)

        def gradient(parts: Sequence[Tensor]) -> Tensor:
            """The accumulated gradient of all parameters, a vector in float64."""
            total = [
                torch.zeros_like(p).double().cpu() for p in step.parameters.values()
            ]
            for part in parts:
                reset()
                with Quiet():
                    value = whole.loss(part)
                for one, slope in zip(total, step.gradients(value), strict=True):
                    if slope is not None:
                        one.add_(slope.cpu())
            return torch.cat([one.flatten() for one in total])

        aim = gradient([everything])
        if not bool(aim.any()):
            msg = "The gradient of the whole batch is zero: there is no relative error."
            raise InputError(msg)
        sizes = [
            _cost_at(gradient, aim, n, size, partitions)
            for size in _sizes_to_try(micro_batch_sizes, n, rows / n)
        ]
    return Cost(n, partitions, tuple(sizes))


def _cost_at(
    gradient: Callable[[Sequence[Tensor]], Tensor],
    whole: Tensor,
    n: int,
    size: int,
    partitions: int,
) -> CostAt:
    """What one size costs."""
    generator = torch.Generator().manual_seed(size)
    off = torch.zeros_like(whole)
    squares = error = 0.0
    for _ in range(partitions):
        order = torch.randperm(n, generator=generator, device="cpu")
        one = (gradient(order.tensor_split(-(-n // size))) - whole) / whole.norm()
        off += one
        squares += float(one.square().sum())
        error += float(one.norm())
    mean = off / partitions
    variance = max(squares / partitions - float(mean.square().sum()), 0.0)
    return CostAt(
        micro_batch_size=size,
        error=error / partitions,
        systematic=float(mean.norm()),
        standard_error=(variance / (partitions - 1)) ** 0.5,
    )


def _sizes_to_try(sizes: Any, n: int, positions: float) -> list[int]:
    """Sizes that leave every BatchNorm two values per channel at least."""

    def fits(size: int) -> bool:  # the smallest of micro-batches as equal as can be
        return size <= n and n // -(-n // size) * positions >= 2

    powers = [2**k for k in range(1, n.bit_length()) if 2**k < n]
    given = sizes if isinstance(sizes, Iterable) else [sizes]
    tried = list(filter(fits, powers) if sizes is None else given)
    wrong = [size for size in tried if require_size(size, n) and not fits(size)]
    if wrong or not tried:
        msg = (
            f"No micro-batches of {wrong or powers} can be tried with {n} samples: they "
            "are larger than the batch, or leave BatchNorm one value per channel, which "
            "has no variance. Give other sizes, or more samples."
        )
        raise InputError(msg)
    return [int(size) for size in tried]
