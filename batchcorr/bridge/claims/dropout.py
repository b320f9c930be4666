r"""Dropout before BatchNorm shifts its statistics between training and evaluation.

With keep probability p, a unit x of mean μ and a weighted sum w'x have

    Var_eval / Var_train = (E x² - μ²) / (E x² / p - μ²) = σ² / (σ² + (1 - p)/p E x²)
    Var_eval / Var_train = w' Σ w / (w' Σ w + (1 - p)/p Σ_i w_i² E x_i²)

A BatchNorm behind dropout, at once or further on, has learned a variance that is too large;
one before it has not. Recalibration with dropout off mends it, an update with it on does not.
"""

from __future__ import annotations

from itertools import product
from math import prod
from typing import TYPE_CHECKING

from torch import nn
from torch.optim.swa_utils import update_bn

from batchcorr.bridge._lint import lint
from batchcorr.bridge._recalibrate import recalibrate
from batchcorr.bridge._torch import torch
from batchcorr.bridge.claims._claim import claim
from batchcorr.bridge.claims._measured import Measured, Numbers, near, zero
from batchcorr.bridge.claims._tensors import classify, normal, normalized

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["dropout"]

KEEPS, MEANS = (0.3, 0.5, 0.7, 0.9), (0.0, 1.0, 2.0)
WIDTH, ROWS = 64, 8192


@claim(
    "Dropout before BatchNorm shrinks what evaluation sees",
    __doc__,
    axes=("keep probability", "variance, evaluation over training"),
)
def dropout() -> Numbers:
    """Measure what dropout does to the statistics of BatchNorm.

    Returns
    -------
    Claim
        The ratio of variances over all masks, and in networks by where dropout stands,
        as measured and as `lint` says; and the remedy.

    Examples
    --------
    >>> dropout().measured["before"].holds
    True
    """
    yield from _networks()
    yield from _formulas()


def _networks() -> Numbers:
    """The variance of the last BatchNorm's output in evaluation, by network."""
    x, labels = normal(ROWS, WIDTH), torch.arange(ROWS) % 3
    linear, drop = nn.Linear(WIDTH, WIDTH).double(), nn.Dropout(0.5)

    def norm() -> nn.Module:
        return nn.BatchNorm1d(WIDTH, momentum=None).double()

    def variance(net: nn.Module) -> Tensor:
        with torch.no_grad():
            out: Tensor = net.eval()(x)
            return out.var(0, correction=0).mean()

    twice = _ratio(torch.relu(normalized(x, 1e-5)), 0.5, linear.weight.detach().T)
    nets: dict[str, tuple[list[nn.Module], Tensor | float]] = {
        "before BN": ([drop, norm()], _ratio(x, 0.5).mean()),
        "after BN": ([norm(), drop], 1.0),
        "between BNs": ([norm(), nn.ReLU(), drop, linear, norm()], twice.mean()),
    }
    for where, (layers, expected) in nets.items():
        net = nn.Sequential(*layers).train()
        net(x), net(x)
        name, what = where.split()[0], f"variance in evaluation, dropout {where}"
        yield name, near(what, variance(net), expected, 0.01)
        with_head = nn.Sequential(*net.train(), nn.Linear(WIDTH, 3).double())
        findings = lint(with_head, (x[:2048], labels[:2048]), classify).findings
        rule = "dropout-before-batchnorm"
        said = prod(f.evidence["variance"] for f in findings if f.rule == rule)
        yield f"lint_{name}", near("… as lint says", said, expected, 0.03)
    mended = nn.Sequential(*nets["before BN"][0])
    update_bn([x], mended)
    what = "dropout before BN, after update_bn"
    yield "update_bn", near(what, variance(mended), 0.5, 0.02)
    recalibrate(mended.eval(), [x], "adabn")
    what = "… after recalibrate"
    yield "recalibrated", near(what, variance(mended), 1.0, 0.01)


def _ratio(x: Tensor, keep: float, weights: Tensor | None = None) -> Tensor:
    """Var_eval / Var_train of each column of x, or of x w, by the formula."""
    second = x.square().mean(0)
    if weights is not None:
        x, second = x @ weights, second @ weights**2
    plain = x.var(0, correction=0)
    ratio: Tensor = plain / (plain + (1 - keep) / keep * second)
    return ratio


def _enumerated(x: Tensor, keep: float, weights: Tensor) -> float:
    """Var_eval / Var_train of x w over every mask there is."""
    masks = torch.tensor(list(product([0.0, 1.0], repeat=x.shape[1])), dtype=x.dtype)
    chance = torch.prod(keep * masks + (1 - keep) * (1 - masks), dim=1)
    out = (x[:, None, :] * masks / keep) @ weights  # (rows, masks)
    train = ((out - (out @ chance).mean()) ** 2 @ chance).mean()
    return float((x @ weights).var(correction=0) / train)


def _formulas() -> Numbers:
    """Both formulas against all masks: of one unit by its mean, and of a weighted sum."""
    one, units = torch.ones(1, dtype=torch.float64), torch.linspace(-1, 1, 50).double()
    units = units[:, None] / units.square().mean().sqrt()
    for mean, keep in product(MEANS, KEEPS):
        x, curve = units + mean, f"mean {mean:g} sd"
        what = f"one unit of {curve}, kept with p = {keep:g}"
        exact, formula = _enumerated(x, keep, one), float(_ratio(x, keep))
        number = Measured(what, exact, formula, 1e-12, curve, keep)
        yield f"unit_{mean:g}_{keep:g}", number
    x, weights = normal(50, 8) @ normal(8, 8) + normal(8), normal(8)
    worst = max(
        abs(float(_ratio(x, keep, weights[:, None])) - _enumerated(x, keep, weights))
        for keep in KEEPS
    )
    what = "weighted sum: formula against all masks"
    yield "weighted", zero(what, worst, 1e-12)
