r"""Dropout before BatchNorm shifts its statistics between training and evaluation.

With keep probability p, a unit x of mean μ and a weighted sum w'x have

    Var_eval / Var_train = (E x² - μ²) / (E x² / p - μ²)
    Var_eval / Var_train = w' Σ w / (w' Σ w + (1 - p)/p Σ_i w_i² E x_i²)

so a BatchNorm behind dropout divides by a spread that is gone in evaluation. BatchNorm
before dropout is safe, unless another BatchNorm follows.
"""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any

from torch import nn
from torch.optim.swa_utils import update_bn

from batchcorr.arrays.generic import tensor_moments
from batchcorr.bridge._norms import batch_norms
from batchcorr.bridge._recalibrate import recalibrate
from batchcorr.bridge._torch import torch
from batchcorr.bridge.claims._figures import BLUE, GREY, VERMILION, label, panel
from batchcorr.bridge.claims._networks import normal, seeded
from batchcorr.bridge.claims._result import Claim, Measured, zero

if TYPE_CHECKING:
    from collections.abc import Mapping

    from matplotlib.figure import Figure
    from torch import Tensor

__all__ = ["dropout"]

KEEPS = [0.3, 0.5, 0.7, 0.9]
MEANS = [0.0, 1.0, 2.0]
WIDTH, ROWS = 64, 8192


@seeded
def dropout() -> Claim:
    """Measure what dropout does to the statistics of BatchNorm.

    Returns
    -------
    Claim
        The ratio of variances by formula and over all masks, the variance of a
        BatchNorm's output in evaluation by where dropout stands, and the remedy.

    Examples
    --------
    >>> dropout().measured["before"].holds
    True
    """
    formula, units, weighted = _formulas()
    networks = _networks()
    return Claim(
        name="dropout",
        title="Dropout before BatchNorm shrinks what evaluation sees",
        statement=(
            "Dropout adds variance that is there in training only. A BatchNorm behind "
            "it, at once or further on, has learned a spread that is too large; one "
            "before it has not. Recalibration with dropout off mends it, an update "
            "with dropout on does not."
        ),
        measured={
            "unit": zero("one unit: formula against all masks", units, 1e-12),
            "weighted": zero(
                "weighted sum: formula against all masks", weighted, 1e-12
            ),
            "mean_zero": Measured(
                "one unit, μ = 0, p = 0.5", _ratio(_centred(0.0), 0.5), 0.5, 1e-12
            ),
            "before": _variance("Dropout → BN", networks, 0.497),
            "after": _variance("BN → Dropout", networks, 1.0),
            "between": _variance("BN → ReLU → Dropout → Linear → BN", networks, 0.405),
            "update_bn": _variance("Dropout → BN, update_bn", networks, 0.496),
            "recalibrated": _variance("Dropout → BN, recalibrated", networks, 1.0),
        },
        series={"formula": formula, "networks": networks},
        draw=_draw,
    )


def _variance(name: str, found: dict[str, float], expected: float) -> Measured:
    return Measured(f"variance in evaluation: {name}", found[name], expected, 0.01)


def _centred(mean: float) -> Tensor:
    """Return 50 values of one unit with exactly this mean and variance 1."""
    x = torch.linspace(-1, 1, 50, dtype=torch.float64)[:, None]
    return x / x.square().mean().sqrt() + mean


def _ratio(x: Tensor, keep: float, weights: Tensor | None = None) -> float:
    """Return Var_eval / Var_train of x, or of x w, by the formula."""
    found = tensor_moments(x)
    mean, within = found.mean[0], found.squares[0] / found.n[0]
    second = within + mean**2
    if weights is None:
        return float((second - mean**2) / (second / keep - mean**2))
    total = tensor_moments(x @ weights[:, None])
    plain = total.squares / total.n
    return float(plain / (plain + (1 - keep) / keep * (weights**2 * second).sum()))


def _enumerated(x: Tensor, keep: float, weights: Tensor) -> float:
    """Return Var_eval / Var_train of x w over every mask there is."""
    masks = torch.tensor(list(product([0.0, 1.0], repeat=x.shape[1])), dtype=x.dtype)
    chance = torch.prod(keep * masks + (1 - keep) * (1 - masks), dim=1)
    out = (x[:, None, :] * masks / keep) @ weights  # (rows, masks)
    mean = (out @ chance).mean()
    train = ((out - mean) ** 2 @ chance).mean()
    return float((x @ weights).var(correction=0) / train)


