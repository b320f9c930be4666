r"""Before BatchNorm the length of a weight is not a parameter but a learning rate.

    f(a W) = f(W),    ∇f(a W) = ∇f(W) / a,    ⟨W, ∇f(W)⟩ = 0,    BN_ε(a W) = BN_{ε/a²}(W)

so that weight decay does not regularize: it keeps the length, and with it the speed of
turning, in balance. SGD with learning rate η and decay λ walks through the same
directions as SGD without decay at the rate η ρ^-(2t+1), ρ = 1 - η λ. In balance a step
turns a weight by the angle √(2 η λ) √((1 - β) / (1 + β)), β the momentum.
"""

from __future__ import annotations

from math import sqrt
from typing import TYPE_CHECKING, Any

from torch import nn
from torch.nn.functional import batch_norm, cross_entropy

from batchcorr.bridge._torch import torch
from batchcorr.bridge.claims import _optimizers as runs
from batchcorr.bridge.claims._figures import BLUE, GREY, VERMILION, label, panel
from batchcorr.bridge.claims._networks import normal, relative, seeded
from batchcorr.bridge.claims._result import Claim, Measured, near, zero

if TYPE_CHECKING:
    from collections.abc import Mapping

    from matplotlib.figure import Figure
    from torch import Tensor

__all__ = ["scale_invariance"]

# optimizer, learning rate η, decay λ, momentum β
SETTINGS = [
    ("SGD", 0.1, 0.1, 0.0),
    ("SGD", 0.1, 0.1, 0.9),
    ("SGD", 0.1, 0.05, 0.9),
    ("AdamW", 0.01, 0.5, 0.0),
    ("AdamW", 0.01, 0.5, 0.9),
    ("AdamW", 0.02, 0.5, 0.9),
]
STEPS, BALANCED = 500, 300
SCALES = [0.1, 1.0, 10.0, 100.0]


@seeded
def scale_invariance() -> Claim:
    """Measure what the length of a weight before BatchNorm means.

    Returns
    -------
    Claim
        Invariance with and without ε, the growing learning rate that decay amounts to,
        the angle of a step in balance, and decay inside and outside of Adam.

    Examples
    --------
    >>> scale_invariance().measured["orthogonal"].holds
    True
    """
    angles = {setting: _angles(*setting) for setting in SETTINGS}
    ratios = {
        setting: float(turned[BALANCED:].pow(2).mean().sqrt()) / _balance(*setting[1:])
        for setting, turned in angles.items()
    }
    gone = {
        "AdamW": runs.decays(torch.optim.AdamW, SCALES),
        "Adam + L2": runs.decays(torch.optim.Adam, SCALES),
    }
    first, second = SETTINGS[0], SETTINGS[4]
    return Claim(
        name="scale_invariance",
        title="Before BatchNorm weight decay sets how fast weights turn",
        statement=(
            "Scaling a weight before BatchNorm changes nothing but the size of its "
            "gradient, to which it is orthogonal. Weight decay is a growing learning "
            "rate, and turns weights by √(2ηλ) a step. In Adam, decay inside the "
            "gradient depends on the gradients' history; AdamW's does not."
        ),
        measured={**_laws(), **_paths(), **_turns(ratios), **_decay(gone)},
        series={
            "angles": {
                f"{name}, β = {beta:g}": (
                    angles[name, rate, decay, beta].mean(dim=1).tolist(),
                    _balance(rate, decay, beta),
                )
                for name, rate, decay, beta in (first, second)
            },
            "gone": gone,
        },
        draw=_draw,
    )


def _laws() -> dict[str, Measured]:
    """Measure the identities at one weight."""
    x, y, weight = normal(64, 8), torch.randint(16, (64,)), 1.3 * normal(16, 8)
    a, eps = 0.01, 1e-5

    def out(w: Tensor, eps: float) -> Tensor:
        return batch_norm(x @ w.T, None, None, training=True, eps=eps)

    def gradient(w: Tensor) -> Tensor:
        w = w.clone().requires_grad_()
        loss = cross_entropy(out(w, runs.NO_EPS), y)
        (g,) = torch.autograd.grad(loss, w)
        return g

    g = gradient(weight)
    cosine = (weight * g).sum() / (weight.norm() * g.norm())
    exact = relative(out(a * weight, eps), out(weight, eps / a**2))
    naive = cross_entropy(out(a * weight, eps), y) - cross_entropy(out(weight, eps), y)
    same = relative(out(a * weight, runs.NO_EPS), out(weight, runs.NO_EPS))
    return {
        "output": zero("f(aW) = f(W), a = 0.01", same, 1e-12),
        "gradient": zero(
            "a g(aW) = g(W)", relative(a * gradient(a * weight), g), 1e-12
        ),
        "orthogonal": zero("cosine of W and g(W)", float(cosine), 1e-12),
        "eps_law": zero("with ε: BN_ε(aW) = BN_{ε/a²}(W)", exact, 1e-12),
        "eps_naive": near(
            "with ε: change of the loss at a = 0.01", abs(naive.item()), 4e-3, 0.5
        ),
    }


