r"""Few samples of a new domain: source statistics are biased, its own are noisy.

A channel's mean is off by γ_c ~ N(0, γ²) from the source's, and n samples of variance v
tell it with error v/n. Squared errors, and that of the best mix of the two:

    source γ²,     support v/n,     best γ² v / (n γ² + v)  at  α* = γ² / (γ² + v/n)

Empirical Bayes reads γ² off the channels. ComBat's prior is their variance, which is
γ² + v/n, noise included, so that it trusts the support a little more than is best, by
α = (n γ² + v) / (n γ² + 2 v), and comes close where n γ² > v. With a profile, which knows
the noise, empirical Bayes comes near the best mix at every n.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn

from batchcorr.bridge._profiling import profile
from batchcorr.bridge._recalibrate import recalibrate
from batchcorr.bridge.claims._claim import claim
from batchcorr.bridge.claims._measured import Numbers, near
from batchcorr.bridge.claims._tensors import normal

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["few_shot"]

SIZES = (1, 2, 4, 8, 16, 32)
CHANNELS, PROFILED, SOURCE = 100_000, 400, 256
GAMMA2, VARIANCE = 0.25, 1.0


@claim(
    "With few samples mix source and support; empirical Bayes finds the mix",
    __doc__,
    axes=("samples in the support", "squared error (v = 1)"),
)
def few_shot() -> Numbers:
    """Measure how far statistics of a small support are off, and what mends them.

    Returns
    -------
    Claim
        Squared errors of the running means that `recalibrate` sets, over channels, by
        method and size of the support.

    Examples
    --------
    >>> few_shot().measured["mix_4"].holds
    True
    """
    yield from _empirical_bayes()
    norm, truth = _norm(CHANNELS), GAMMA2**0.5 * normal(CHANNELS)
    for n in SIZES:
        support = truth + VARIANCE**0.5 * normal(n, CHANNELS)
        mixes = {"source": 0.0, "support": 1.0, "best mix": _best(n)}
        combat = (n * GAMMA2 + VARIANCE) / (n * GAMMA2 + 2 * VARIANCE)
        for name, alpha in {**mixes, "combat": combat}.items():
            options: dict[str, Any] = {"method": "mix", "alpha": alpha}
            if name == "combat":
                options = {"method": name}
            error = _error(norm, support, truth, **options)
            expected = (1 - alpha) ** 2 * GAMMA2 + alpha**2 * VARIANCE / n
            # ComBat's shrinkage has a prior of variances too.
            share = 0.1 if name == "combat" else 0.01
            key, what = f"{name.split()[-1]}_{n}", f"squared error, {name}, n = {n}"
            yield key, near(what, error, expected, share, curve=name, at=n)


def _best(n: int) -> float:
    return GAMMA2 / (GAMMA2 + VARIANCE / n)


def _norm(channels: int) -> nn.Sequential:
    """A BatchNorm whose source has mean 0 and variance 1."""
    layer = nn.BatchNorm1d(channels, eps=1e-12, affine=False)
    return nn.Sequential(layer).double().eval()


def _error(
    norm: nn.Sequential, support: Tensor, truth: Tensor, **options: Any
) -> float:
    """The squared error of the means that `recalibrate` sets."""
    with recalibrate(norm, [support], **options):
        return float((norm[0].get_buffer("running_mean") - truth).square().mean())


def _empirical_bayes() -> Numbers:
    """The error of empirical Bayes over that of the best mix: mean over ten supports."""
    norm = _norm(PROFILED)
    known = profile(norm, [normal(SOURCE, PROFILED)])
    for n in SIZES:
        eb = mix = 0.0
        for _ in range(10):
            truth = GAMMA2**0.5 * normal(PROFILED)
            support = truth + VARIANCE**0.5 * normal(n, PROFILED)
            eb += _error(norm, support, truth, method="eb", profile=known)
            mix += _error(norm, support, truth, method="mix", alpha=_best(n))
        what = f"eb over best mix, n = {n}"
        yield f"bayes_{n}", near(what, eb / mix, 1, 0.1)
