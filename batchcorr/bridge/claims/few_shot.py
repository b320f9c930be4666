r"""Few samples of a new domain: source statistics are biased, its own are noisy.

A channel's mean is off by γ_c ~ N(0, γ²) from the source's, and n samples of variance v
tell it with error v/n. Squared errors, and that of the best mix of the two:

    source γ²,     support v/n,     best γ² v / (n γ² + v)  at  α* = γ² / (γ² + v/n)

Empirical Bayes reads γ² off the channels. ComBat's prior is their variance, which is
γ² + v/n, noise included, so that it trusts the support a little more than is best,

    α = (n γ² + v) / (n γ² + 2 v)

and comes close where n γ² > v. A prior that knows the noise (`channel_shrinkage`) finds
the best mix at every n, without being told γ².
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from batchcorr.arrays.generic import tensor_moments
from batchcorr.bridge._shrink import shrunken_statistics
from batchcorr.bridge._torch import torch
from batchcorr.bridge.claims._figures import (
    BLUE,
    GREEN,
    GREY,
    VERMILION,
    label,
    panel,
)
from batchcorr.bridge.claims._networks import normal, seeded
from batchcorr.bridge.claims._result import Claim, near
from batchcorr.models.channel_shrinkage import best_mix, location_posterior

if TYPE_CHECKING:
    from collections.abc import Mapping

    from matplotlib.figure import Figure
    from torch import Tensor

__all__ = ["few_shot"]

SIZES = [1, 2, 4, 8, 16, 32]
CHANNELS, FEWER = 200_000, 20_000
GAMMA2, VARIANCE = 0.25, 1.0
NAMES = {
    "source": "source",
    "support": "support",
    "mix": "best mix",
    "combat": "ComBat's empirical Bayes",
}


@seeded
def few_shot() -> Claim:
    """Measure how far statistics of a small support are off, and what mends them.

    Returns
    -------
    Claim
        Squared errors of the source's means, the support's, the best mix of both, and
        ComBat's empirical Bayes, by the size of the support; Monte Carlo over 100,000
        channels beside the formulas; and where empirical Bayes with a known noise lands.

    Examples
    --------
    >>> few_shot().measured["mix_4"].holds
    True
    """
    predicted = {name: [_predict(name, n) for n in SIZES] for name in NAMES}
    found: dict[str, list[float]] = {name: [] for name in [*NAMES, "bayes"]}
    for n in SIZES:
        for name, error in _errors(n).items():
            found[name].append(error)
    measured = {
        f"{name}_{n}": near(
            f"squared error, {NAMES[name]}, n = {n}",
            value,
            wanted,
            0.1 if name == "combat" else 0.01,  # its prior of variances is left out
        )
        for name in NAMES
        for n, value, wanted in zip(SIZES, found[name], predicted[name], strict=True)
    }
    measured |= {
        f"bayes_{n}": near(
            f"error of empirical Bayes over that of the best mix, n = {n}",
            ratio,
            1,
            0.01,
        )
        for n, ratio in zip(SIZES, found["bayes"], strict=True)
    }
    return Claim(
        name="few_shot",
        title="With few samples mix source and support; empirical Bayes finds the mix",
        statement=(
            "The source's statistics are biased by γ², the support's have variance "
            "v/n; the best mix has γ²v/(nγ² + v). Empirical Bayes over channels finds it "
            "without knowing γ²; ComBat's comes close."
        ),
        measured=measured,
        series={"found": found, "predicted": predicted},
        draw=_draw,
    )


def _share(name: str, n: int) -> float:
    """Return the share α of the support in each estimate."""
    gamma2, v = (
        torch.tensor(value, dtype=torch.float64) for value in (GAMMA2, VARIANCE)
    )
    if name == "mix":
        return float(best_mix(gamma2, v, n))
    combat = (n * GAMMA2 + VARIANCE) / (n * GAMMA2 + 2 * VARIANCE)
    return {"source": 0.0, "support": 1.0, "combat": combat}[name]


def _predict(name: str, n: int) -> float:
    alpha = _share(name, n)
    return (1 - alpha) ** 2 * GAMMA2 + alpha**2 * VARIANCE / n


def _errors(n: int) -> dict[str, float]:
    """Return the mean squared error over channels of each estimate.

    Of empirical Bayes the ratio to the best mix, on a part of the channels.
    """
    truth = GAMMA2**0.5 * normal(CHANNELS)
    moments = tensor_moments(truth + VARIANCE**0.5 * normal(n, CHANNELS))
    support, alpha = moments.mean[0], _share("mix", n)
    source = torch.zeros_like(truth)
    shrunken, _ = shrunken_statistics(moments, source, torch.full_like(truth, VARIANCE))

    mix = (1 - alpha) * source + alpha * support
    noise = np.full(FEWER, VARIANCE / n)
    bayes, _ = location_posterior(support[:FEWER].numpy(), noise, FEWER)

    def error(estimate: Tensor) -> float:
        return float((estimate - truth[: len(estimate)]).square().mean())

    return {
        "source": error(source),
        "support": error(support),
        "mix": error(mix),
        "combat": error(shrunken[0]),
        "bayes": error(torch.as_tensor(bayes)) / error(mix[:FEWER]),
    }


def _draw(figure: Figure, series: Mapping[str, Any]) -> None:
    """Draw the squared errors by the size of the support."""
    axes = panel(
        figure.subplots(), x="samples in the support", y="squared error (v = 1)"
    )
    places: dict[str, tuple[str, int, dict[str, Any]]] = {
        "source": (GREY, 5, {"xytext": (0, 5), "ha": "right"}),
        "support": (VERMILION, 0, {}),
        "mix": (BLUE, 1, {"xytext": (-4, -9), "ha": "center"}),
        "combat": (GREEN, 0, {"xytext": (4, 6)}),
    }
    for name, (colour, at, where) in places.items():
        axes.plot(SIZES, series["predicted"][name], color=colour)
        axes.plot(SIZES, series["found"][name], "o", color=colour)
        text = NAMES[name].partition("'")[0]
        label(axes, text, (SIZES[at], series["found"][name][at]), colour, **where)
    ratios = zip(series["found"]["bayes"], series["found"]["mix"], strict=True)
    bayes = [ratio * mix for ratio, mix in ratios]
    axes.plot(SIZES, bayes, "o", color=BLUE, fillstyle="none", markersize=7)
    axes.text(1, 0.055, "○ empirical Bayes,\n   noise known", color=BLUE)
    axes.set(xscale="log", yscale="log")
    axes.set_xticks(SIZES, [str(n) for n in SIZES])
    axes.set_yticks([0.03, 0.1, 0.3, 1], ["0.03", "0.1", "0.3", "1"])
    axes.minorticks_off()
