r"""Gradient accumulation is exact without BatchNorm, and systematically wrong with it.

Each micro-batch of m is normalized by statistics of its own. Their mean is right and
their variance is not, and its inverse root less so: for normal values

    E[var_m] / σ² = 1 - 1/m,     E[σ / sd_m] = √(m/2) Γ((m-2)/2) / Γ((m-1)/2)

so the error does not average out over partitions. Running statistics move K times a
batch, by 1 - (1 - momentum)^K of the way. `accumulate.exact` undoes it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from batchcorr.arrays.generic import tensor_moments
from batchcorr.bridge._lint.rules import inflation
from batchcorr.bridge._torch import torch
from batchcorr.bridge.accumulate import check, exact
from batchcorr.bridge.claims._claim import Claim
from batchcorr.bridge.claims._measured import Measured, near, reported, zero
from batchcorr.bridge.claims._tensors import classify, mlp, normal, relative, seeded

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from batchcorr.bridge.accumulate import Cost

__all__ = ["accumulation"]

SAMPLES, SIZES = 64, (2, 4, 8, 16, 32)
WITHOUT: dict[str, Callable[[int], nn.Module]] = {
    "none": lambda _: nn.Identity(),
    "LayerNorm": nn.LayerNorm,
    "GroupNorm": lambda channels: nn.GroupNorm(4, channels),
}


@seeded
def accumulation(*, partitions: int = 200) -> Claim:
    """Measure what gradient accumulation does to a network with BatchNorm.

    Parameters
    ----------
    partitions
        Random partitions of the batch for each size; fewer are faster, and may fail.

    Returns
    -------
    Claim
        Errors of the gradient by the size of the micro-batch, the statistics behind
        them, and the exact remedy.

    Examples
    --------
    >>> accumulation(partitions=5).measured["remedy"].holds
    True
    """
    batch, measured = (normal(SAMPLES, 8), torch.randint(10, (SAMPLES,))), {}
    net = mlp(8, 32, 10)
    sizes = list(SIZES)
    cost = check(net, batch, classify, micro_batch_sizes=sizes, partitions=partitions)
    for name, norm in WITHOUT.items():
        free = check(mlp(8, 32, 10, norm=norm), batch, classify, partitions=2)
        what, error = (
            f"gradient error, norm: {name}",
            max(at.error for at in free.sizes),
        )
        measured[f"without_{name}"] = zero(what, error, 1e-12)
    remedy = _remedy(net, batch)
    measured["remedy"] = zero("exact accumulation, micro-batches of 4", remedy, 1e-12)
    return Claim(
        name="accumulation",
        title="Accumulated gradients through BatchNorm are biased, not just noisy",
        statement=__doc__ or "",
        measured={**measured, **_statistics(), **_errors(cost)},
        axes=("samples in a micro-batch, of 64", "relative error of the gradient"),
    )


def _errors(cost: Cost) -> dict[str, Measured]:
    """The errors of the gradient by micro-batch size.

    How large they are depends on network and batch. That they do not average out is
    judged: noise would leave a mean of about one standard error.
    """
    measured: dict[str, Measured] = {}
    for at in cost.sizes:
        m, noise = at.micro_batch_size, at.standard_error / at.systematic
        one = reported(f"gradient error, micro-batch {m}", at.error)
        mean = reported("… of the mean over partitions", at.systematic)
        chance = reported("… its standard error", at.standard_error)
        measured[f"one_{m}"] = one.on("one partition", m)
        measured[f"mean_{m}"] = mean.on("mean over partitions", m)
        measured[f"chance_{m}"] = chance.on("if it were noise", m)
        if m > 2:  # with 2 the variance of a gradient is infinite
            what = f"s.e. over the mean error, micro-batch {m}"
            measured[f"noise_{m}"] = zero(what, noise, 0.5)
    return measured


def _statistics() -> dict[str, Measured]:
    """Running mean after 16 updates; variance and inverse sd of 100,000 micro-batches."""
    norm, x = nn.BatchNorm1d(4, momentum=0.1).double(), normal(4, 4) + 3
    for _ in range(16):
        norm(x)
    way = float((norm.get_buffer("running_mean") / x.mean(0)).mean())
    what = "way of the running mean in 16 updates"
    measured = {"running": near(what, way, 1 - 0.9**16, 1e-9)}
    for m in SIZES:
        variance = tensor_moments(normal(m, 100_000)).variance()
        what = f"E[var]/σ², micro-batch {m}"
        measured[f"variance_{m}"] = near(what, float(variance.mean()), 1 - 1 / m, 0.01)
        if m > 2:  # infinite for 2
            inverse = float((1 / variance.sqrt()).mean())
            what = f"E[σ/sd], micro-batch {m}"
            measured[f"inverse_{m}"] = near(what, inverse, 1 + inflation(m), 0.01)
    return measured


def _remedy(net: nn.Module, batch: tuple[Tensor, Tensor]) -> float:
    """The error of adjoint accumulation."""

    def gradient() -> Tensor:
        found = [p.grad.flatten() for p in net.parameters() if p.grad is not None]
        net.zero_grad()
        return torch.cat(found)

    net.zero_grad()
    classify(net, batch).backward()  # type: ignore[no-untyped-call]
    whole = gradient()
    exact(net, batch, classify, 4)
    return relative(gradient(), whole)
