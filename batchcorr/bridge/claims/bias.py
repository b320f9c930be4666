r"""A bias before BatchNorm does nothing, and is learned all the same.

    BN(x + b) = BN(x),     Σ_i ∂L/∂x[i, c] = 0     (both because BN takes the mean away)

In evaluation the running mean stands in for the batch's, and follows a jump D of the
bias with a lag: after t updates of momentum m the output is off by D (1 - m)^t / σ.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn

from batchcorr.bridge._norms import correction_of
from batchcorr.bridge._torch import torch
from batchcorr.bridge.claims._figures import BLUE, VERMILION, label, panel
from batchcorr.bridge.claims._networks import largest, normal, seeded
from batchcorr.bridge.claims._result import Claim, Measured, near, zero

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from matplotlib.figure import Figure
    from torch import Tensor

__all__ = ["bias"]

UPDATES = 30
DRIFT_STEPS = 300


@seeded
def bias() -> Claim:
    """Measure what a bias before a normalization layer changes.

    Returns
    -------
    Claim
        Outputs and gradients with and without a bias, the lag of the running mean,
        where the bias does matter, and what round-off makes of it.

    Examples
    --------
    >>> bias().measured["output"].holds
    True
    """
    changes, gradient = _changes(), _gradient()
    lag, expected_lag = _lag()
    measured = {
        "output": zero("output change of BN, b ~ N(0, 100²)", changes["BN"], 1e-10),
        "gradient": zero("|Σg| / Σ|g| of the bias gradient", gradient, 1e-12),
        "layer_norm_constant": zero(
            "LayerNorm, a constant vector", changes["LayerNorm, constant"], 1e-12
        ),
        "layer_norm_any": near(
            "LayerNorm, any vector", changes["LayerNorm, any vector"], 2.9, 0.3
        ),
        "group_norm": zero(
            "GroupNorm, a vector constant in groups",
            changes["GroupNorm, constant in groups"],
            1e-12,
        ),
        "instance_norm": zero(
            "InstanceNorm, any vector", changes["InstanceNorm"], 1e-12
        ),
        "relu_between": near("Conv → ReLU → BN", changes["Conv → ReLU → BN"], 1.2, 0.3),
        "other_axis": near(
            "Linear → BN1d on (N, L, C)", changes["Linear → BN on (N, L, C)"], 2.4, 0.3
        ),
        "lag": near(
            "lag in evaluation over D (1 - m)^t / σ, worst of 30 updates",
            _worst_ratio(lag, expected_lag),
            1.0,
            1e-4,
        ),
        **_cancellation(),
        **_drift(),
    }
    return Claim(
        name="bias",
        title="BatchNorm removes any bias before it; other norms only some",
        statement=(
            "A bias before BatchNorm changes neither output nor gradient; the running "
            "mean absorbs it with a lag of (1 - m)^t. LayerNorm cancels only a constant "
            "vector. It is not redundant where a nonlinearity or another axis comes "
            "between, and Adam lets it drift on round-off."
        ),
        measured=measured,
        series={
            "changes": changes,
            "lag": lag.tolist(),
            "expected_lag": expected_lag.tolist(),
        },
        draw=_draw,
    )


def _changes() -> dict[str, float]:
    """Return the largest change of each layer's output when a bias is added."""
    rows, images = normal(64, 32), normal(16, 8, 6, 6)
    vector, grouped = normal(8)[:, None, None], normal(4).repeat_interleave(2)
    hidden = nn.Conv2d(8, 8, 3, bias=False).double()(images)
    tokens = nn.Linear(16, 10).double()(normal(32, 10, 16))

    def change(layer: nn.Module, x: Tensor, added: Tensor) -> float:
        layer = layer.double().train()
        return largest(layer(x + added) - layer(x))

    return {
        "BN": max(
            change(nn.BatchNorm1d(32), rows, 100 * normal(32)),
            change(nn.BatchNorm2d(8), images, 100 * vector),
        ),
        "InstanceNorm": change(nn.InstanceNorm2d(8), images, vector),
        "GroupNorm, constant in groups": change(
            nn.GroupNorm(4, 8), images, grouped[:, None, None]
        ),
        "LayerNorm, constant": change(nn.LayerNorm(32), rows, torch.ones(1).double()),
        "LayerNorm, any vector": change(nn.LayerNorm(32), rows, normal(32)),
        "Conv → ReLU → BN": change(
            nn.Sequential(nn.ReLU(), nn.BatchNorm2d(8)), hidden, 0.1 * vector
        ),
        "Linear → BN on (N, L, C)": change(nn.BatchNorm1d(10), tokens, normal(10)),
    }