def _formulas() -> tuple[dict[float, list[tuple[float, float]]], float, float]:
    """Return the ratios of single units by mean, and the worst error of each formula."""
    one = torch.ones(1, dtype=torch.float64)
    ratios, units, weighted = {}, [], []
    for mean in MEANS:
        x = _centred(mean)
        found = [(_ratio(x, keep), _enumerated(x, keep, one)) for keep in KEEPS]
        units += [abs(formula - exact) for formula, exact in found]
        ratios[mean] = found
    x, weights = normal(50, 8) @ normal(8, 8) + normal(8), normal(8)
    for keep in KEEPS:
        exact = _enumerated(x, keep, weights)
        weighted.append(abs(_ratio(x, keep, weights) - exact))
    return ratios, max(units), max(weighted)


def _networks() -> dict[str, float]:
    """Return the variance of the last BatchNorm's output in evaluation, by network."""
    x = normal(ROWS, WIDTH)

    def norm() -> nn.Module:
        return nn.BatchNorm1d(WIDTH, momentum=None)

    between = [nn.ReLU(), nn.Dropout(0.5), nn.Linear(WIDTH, WIDTH)]
    nets = {
        "Dropout → BN": nn.Sequential(nn.Dropout(0.5), norm()),
        "BN → Dropout": nn.Sequential(norm(), nn.Dropout(0.5)),
        "BN → ReLU → Dropout → Linear → BN": nn.Sequential(norm(), *between, norm()),
    }
    found = {}
    for name, net in nets.items():
        _train(net, x)
        found[name] = _output_variance(net, x)
    shifted = nets["Dropout → BN"]
    update_bn([x], shifted)
    found["Dropout → BN, update_bn"] = _output_variance(shifted, x)
    recalibrate(shifted, [x], "adabn")
    found["Dropout → BN, recalibrated"] = _output_variance(shifted, x)
    return found


def _train(net: nn.Module, x: Tensor) -> None:
    """Let the running statistics see all data, one layer settled after the other."""
    net.double().train()
    for _ in batch_norms(net):
        net(x)


def _output_variance(net: nn.Module, x: Tensor) -> float:
    """Return the mean variance of what the last BatchNorm puts out in evaluation."""
    last = list(batch_norms(net).values())[-1]
    seen: list[Tensor] = []
    hook = last.register_forward_hook(lambda *call: seen.append(call[2].detach()))
    net.eval()(x)
    hook.remove()
    found = tensor_moments(seen[0])
    return float((found.squares / found.n).mean())


def _draw(figure: Figure, series: Mapping[str, Any]) -> None:
    """Draw the variance in evaluation by network, and the ratio by keep probability."""
    figure.set_size_inches(figure.get_figwidth(), 4.0)
    upper, lower = figure.subplots(2, 1, height_ratios=[1.1, 1])
    panel(upper, x="variance of BatchNorm's output in evaluation")
    networks = series["networks"]
    for row, (name, value) in enumerate(reversed(networks.items())):
        colour = BLUE if abs(value - 1) < 0.02 else VERMILION
        upper.plot([0, value], [row, row], color=colour, linewidth=0.8)
        upper.plot(value, row, "o", color=colour)
        upper.text(0.01, row + 0.15, name, color=colour, va="bottom")
    upper.axvline(1, color=GREY, linewidth=0.6, linestyle=(0, (4, 2)))
    upper.set(xlim=(0, 1.1), ylim=(-0.5, len(networks)), yticks=[])
    upper.spines["left"].set_visible(False)
    panel(lower, x="keep probability", y="variance, evaluation\nover training")
    for colour, (mean, found) in zip(
        (VERMILION, GREY, BLUE), series["formula"].items(), strict=True
    ):
        formula, exact = zip(*found, strict=True)
        lower.plot([*KEEPS, 1], [*formula, 1], color=colour)
        lower.plot(KEEPS, exact, "o", color=colour)
        label(
            lower,
            f"mean {mean:g} sd",
            (KEEPS[0], exact[0]),
            colour,
            ha="right",
            xytext=(-5, 0),
        )
    lower.set(xlim=(0.05, 1.02), ylim=(0, 1.05))
    lower.text(
        0.98,
        0.05,
        "lines: formula\npoints: all masks",
        color=GREY,
        transform=lower.transAxes,
        ha="right",
    )
