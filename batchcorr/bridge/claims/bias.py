r"""A bias before BatchNorm does nothing, and is learned all the same.

    BN(x + b) = BN(x),     Σ_i ∂L/∂x[i, c] = 0     (both because BN takes the mean away)

In evaluation the running mean stands in for the batch's, and follows a jump D of the
bias with a lag: after t updates of momentum m the output is off by D (1 - m)^t / σ.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn

from batchcorr.bridge._lint import lint
from batchcorr.bridge._torch import torch
from batchcorr.bridge.claims._claim import Claim
from batchcorr.bridge.claims._measured import (
    Measured,
    classify,
    largest,
    near,
    normal,
    normalized,
    reported,
    seeded,
    zero,
)

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["bias"]

UPDATES, STEPS = (1, 2, 3, 5, 8, 13, 20, 30), 300


@seeded
def bias() -> Claim:
    """Measure what a bias before a normalization layer changes.

    Returns
    -------
    Claim
        Outputs and gradients with and without a bias, the biases that `lint` calls
        redundant, the lag of the running mean, and what round-off makes of a bias.

    Examples
    --------
    >>> bias().measured["output"].holds
    True
    """
    return Claim(
        name="bias",
        title="BatchNorm removes any bias before it; other norms only some",
        statement=(
            "A bias before BatchNorm changes neither output nor gradient; the running "
            "mean absorbs it with a lag of (1 - m)^t. LayerNorm cancels only a constant "
            "vector. It is not redundant where a nonlinearity or another axis comes "
            "between, and Adam lets it drift on round-off."
        ),
        measured={**_changes(), **_redundant(), **_rounding(), **_lag()},
        axes=("updates after the bias jumped by 5", "error in evaluation (sd)"),
    )


def _changes() -> dict[str, Measured]:
    """The largest change of each layer's output when a bias is added."""
    rows, images, vector = normal(64, 32), normal(16, 8, 6, 6), normal(8)[:, None, None]
    grouped = normal(4).repeat_interleave(2)[:, None, None]
    hidden = nn.Conv2d(8, 8, 3, bias=False).double()(images)
    tokens = nn.Linear(16, 10).double()(normal(32, 10, 16))

    def change(layer: nn.Module, x: Tensor, added: Tensor) -> float:
        layer = layer.double().train()
        return largest(layer(x + added) - layer(x))

    x = normal(64, 32).requires_grad_()
    loss = (nn.BatchNorm1d(32).double()(x) - normal(64, 32)).pow(2).sum()
    (g,) = torch.autograd.grad(loss, x)
    of_rows = change(nn.BatchNorm1d(32), rows, 100 * normal(32))
    of_images = change(nn.BatchNorm2d(8), images, 100 * vector)
    constant = change(nn.LayerNorm(32), rows, torch.ones(1).double())
    by_group = change(nn.GroupNorm(4, 8), images, grouped)
    instance = change(nn.InstanceNorm2d(8), images, vector)
    relu = change(nn.Sequential(nn.ReLU(), nn.BatchNorm2d(8)), hidden, 0.1 * vector)
    any_vector = change(nn.LayerNorm(32), rows, normal(32))
    other = change(nn.BatchNorm1d(10), tokens, normal(10))
    slope = largest(g.sum(0) / g.abs().sum(0))
    return {
        "output": zero("BN, b ~ N(0, 100²)", max(of_rows, of_images), 1e-10),
        "gradient": zero("gradient |Σg| / Σ|g|", slope, 1e-12),
        "layer_norm_constant": zero("LayerNorm, constant vector", constant, 1e-12),
        "group_norm": zero("GroupNorm, constant in groups", by_group, 1e-12),
        "instance_norm": zero("InstanceNorm, any vector", instance, 1e-12),
        "layer_norm_any": reported("LayerNorm, any vector", any_vector),
        "relu_between": reported("Conv → ReLU → BN", relu),
        "other_axis": reported("Linear → BN1d on (N, L, C)", other),
    }


