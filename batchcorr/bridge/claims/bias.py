r"""A bias before BatchNorm does nothing, and is learned all the same.

    BN(x + b) = BN(x),     Σ_i ∂L/∂x[i, c] = 0     (both because BN takes the mean away)

In evaluation the running mean follows a jump D of the bias with a lag: after t updates of
momentum m the output is off by D (1 - m)^t / σ. LayerNorm cancels only a constant vector. A
bias is needed where a nonlinearity or another axis comes between, and Adam lets a useless
one drift on round-off.
"""

from __future__ import annotations

from typing import Any

from torch import nn, optim

from batchcorr.bridge._lint import lint
from batchcorr.bridge._torch import torch
from batchcorr.bridge.claims._claim import claim
from batchcorr.bridge.claims._measured import Measured, Numbers, near, reported, zero
from batchcorr.bridge.claims._tensors import (
    classify,
    largest,
    normal,
    normalized,
    train_step,
)

__all__ = ["bias"]

UPDATES, STEPS = (1, 2, 3, 5, 8, 13, 20, 30), 300


@claim(
    "BatchNorm removes any bias before it; other norms only some",
    __doc__,
    axes=("updates after the bias jumped by 5", "error in evaluation (sd)"),
)
def bias() -> Numbers:
    """Measure what a bias before a normalization layer changes.

    Returns
    -------
    Claim
        What adding a bias changes, which biases `lint` calls redundant, the lag of the
        running mean, and what round-off makes of a bias.

    Examples
    --------
    >>> bias().measured["output"].holds
    True
    """
    yield from _changes()
    yield from _rounding()
    yield from _lag()


def _changes() -> Numbers:
    """What a change of the first layer's bias changes, and what `lint` says of it."""
    rows, images, tokens = normal(64, 16), normal(32, 3, 6, 6), normal(32, 10, 16)
    linear, conv = nn.Linear(16, 32).double(), nn.Conv2d(3, 8, 3).double()
    b, c, same = normal(32), normal(8, 1, 1), torch.ones(1)
    by_group = normal(4, 1, 1).repeat_interleave(2, dim=0)
    one, two, of_tokens = nn.BatchNorm1d(32), nn.BatchNorm2d(8), nn.BatchNorm1d(10)
    layer, instance, group = nn.LayerNorm(32), nn.InstanceNorm2d(8), nn.GroupNorm(4, 8)
    relu = nn.Sequential(nn.ReLU(), nn.BatchNorm2d(8))
    cases = {  # what, input, first layer, what follows, what is added to the bias
        "output": ("BN, b ~ N(0, 100²)", rows, linear, one, 100 * b),
        "output_2d": ("… of images", images, conv, two, 100 * c),
        "instance_norm": ("InstanceNorm, any vector", images, conv, instance, c),
        "group_norm": ("GroupNorm, constant in groups", images, conv, group, by_group),
        "layer_norm_constant": ("LayerNorm, constant", rows, linear, layer, same),
        "layer_norm_any": ("LayerNorm, any vector", rows, linear, layer, b),
        "relu_between": ("Conv → ReLU → BN", images, conv, relu, 0.3 * c),
        "other_axis": ("Linear → BN1d on (N, L, C)", tokens, linear, of_tokens, b),
    }
    seen = {"layer_norm_any", "relu_between", "other_axis"}
    always, redundant = {"output", "output_2d", "instance_norm"}, set()
    for key, (what, x, first, rest, added) in cases.items():
        hidden = first(x)
        out = rest.double()(hidden)
        change = largest(rest(hidden + added) - out)
        tolerance = 1e-10 if key.startswith("output") else 1e-12
        number = zero(what, change, tolerance)
        yield key, reported(what, change) if key in seen else number
        head = nn.Linear(out[0].numel(), 3).double()
        net = nn.Sequential(first, rest, nn.Flatten(), head)
        findings = lint(net, (x, torch.arange(len(x)) % 3), classify).findings
        if any((f.rule, f.layer) == ("redundant-bias", "0") for f in findings):
            redundant.add(key)
    right, wrong = len(redundant & always), len(redundant - always)
    yield "lint_redundant", Measured("lint: redundant of 3 that are", right, 3)
    yield "lint_needed", zero("lint: redundant of 5 that are not", wrong, 0)
    x = normal(64, 32).requires_grad_()
    (g,) = torch.autograd.grad((one(x) - normal(64, 32)).pow(2).sum(), x)
    slope = largest(g.sum(0) / g.abs().sum(0))
    yield "gradient", zero("gradient |Σg| / Σ|g|", slope, 1e-12)


def _rounding() -> Numbers:
    """What rounding makes of a bias: lost digits in float32, and drift in training."""
    x = torch.randn(32, 16)
    for name, b in {"1e4": 1e4, "1e6": 1e6}.items():
        off = largest(normalized(x + b, 1e-5) - normalized(x, 1e-5))
        yield f"float32_{name}", reported(f"float32, b = {name}", off)
    what = f"drift of the bias, {STEPS} steps of Adam"
    yield "drift_adam", reported(what, _drift(optim.Adam))
    what = "… of Adam with eps = 1e-4"
    yield "drift_adam_eps", reported(what, _drift(optim.Adam, eps=1e-4))
    yield "drift_sgd", zero("… of SGD", _drift(optim.SGD), 1e-7)


def _drift(kind: Any, **options: float) -> float:
    """How far the dead bias wanders in training."""
    torch.default_generator.manual_seed(0)
    first, head = nn.Conv2d(3, 16, 3), nn.Linear(16 * 36, 10)
    net = nn.Sequential(first, nn.BatchNorm2d(16), nn.ReLU(), nn.Flatten(), head)
    start = first.get_parameter("bias").detach().clone()
    optimizer = kind(net.parameters(), lr=0.01, **options)
    for _ in range(STEPS):
        batch = torch.randn(32, 3, 8, 8), torch.randint(10, (32,))
        train_step(optimizer, classify(net, batch))
    return largest(first.get_parameter("bias") - start)


def _lag() -> Numbers:
    """How far evaluation is off after each update, against D (1 - m)^t / σ."""
    x, jump, momentum = normal(64, 1), 5.0, 0.1
    still, moved = (nn.BatchNorm1d(1, momentum=momentum).double() for _ in range(2))
    for _ in range(50):
        still(x), moved(x)
    for t in range(1, max(UPDATES) + 1):
        still.train()(x), moved.train()(x + jump)
        if t in UPDATES:
            off = (moved.eval()(x + jump) - still.eval()(x)).detach().mean()
            sigma = (moved.get_buffer("running_var") + moved.eps).sqrt()
            expected, what = (
                jump * (1 - momentum) ** t / sigma,
                f"lag after {t} updates",
            )
            curve = "D (1 - m)^t / σ"
            yield f"lag_{t}", near(what, off, expected, 1e-4, curve=curve, at=t)
