r"""A bias before BatchNorm does nothing, and is learned all the same.

    BN(x + b) = BN(x),     Σ_i ∂L/∂x[i, c] = 0     (both because BN takes the mean away)

In evaluation the running mean stands in for the batch's, and follows a jump D of the
bias with a lag: after t updates of momentum m the output is off by D (1 - m)^t / σ.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from batchcorr.bridge._lint import lint
from batchcorr.bridge._torch import torch
from batchcorr.bridge.claims._claim import Claim, Measured, near, reported, zero
from batchcorr.bridge.claims._networks import (
    classify,
    largest,
    normal,
    normalized,
    seeded,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

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
        measured={**_changes(), **_redundant(), **_float32(), **_drifts(), **_lag()},
        axes=("updates after the bias jumped by 5", "error in evaluation (sd)"),
    )


def _changes() -> dict[str, Measured]:
    """The largest change of each layer's output when a bias is added."""
    rows, images = normal(64, 32), normal(16, 8, 6, 6)
    vector, grouped = normal(8)[:, None, None], normal(4).repeat_interleave(2)
    hidden = nn.Conv2d(8, 8, 3, bias=False).double()(images)
    tokens = nn.Linear(16, 10).double()(normal(32, 10, 16))

    def change(layer: nn.Module, x: Tensor, added: Tensor) -> float:
        layer = layer.double().train()
        return largest(layer(x + added) - layer(x))

    batch_norms = max(
        change(nn.BatchNorm1d(32), rows, 100 * normal(32)),
        change(nn.BatchNorm2d(8), images, 100 * vector),
    )
    x = normal(64, 32).requires_grad_()
    loss = (nn.BatchNorm1d(32).double()(x) - normal(64, 32)).pow(2).sum()
    (g,) = torch.autograd.grad(loss, x)
    layer_norm, relu = nn.LayerNorm(32), nn.Sequential(nn.ReLU(), nn.BatchNorm2d(8))
    constant = change(layer_norm, rows, torch.ones(1).double())
    group = change(nn.GroupNorm(4, 8), images, grouped[:, None, None])
    instance = change(nn.InstanceNorm2d(8), images, vector)
    return {
        "output": zero("BN, b ~ N(0, 100²)", batch_norms, 1e-10),
        "gradient": zero(
            "gradient |Σg| / Σ|g|", largest(g.sum(0) / g.abs().sum(0)), 1e-12
        ),
        "layer_norm_constant": zero("LayerNorm, constant vector", constant, 1e-12),
        "group_norm": zero("GroupNorm, constant in groups", group, 1e-12),
        "instance_norm": zero("InstanceNorm, any vector", instance, 1e-12),
        "layer_norm_any": reported(
            "LayerNorm, any vector", change(layer_norm, rows, normal(32))
        ),
        "relu_between": reported(
            "Conv → ReLU → BN", change(relu, hidden, 0.1 * vector)
        ),
        "other_axis": reported(
            "Linear → BN1d on (N, L, C)", change(nn.BatchNorm1d(10), tokens, normal(10))
        ),
    }


def _redundant() -> dict[str, Measured]:
    """What `lint` says of the bias of the first layer, network by network."""
    labels = torch.arange(32) % 3

    def found(x: Tensor, first: nn.Module, *others: nn.Module) -> list[float]:
        body = nn.Sequential(first, *others, nn.Flatten()).double()
        head = nn.Linear(body(x[:2]).shape[1], 3).double()
        model = nn.Sequential(*body, head)
        findings = lint(model, (x, labels), classify).findings
        return [
            float(finding.evidence["change"])
            for finding in findings
            if finding.rule == "redundant-bias" and finding.layer == "0"
        ]

    rows, images, tokens = normal(32, 8), normal(32, 2, 6, 6), normal(32, 5, 4)
    yes = {
        "Linear → BN": found(rows, nn.Linear(8, 6), nn.BatchNorm1d(6)),
        "Conv → BN": found(images, nn.Conv2d(2, 6, 3), nn.BatchNorm2d(6)),
        "Conv → InstanceNorm": found(images, nn.Conv2d(2, 6, 3), nn.InstanceNorm2d(6)),
    }
    conv = nn.Conv2d(2, 6, 3)
    no = {
        "Conv → GroupNorm": found(images, conv, nn.GroupNorm(3, 6)),
        "Linear → LayerNorm": found(rows, nn.Linear(8, 6), nn.LayerNorm(6)),
        "Conv → ReLU → BN": found(images, conv, nn.ReLU(), nn.BatchNorm2d(6)),
        "Linear → BN on (N, L, C)": found(tokens, nn.Linear(4, 6), nn.BatchNorm1d(5)),
    }
    changes = [max(values) for values in yes.values() if values]
    return {
        "lint_redundant": Measured(
            "lint: redundant of 3 that are", float(sum(map(len, yes.values()))), 3, 0
        ),
        "lint_needed": zero(
            "lint: redundant of 4 that are not", sum(map(len, no.values())), 0
        ),
        "lint_change": zero(
            "… the change it measured", max(changes, default=float("nan")), 1e-12
        ),
    }


def _float32() -> dict[str, Measured]:
    """What is left of a bias in float32, where x + b drops the digits of x."""
    x = torch.randn(32, 16)
    return {
        f"float32_{name}": reported(
            f"float32, b = {name}",
            largest(normalized(x + b, 1e-5) - normalized(x, 1e-5)),
        )
        for name, b in (("1e4", 1e4), ("1e6", 1e6))
    }


def _drifts() -> dict[str, Measured]:
    """How far the dead bias wanders in training."""
    adam = _drift(lambda p: torch.optim.Adam(p, lr=0.01))
    calm = _drift(lambda p: torch.optim.Adam(p, lr=0.01, eps=1e-4))
    sgd = _drift(lambda p: torch.optim.SGD(p, lr=0.01))
    return {
        "drift_adam": reported(f"drift of the bias, {STEPS} steps of Adam", adam),
        "drift_adam_eps": reported("… of Adam with eps = 1e-4", calm),
        "drift_sgd": zero("… of SGD", sgd, 1e-7),
    }


def _drift(optimizer: Callable[[Iterable[Tensor]], torch.optim.Optimizer]) -> float:
    torch.default_generator.manual_seed(0)
    first = nn.Conv2d(3, 16, 3)
    net = nn.Sequential(
        first, nn.BatchNorm2d(16), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 36, 10)
    )
    assert first.bias is not None
    start, steps = first.bias.detach().clone(), optimizer(net.parameters())
    for _ in range(STEPS):
        steps.zero_grad()
        loss = classify(net, (torch.randn(32, 3, 8, 8), torch.randint(10, (32,))))
        loss.backward()  # type: ignore[no-untyped-call]
        steps.step()
    return largest(first.bias - start)


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
        if t not in UPDATES:
            continue
        off = (moved.eval()(x + jump) - still.eval()(x)).mean().item()
        assert moved.running_var is not None
        sigma = (moved.running_var + moved.eps).sqrt().item()
        expected = jump * (1 - momentum) ** t / sigma
        number = near(f"lag after {t} updates", off, expected, 1e-4)
        found[f"lag_{t}"] = number.on("D (1 - m)^t / σ", t)
    return found