def _redundant() -> dict[str, Measured]:
    """What `lint` says of the bias of the first layer, network by network."""
    rows, images, tokens = normal(32, 8), normal(32, 2, 6, 6), normal(32, 5, 4)
    linear, conv = nn.Linear(8, 6), nn.Conv2d(2, 6, 3)
    networks: list[tuple[Tensor, list[nn.Module]]] = [
        (rows, [linear, nn.BatchNorm1d(6)]),
        (images, [conv, nn.BatchNorm2d(6)]),
        (images, [conv, nn.InstanceNorm2d(6)]),
        (images, [conv, nn.GroupNorm(3, 6)]),
        (rows, [linear, nn.LayerNorm(6)]),
        (images, [conv, nn.ReLU(), nn.BatchNorm2d(6)]),
        (tokens, [nn.Linear(4, 6), nn.BatchNorm1d(5)]),
    ]
    redundant: list[float] = []
    needed: list[float] = []
    for number, (x, layers) in enumerate(networks):
        body = nn.Sequential(*layers, nn.Flatten()).double()
        head = nn.Linear(body(x[:2]).shape[1], 3).double()
        batch = x, torch.arange(32) % 3
        findings = lint(nn.Sequential(*body, head), batch, classify).findings
        said = [f for f in findings if f.rule == "redundant-bias" and f.layer == "0"]
        changes = [float(finding.evidence["change"]) for finding in said]
        (redundant if number < 3 else needed).extend(changes)
    change = max(redundant, default=float("nan"))
    what = "lint: redundant of 3 that are"
    return {
        "lint_redundant": Measured(what, float(len(redundant)), 3),
        "lint_needed": zero("lint: redundant of 4 that are not", len(needed), 0),
        "lint_change": zero("… the change it measured", change, 1e-12),
    }


def _rounding() -> dict[str, Measured]:
    """What rounding makes of a bias: lost digits in float32, and drift in training."""
    x = torch.randn(32, 16)

    def off(b: float) -> float:
        return largest(normalized(x + b, 1e-5) - normalized(x, 1e-5))

    adam, sgd = torch.optim.Adam, torch.optim.SGD
    what = f"drift of the bias, {STEPS} steps of Adam"
    return {
        "float32_1e4": reported("float32, b = 1e4", off(1e4)),
        "float32_1e6": reported("float32, b = 1e6", off(1e6)),
        "drift_adam": reported(what, _drift(adam)),
        "drift_adam_eps": reported("… of Adam with eps = 1e-4", _drift(adam, eps=1e-4)),
        "drift_sgd": zero("… of SGD", _drift(sgd), 1e-7),
    }


def _drift(kind: Any, **options: float) -> float:
    """How far the dead bias wanders in training."""
    torch.default_generator.manual_seed(0)
    first, head = nn.Conv2d(3, 16, 3), nn.Linear(16 * 36, 10)
    net = nn.Sequential(first, nn.BatchNorm2d(16), nn.ReLU(), nn.Flatten(), head)
    start = first.get_parameter("bias").detach().clone()
    optimizer = kind(net.parameters(), lr=0.01, **options)
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = classify(net, (torch.randn(32, 3, 8, 8), torch.randint(10, (32,))))
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return largest(first.get_parameter("bias") - start)


def _lag() -> dict[str, Measured]:
    """How far evaluation is off after each update, against D (1 - m)^t / σ."""
    x, jump, momentum = normal(64, 1), 5.0, 0.1
    still, moved = (nn.BatchNorm1d(1, momentum=momentum).double() for _ in range(2))
    for norm in (still, moved):
        for _ in range(50):
            norm(x)
    found = {}
    for t in range(1, max(UPDATES) + 1):
        still.train()(x), moved.train()(x + jump)
        if t in UPDATES:
            off = (moved.eval()(x + jump) - still.eval()(x)).detach().mean()
            sigma = (moved.get_buffer("running_var") + moved.eps).sqrt()
            expected = float(jump * (1 - momentum) ** t / sigma)
            number = near(f"lag after {t} updates", float(off), expected, 1e-4)
            found[f"lag_{t}"] = number.on("D (1 - m)^t / σ", t)
    return found
