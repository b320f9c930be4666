r"""Whether a loss is the mean or the sum over samples: by two partitions of the batch.

With the statistics of every BatchNorm held at those of the whole batch and random layers
still, no sample may know of another. Then

    Σ_m (n_m / N) ℓ(m)   for a mean,      Σ_m ℓ(m)   for a sum,

is the same for every partition into groups m. It is compared for micro-batches, and for
groups of half their size (pairs, where they are single) whose rows lie far apart.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from batchcorr.bridge._torch import torch
from batchcorr.bridge._training.quiet import Quiet
from batchcorr.bridge._training.samples import take
from batchcorr.bridge._training.step import fixed_seed
from batchcorr.bridge.accumulate._mixing import mixing_layer
from batchcorr.bridge.accumulate._sites import Adjoint
from batchcorr.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from batchcorr.bridge._training.step import Step
    from batchcorr.bridge.accumulate._sites import Site

__all__ = ["REDUCTIONS", "require_additive", "weight_of"]

REDUCTIONS = ("mean", "sum")


def weight_of(size: int, n: int, reduction: str) -> float:
    """Return what the loss of `size` of n samples counts for in that of all.

    Raises
    ------
    InputError
        If the reduction is not known.
    """
    if reduction not in REDUCTIONS:
        msg = f"reduction must be 'mean' or 'sum', not {reduction!r}."
        raise InputError(msg)
    return size / n if reduction == "mean" else 1.0


def require_additive(
    step: Step,
    batch: Any,
    parts: Sequence[Tensor],
    sites: Sequence[Site],
    reduction: str,
) -> None:
    """Require that the losses of the parts of a batch add up to one of the whole.

    Raises
    ------
    InputError
        If they do not, or if that cannot be measured because the loss is random.
    """
    n = sum(len(part) for part in parts)
    groups = min(2 * len(parts), n) if len(parts) < n else (n + 1) // 2
    strided = [torch.arange(start, n, groups) for start in range(groups)]
    one = [_value(step, batch, part, sites) for part in parts]
    other = [_value(step, batch, part, sites) for part in strided]
    again = _value(step, batch, parts[0], sites, seed=1)
    if again != one[0]:
        msg = (
            "The loss is random even with dropout held still, by "
            f"{abs(again - one[0].item()):.2g}: draws of its own cannot be told from a "
            "loss that is not additive. Switch that layer off to use this."
        )
        raise InputError(msg)
    agree = {
        kind: _agree(kind, n, (parts, one), (strided, other)) for kind in REDUCTIONS
    }
    if agree[reduction]:
        return
    fitting = [kind for kind in REDUCTIONS if agree[kind]]
    if fitting:
        msg = (
            f"The loss is the {fitting[0]} over the samples, not the {reduction}: give "
            f"reduction={fitting[0]!r}."
        )
        raise InputError(msg)
    totals = [
        float(
            sum(v * weight_of(len(p), n, reduction) for p, v in zip(*pair, strict=True))
        )
        for pair in ((parts, one), (strided, other))
    ]
    layer = mixing_layer(step, batch, parts, sites)
    if layer:
        msg = (
            f"The layer {layer} mixes samples, and is no BatchNorm: what it does with "
            "the whole batch cannot be told from micro-batches, which give "
            f"{totals[0]:.6g} and {totals[1]:.6g} in two partitions. Put a layer in its "
            "place that takes every sample by itself, or a torch.nn.BatchNorm."
        )
        raise InputError(msg)
    msg = (
        f"The loss is not a {reduction} over samples: two partitions of the batch give "
        f"{totals[0]:.6g} and {totals[1]:.6g}. A mean over some of the samples only "
        "(ignore_index), weights that depend on the labels, or a term that compares "
        "samples does that. Use a sum, or normalize by a number that is the same for "
        "every micro-batch."
    )
    raise InputError(msg)


def _agree(
    kind: str,
    n: int,
    *partitions: tuple[Sequence[Tensor], Sequence[Tensor]],
) -> bool:
    """Whether partitions give one total, to half the digits of the loss's dtype."""
    totals, sizes = [], []
    for parts, values in partitions:
        weighted = [
            v.double() * weight_of(len(p), n, kind)
            for p, v in zip(parts, values, strict=True)
        ]
        totals.append(sum(weighted))
        sizes.append(sum(abs(v) for v in weighted))
    allowed = torch.finfo(partitions[0][1][0].dtype).eps ** 0.5
    return bool(abs(totals[0] - totals[1]) <= allowed * max(sizes))


def _value(
    step: Step, batch: Any, part: Tensor, sites: Sequence[Site], seed: int = 0
) -> Tensor:
    with fixed_seed(step.devices, seed), torch.no_grad(), Adjoint(sites, 0), Quiet():
        return step(take(batch, part))
