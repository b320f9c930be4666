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
from torch.nn.utils import parameters_to_vector

from batchcorr.arrays.generic import tensor_moments
from batchcorr.bridge._lint.rules import inflation
from batchcorr.bridge._torch import torch
from batchcorr.bridge.accumulate import check, exact
from batchcorr.bridge.claims._claim import claim
from batchcorr.bridge.claims._measured import Numbers, near, reported, zero
from batchcorr.bridge.claims._tensors import classify, normal, relative

if TYPE_CHECKING:
    from torch import Tensor

    from batchcorr.bridge.accumulate import Cost

__all__ = ["accumulation"]

SAMPLES, SIZES = 64, (2, 4, 8, 16, 32)


@claim(
    "Accumulated gradients through BatchNorm are biased, not just noisy",
    __doc__,
    axes=("samples in a micro-batch, of 64", "relative error of the gradient"),
)
def accumulation(*, partitions: int = 200) -> Numbers:
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
    batch = normal(SAMPLES, 8), torch.randint(10, (SAMPLES,))
    net, sizes = _net(nn.BatchNorm1d(32)), list(SIZES)
    cost = check(net, batch, classify, micro_batch_sizes=sizes, partitions=partitions)
    others = {"none": nn.Identity(), "LayerNorm": nn.LayerNorm(32)}
    for name, norm in {**others, "GroupNorm": nn.GroupNorm(4, 32)}.items():
        free = check(_net(norm), batch, classify, partitions=2)
        error = max(at.error for at in free.sizes)
        yield f"without_{name}", zero(f"gradient error, norm: {name}", error, 1e-12)
    what = "exact accumulation, micro-batches of 4"
    yield "remedy", zero(what, _remedy(net, batch), 1e-12)
    yield from _statistics()
    yield from _by_size(cost)


def _net(norm: nn.Module) -> nn.Module:
    layers = (nn.Linear(8, 32), norm, nn.ReLU(), nn.Linear(32, 10))
    return nn.Sequential(*layers).double()


def _remedy(net: nn.Module, batch: tuple[Tensor, Tensor]) -> float:
    """The error of adjoint accumulation."""
    whole = torch.autograd.grad(classify(net, batch), list(net.parameters()))
    exact(net, batch, classify, 4)
    ours = [p.grad for p in net.parameters() if p.grad is not None]
    return relative(parameters_to_vector(ours), parameters_to_vector(whole))


def _statistics() -> Numbers:
    """Running mean after 16 updates; variance and inverse sd of 100,000 micro-batches."""
    norm, x = nn.BatchNorm1d(4, momentum=0.1).double(), normal(4, 4) + 3
    for _ in range(16):
        norm(x)
    way = (norm.get_buffer("running_mean") / x.mean(0)).mean()
    what = "way of the running mean in 16 updates"
    yield "running", near(what, way, 1 - 0.9**16, 1e-9)
    for m in SIZES:
        variance = tensor_moments(normal(m, 100_000)).variance()
        mean, what = variance.mean(), f"E[var]/σ², micro-batch {m}"
        yield f"variance_{m}", near(what, mean, 1 - 1 / m, 0.01)
        if m > 2:  # infinite for 2
            inverse, what = (1 / variance.sqrt()).mean(), f"E[σ/sd], micro-batch {m}"
            yield f"inverse_{m}", near(what, inverse, 1 + inflation(m), 0.01)


def _by_size(cost: Cost) -> Numbers:
    """The errors of the gradient by micro-batch size.

    How large they are depends on network and batch. That they do not average out is
    judged: noise would leave a mean of about one standard error.
    """
    for at in cost.sizes:
        m, chance = at.micro_batch_size, at.standard_error
        curves = {  # name, what, value
            "one partition": ("one", f"gradient error, micro-batch {m}", at.error),
            "mean over partitions": (
                "mean",
                "… of the mean over partitions",
                at.systematic,
            ),
            "if it were noise": ("chance", "… its standard error", chance),
        }
        for curve, (name, what, value) in curves.items():
            yield f"{name}_{m}", reported(what, value, curve=curve, at=m)
        if m > 2:  # with 2 the variance of a gradient is infinite
            what = f"s.e. over the mean error, micro-batch {m}"
            yield f"noise_{m}", zero(what, chance / at.systematic, 0.5)