def _gradient() -> float:
    """Return |Σg| / Σ|g| over the batch, the largest of all channels."""
    x = normal(64, 32).requires_grad_()
    target = normal(64, 32)
    loss = (nn.BatchNorm1d(32).double()(x) - target).pow(2).sum()
    (g,) = torch.autograd.grad(loss, x)
    return largest(g.sum(0) / g.abs().sum(0))


def _lag() -> tuple[Tensor, Tensor]:
    """Return how far evaluation is off after each update, and how far it should be."""
    x, jump, momentum = normal(64, 1), 5.0, 0.1
    still, moved = (nn.BatchNorm1d(1, momentum=momentum).double() for _ in range(2))
    off, expected = [], []
    for norm in (still, moved):
        for _ in range(50):
            norm(x)
    for t in range(1, UPDATES + 1):
        still(x), moved(x + jump)
        scale = correction_of(moved).scale.item()
        off.append((moved.eval()(x + jump) - still.eval()(x)).mean().item())
        expected.append(jump * (1 - momentum) ** t * scale)
        still.train(), moved.train()
    return torch.tensor(off), torch.tensor(expected)


def _worst_ratio(found: Tensor, wanted: Tensor) -> float:
    ratio = found / wanted
    return float(ratio[(ratio - 1).abs().argmax()])


def _cancellation() -> dict[str, Measured]:
    """Measure what is left of a bias in float32, where x + b drops the digits of x."""
    x, norm = torch.randn(32, 16), nn.BatchNorm1d(16)
    change = {b: largest(norm(x + b) - norm(x)) for b in (1e4, 1e6)}
    return {
        "float32_1e4": near("float32, b = 1e4", change[1e4], 2e-3, 0.9),
        "float32_1e6": near("float32, b = 1e6", change[1e6], 0.18, 0.9),
    }


def _drift() -> dict[str, Measured]:
    """Train in float32 and measure how far the dead bias wanders."""
    rate = 0.01
    adam = _drift_of(lambda p: torch.optim.Adam(p, lr=rate))
    calm = _drift_of(lambda p: torch.optim.Adam(p, lr=rate, eps=1e-4))
    sgd = _drift_of(lambda p: torch.optim.SGD(p, lr=rate))
    return {
        "drift_adam": near("drift of the bias in 300 steps of Adam", adam, 0.19, 0.8),
        "drift_sgd": zero("… of SGD", sgd, 1e-7),
        "drift_adam_eps": zero("… of Adam with eps = 1e-4", calm, 2e-4),
    }


def _drift_of(optimizer: Callable[[Any], torch.optim.Optimizer]) -> float:
    torch.manual_seed(0)
    first = nn.Conv2d(3, 16, 3)
    net = nn.Sequential(
        first, nn.BatchNorm2d(16), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 36, 10)
    )
    assert first.bias is not None
    start, steps = first.bias.detach().clone(), optimizer(net.parameters())
    for _ in range(DRIFT_STEPS):
        x, y = torch.randn(32, 3, 8, 8), torch.randint(10, (32,))
        steps.zero_grad()
        loss = nn.functional.cross_entropy(net(x), y)
        loss.backward()  # type: ignore[no-untyped-call]
        steps.step()
    return largest(first.bias - start)


def _draw(figure: Figure, series: Mapping[str, Any]) -> None:
    """Draw what each layer lets through, and how evaluation follows a jump."""
    figure.set_size_inches(figure.get_figwidth(), 3.6)
    upper, lower = figure.subplots(2, 1, height_ratios=[1.5, 1])
    changes = series["changes"]
    panel(upper, x="largest change of the output when a bias is added")
    for row, (name, change) in enumerate(reversed(changes.items())):
        colour = BLUE if change < 1e-9 else VERMILION
        upper.plot([1e-17, change], [row, row], color=colour, linewidth=0.8)
        upper.plot(change, row, "o", color=colour)
        upper.text(3e-17, row + 0.2, name, color=colour, va="bottom")
    upper.set(xscale="log", xlim=(1e-17, 1e3), ylim=(-0.6, len(changes)), yticks=[])
    upper.set_xticks([1e-16, 1e-12, 1e-8, 1e-4, 1])
    upper.spines["left"].set_visible(False)
    panel(lower, x="updates after the bias jumped", y="error in\nevaluation (sd)")
    t = range(1, len(series["lag"]) + 1)
    lower.plot(t, series["expected_lag"], color=BLUE)
    lower.plot(t, series["lag"], "o", color=VERMILION, markersize=2.5)
    beside = {"xytext": (6, 7)}
    label(lower, r"$D(1-m)^t/\sigma$", (5, series["lag"][4]), BLUE, **beside)
    label(lower, "measured", (11, series["lag"][10]), VERMILION, **beside)
