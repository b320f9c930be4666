r"""Whether a batch can be taken apart: no sample may know of another.

With the statistics of every BatchNorm held at those of the whole batch and random layers
still,

    Σ_m (n_m / N) ℓ(m)   for a mean,      Σ_m ℓ(m)   for a sum,

is the same for every partition into groups m. It is compared for micro-batches, and for
groups of half their size (pairs, where they are single) whose rows lie far apart.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from batchcorr.bridge._batches import take
from batchcorr.bridge._intercept import Quiet
from batchcorr.bridge._running import seeded
from batchcorr.bridge._torch import torch
from batchcorr.bridge.accumulate._sites import BySites
from batchcorr.bridge.nn._combat_norm import ComBatNorm
from batchcorr.bridge.nn._domain_norm import DomainBatchNorm
from batchcorr.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor, nn

    from batchcorr.bridge._step import Step
    from batchcorr.bridge.accumulate._sites import Site

__all__ = ["require_additive", "require_separable", "require_size", "weight_of"]

REDUCTIONS = ("mean", "sum")
OTHERS = (torch.nn.SyncBatchNorm, ComBatNorm, DomainBatchNorm)


def require_size(size: object, n: int) -> int:
    """A micro-batch size, at most that of the batch."""
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        msg = f"A micro-batch has a whole number of samples, at least 1, not {size!r}."
        raise InputError(msg)
    return min(size, n)


def weight_of(size: int, n: int, reduction: str) -> float:
    """What the loss of `size` of n samples counts for in that of all."""
    if reduction not in REDUCTIONS:
        msg = f"reduction must be 'mean' or 'sum', not {reduction!r}."
        raise InputError(msg)
    return size / n if reduction == "mean" else 1.0


def require_separable(model: nn.Module) -> None:
    """Refuse layers that normalize by the batch, and not as BatchNorm does."""
    for name, module in model.named_modules():
        if module.training and isinstance(module, OTHERS):
            msg = (
                f"The layer {name or 'model'!r} is a {type(module).__name__}, which "
                "mixes samples otherwise than BatchNorm: what it does with the whole "
                "batch cannot be told from micro-batches. Put a torch.nn.BatchNorm in "
                "its place, or freeze it with .eval()."
            )
            raise InputError(msg)


def require_additive(
    step: Step,
    batch: Any,
    parts: Sequence[Tensor],
    sites: Sequence[Site],
    reduction: str,
) -> None:
    """Require that the losses of the parts of a batch add up to one of the whole."""
    n = sum(len(part) for part in parts)
    groups = min(2 * len(parts), n) if len(parts) < n else (n + 1) // 2
    strided = [torch.arange(start, n, groups) for start in range(groups)]

    def value(rows: Tensor, seed: int = 0) -> float:
        with seeded(step.devices, seed), torch.no_grad(), BySites(sites), Quiet():
            return float(step(take(batch, rows)))

    partitions = [[(len(p), value(p)) for p in some] for some in (parts, strided)]
    off = abs(value(parts[0], seed=1) - partitions[0][0][1])
    if off:
        msg = (
            f"The loss is random even with dropout held still, by {off:.2g}: draws of "
            "its own cannot be told from a loss that is not additive. Switch that layer "
            "off to use this."
        )
        raise InputError(msg)
    allowed = torch.finfo(next(step.model.parameters()).dtype).eps ** 0.5

    def totals(kind: str) -> tuple[float, float, bool]:
        """Two partitions' losses of the whole batch, and whether they agree."""
        one, other = (
            [weight_of(size, n, kind) * loss for size, loss in some]
            for some in partitions
        )
        agree = abs(sum(one) - sum(other)) <= allowed * sum(map(abs, one))
        return sum(one), sum(other), agree

    one, other, agree = totals(reduction)
    if agree:
        return
    msg = (
        f"The loss is not the {reduction} over samples: two partitions of the batch give "
        f"{one:.6g} and {other:.6g}."
    )
    (alternative,) = set(REDUCTIONS) - {reduction}
    if totals(alternative)[2]:
        msg += f" It is the {alternative} over them: give reduction={alternative!r}."
    else:
        msg += (
            " A mean over some of the samples only (ignore_index), weights that depend "
            "on the labels, a term that compares samples, or a layer other than "
            "BatchNorm that mixes them does that. Use a sum, or normalize by a number "
            "that is the same for every micro-batch; put layers in place that take "
            "every sample by itself."
        )
    raise InputError(msg)