def _paths() -> dict[str, Measured]:
    """Measure how far SGD with decay and SGD with a growing rate go apart."""
    apart = {}
    for norm in (True, False):
        with_decay = runs.path(norm=norm, growing=False)
        growing = runs.path(norm=norm, growing=True)
        apart[norm] = float((with_decay - growing).flatten(1).norm(dim=1).max())
    return {
        "growing_rate": zero(
            "directions: decay against growing rate, 200 steps of SGD",
            apart[True],
            1e-12,
        ),
        "growing_rate_plain": near("… without BatchNorm", apart[False], 0.145, 0.3),
    }


def _angles(name: str, rate: float, decay: float, beta: float) -> Tensor:
    """Return the angles of every step and row in one setting."""
    torch.manual_seed(0)
    weight = nn.Parameter(normal(16, 64) / sqrt(64))
    optimizer: torch.optim.Optimizer
    if name == "AdamW":
        optimizer = torch.optim.AdamW(
            [weight], rate, betas=(beta, 0.99), weight_decay=decay
        )
    else:
        optimizer = torch.optim.SGD(
            [weight], rate, momentum=beta, dampening=beta, weight_decay=decay
        )
    return runs.rotation(optimizer, weight, STEPS)


def _balance(rate: float, decay: float, beta: float) -> float:
    """Return the angle of a step in balance."""
    return sqrt(2 * rate * decay * (1 - beta) / (1 + beta))


def _turns(ratios: dict[tuple[str, float, float, float], float]) -> dict[str, Measured]:
    found = {
        f"angle_{i}": near(
            f"angle over its prediction: {name}, η = {rate:g}, λ = {decay:g}, "
            f"β = {beta:g}",
            ratio,
            1.0,
            0.05,
        )
        for i, ((name, rate, decay, beta), ratio) in enumerate(ratios.items(), start=1)
    }
    rows = {
        kind.__name__: runs.row_rotation(kind)
        for kind in (torch.optim.AdamW, torch.optim.Adam)
    }
    found["rows_adamw"] = near(
        "AdamW: rows with 33× smaller gradients turn faster by", rows["AdamW"], 1, 1e-4
    )
    found["rows_adam"] = near("Adam + L2: … faster by", rows["Adam"], 3.37, 0.08)
    return found


def _decay(gone: dict[str, list[float]]) -> dict[str, Measured]:
    """Judge what decay took, by the scale of the gradients."""
    spread = max(gone["AdamW"]) - min(gone["AdamW"])
    found = {
        "adamw_same": zero(
            "AdamW: 1 - w differs over gradient scales by", spread, 1e-6
        ),
        "adamw": Measured("AdamW: 1 - w", gone["AdamW"][0], 0.183, 0.005),
    }
    for scale, value, expected in zip(
        SCALES, gone["Adam + L2"], (0.810, 0.182, 0.0215, 0.0038), strict=True
    ):
        what = f"Adam + L2: 1 - w, gradients of scale {scale:g}"
        found[f"adam_{scale:g}"] = Measured(what, value, expected, 0.003)
    return found


def _draw(figure: Figure, series: Mapping[str, Any]) -> None:
    """Draw how turning comes to balance, and what decay took by gradient scale."""
    figure.set_size_inches(figure.get_figwidth(), 3.8)
    upper, lower = figure.subplots(2, 1)
    panel(upper, x="step", y="angle of a step (rad)")
    for colour, (name, (angles, balance)) in zip(
        (BLUE, VERMILION), series["angles"].items(), strict=True
    ):
        upper.plot(range(1, len(angles) + 1), angles, color=colour, linewidth=0.8)
        upper.axhline(balance, color=GREY, linewidth=0.8, linestyle=(0, (4, 2)))
        above = {"xytext": (0, 8), "ha": "right"}
        label(upper, name, (len(angles), balance), colour, **above)
    upper.set(yscale="log", ylim=(0.01, 0.3))
    upper.set_yticks([0.01, 0.03, 0.1, 0.3], ["0.01", "0.03", "0.1", "0.3"])
    upper.minorticks_off()
    text = r"dashed: predicted, $\sqrt{2\eta\lambda(1-\beta)/(1+\beta)}$"
    upper.text(0.98, 0.52, text, color=GREY, transform=upper.transAxes, ha="right")
    panel(lower, x="scale of the gradients", y="share of the weight\nthat decay took")
    for colour, (name, gone) in zip(
        (BLUE, VERMILION), series["gone"].items(), strict=True
    ):
        lower.plot(SCALES, gone, "o-", color=colour)
        label(lower, name, (SCALES[-1], gone[-1]), colour, xytext=(0, 8), ha="right")
    lower.set(xscale="log", ylim=(-0.03, 0.9))
