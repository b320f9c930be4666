r"""Gradient accumulation is exact without BatchNorm, and systematically wrong with it.

Each micro-batch of m is normalized by statistics of its own. Their mean is right and
their variance is not, and its inverse root less so: for normal values

    E[var_m] / σ² = 1 - 1/m,     E[σ / sd_m] = √(m/2) Γ((m-2)/2) / Γ((m-1)/2)

so the error does not average out over partitions. Running statistics move K times a
batch, by 1 - (1 - momentum)^K of the way. What BatchNorm mixes can be unmixed: one pass
per layer for statistics and one for their adjoints give the gradient of the whole batch
in the memory of a micro-batch.
"""

from __future__ import annotations

from math import exp, lgamma, sqrt
from typing import TYPE_CHECKING, Any

from torch import nn

from batchcorr.arrays.generic import tensor_moments
from batchcorr.bridge._torch import torch
from batchcorr.bridge.accumulate import check, exact
from batchcorr.bridge.claims._figures import BLUE, GREY, VERMILION, label, panel
from batchcorr.bridge.claims._networks import mlp, normal, relative, seeded
from batchcorr.bridge.claims._result import Claim, Measured, near, zero

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from matplotlib.figure import Figure
    from torch import Tensor

    from batchcorr.bridge.accumulate import Cost

__all__ = ["accumulation"]

SAMPLES = 64
ONE = {2: 3.17, 4: 0.61, 8: 0.36, 16: 0.24, 32: 0.15}
MEAN = {2: 0.73, 4: 0.32, 8: 0.17, 16: 0.10, 32: 0.063}
CHANCE = {2: 0.25, 4: 0.037, 8: 0.023, 16: 0.016, 32: 0.010}
EXACT_NORMS: dict[str, Callable[[int], nn.Module]] = {
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
        Errors of the gradient by the size of the micro-batch, of one partition and of
        the mean over all; the statistics behind them; the exact remedy.

    Examples
    --------
    >>> accumulation(partitions=5).measured["remedy"].holds
    True
    """
    batch = normal(SAMPLES, 8), torch.randint(10, (SAMPLES,))
    net = mlp(8, 32, 10)
    cost = check(net, batch, _loss, micro_batch_sizes=list(ONE), partitions=partitions)
    return Claim(
        name="accumulation",
        title="Accumulated gradients through BatchNorm are biased, not just noisy",
        statement=(
            "Without BatchNorm, accumulating gradients over micro-batches is exact. With "
            "it the gradient is wrong, the more the smaller the micro-batch, and the "
            "mean over partitions is wrong too. Adjoint accumulation is exact."
        ),
        measured={
            **_without(batch),
            **_errors(cost),
            **_statistics(),
            "running": _running(),
            "remedy": zero(
                "exact accumulation, micro-batches of 4", _remedy(net, batch), 1e-12
            ),
        },
        series={
            "sizes": list(ONE),
            "one": [at.error for at in cost.sizes],
            "mean": [at.systematic for at in cost.sizes],
            "se": [at.standard_error for at in cost.sizes],
        },
        draw=_draw,
    )


def _loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    x, y = batch
    return nn.functional.cross_entropy(model(x), y)


def _without(batch: tuple[Tensor, Tensor]) -> dict[str, Measured]:
    """Measure accumulation where samples do not meet."""
    found = {}
    for name, norm in EXACT_NORMS.items():
        cost = check(mlp(8, 32, 10, norm=norm), batch, _loss, partitions=2)
        error = max(at.error for at in cost.sizes)
        found[f"without_{name}"] = zero(f"gradient error, norm: {name}", error, 1e-12)
    return found


def _errors(cost: Cost) -> dict[str, Measured]:
    """Judge the errors of the gradient by micro-batch size."""
    found: dict[str, Measured] = {}
    for at in cost.sizes:
        m = at.micro_batch_size
        found |= {
            f"one_{m}": near(
                f"gradient error, BatchNorm, micro-batch {m}", at.error, ONE[m], 0.3
            ),
            f"mean_{m}": near(
                "… of the mean over partitions", at.systematic, MEAN[m], 0.3
            ),
            f"chance_{m}": near(
                "… its standard error", at.standard_error, CHANCE[m], 0.4
            ),
        }
    return found


def _statistics() -> dict[str, Measured]:
    """Measure mean variance and inverse sd of 100,000 micro-batches of each size."""
    found = {}
    for m in ONE:
        moments = tensor_moments(normal(m, 100_000))
        variance = moments.squares[0] / m
        found[f"variance_{m}"] = near(
            f"E[var]/σ², micro-batch {m}", float(variance.mean()), 1 - 1 / m, 0.01
        )
        if m > 2:  # infinite for 2
            inverse = float((1 / variance.sqrt()).mean())
            found[f"inverse_{m}"] = near(
                f"E[σ/sd], micro-batch {m}", inverse, _expected_inverse(m), 0.01
            )
    return found


def _expected_inverse(m: int) -> float:
    return sqrt(m / 2) * exp(lgamma((m - 2) / 2) - lgamma((m - 1) / 2))


def _running() -> Measured:
    """Measure how far running statistics go towards 16 like micro-batches."""
    norm, x = nn.BatchNorm1d(4, momentum=0.1).double(), normal(4, 4) + 3
    for _ in range(16):
        norm(x)
    assert norm.running_mean is not None
    way = float((norm.running_mean / x.mean(0)).mean())
    what = "way of the running mean in 16 updates, momentum 0.1"
    return near(what, way, 1 - 0.9**16, 1e-9)


def _remedy(net: nn.Module, batch: tuple[Tensor, Tensor]) -> float:
    """Return the error of adjoint accumulation."""
    net.zero_grad()
    _loss(net, batch).backward()  # type: ignore[no-untyped-call]
    whole = _gradient(net)
    net.zero_grad()
    exact(net, batch, _loss, 4)
    return relative(_gradient(net), whole)


def _gradient(net: nn.Module) -> Tensor:
    return torch.cat([p.grad.flatten() for p in net.parameters() if p.grad is not None])


def _draw(figure: Figure, series: Mapping[str, Any]) -> None:
    """Draw the errors of the gradient by micro-batch size."""
    axes = panel(
        figure.subplots(),
        x="samples in a micro-batch, of 64",
        y="relative error of the gradient",
    )
    sizes = series["sizes"]
    axes.plot(sizes, series["one"], "o-", color=VERMILION)
    label(axes, "one partition", (sizes[1], series["one"][1]), VERMILION, xytext=(6, 5))
    axes.errorbar(
        sizes,
        series["mean"],
        yerr=[2 * se for se in series["se"]],
        fmt="o-",
        color=BLUE,
    )
    label(
        axes,
        "mean over partitions",
        (sizes[1], 0.085),
        BLUE,
    )
    axes.plot(sizes, series["se"], color=GREY, linestyle=(0, (4, 2)), linewidth=0.8)
    label(axes, "if it were noise", (sizes[2], series["se"][2]), GREY, xytext=(0, 6))
    axes.set(xscale="log", yscale="log")
    axes.set_xticks(sizes, [str(m) for m in sizes])
    axes.set_yticks([0.01, 0.1, 1], ["0.01", "0.1", "1"])
    axes.minorticks_off()
