r"""Before BatchNorm the length of a weight is not a parameter but a learning rate.

    f(a W) = f(W),    ∇f(a W) = ∇f(W) / a,    ⟨W, ∇f(W)⟩ = 0,    BN_ε(a W) = BN_{ε/a²}(W)

SGD with learning rate η and decay λ goes through the same directions as SGD without decay
at the rate η ρ^-(2t+1), ρ = 1 - η λ. In balance a step turns a weight by the angle
√(2 η λ) √((1 - β) / (1 + β)), β the momentum. AdamW takes 1 - (1 - η λ)^t of a weight in t
steps, whatever the gradients; decay inside Adam's gradient depends on their history.
"""

from __future__ import annotations

from math import sqrt
from typing import TYPE_CHECKING, Any

from torch import nn, optim
from torch.nn.functional import cross_entropy, normalize

from batchcorr.bridge._lint import lint
from batchcorr.bridge._torch import torch
from batchcorr.bridge.claims._claim import claim
from batchcorr.bridge.claims._measured import Measured, Numbers, near, reported, zero
from batchcorr.bridge.claims._tensors import (
    NO_EPS,
    classify,
    normal,
    normalized,
    relative,
    train_step,
)

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["scale_invariance"]

SETTINGS: list[tuple[Any, float, float, float]] = [
    (optim.SGD, 0.1, 0.1, 0.0),
    (optim.SGD, 0.1, 0.1, 0.9),
    (optim.SGD, 0.1, 0.05, 0.9),
    (optim.AdamW, 0.01, 0.5, 0.0),
    (optim.AdamW, 0.01, 0.5, 0.9),
    (optim.AdamW, 0.02, 0.5, 0.9),
]
"""Optimizer, learning rate η, decay λ, momentum β."""

SCALES = [0.1, 1.0, 10.0, 100.0]


@claim(
    "Before BatchNorm weight decay sets how fast weights turn",
    __doc__,
    axes=("scale of the gradients", "share of the weight that decay took"),
)
def scale_invariance() -> Numbers:
    """Measure what the length of a weight before BatchNorm means.

    Returns
    -------
    Claim
        Invariance with and without ε, decay as a growing learning rate, the angle of a
        step in balance, and decay inside and outside of Adam.

    Examples
    --------
    >>> scale_invariance().measured["orthogonal"].holds
    True
    """
    for part in (_laws, _linted, _paths, _angles, _decays):
        yield from part()


def _laws() -> Numbers:
    """The identities at one weight."""
    x, y, weight = normal(64, 8), torch.randint(16, (64,)), 1.3 * normal(16, 8)
    a, eps = 0.01, 1e-5

    def out(w: Tensor, eps: float = NO_EPS) -> Tensor:
        return normalized(x @ w.T, eps)

    def gradient(w: Tensor) -> Tensor:
        w = w.clone().requires_grad_()
        (g,) = torch.autograd.grad(cross_entropy(out(w), y), w)
        return g

    g = gradient(weight)
    cosine = float((weight * g).sum() / (weight.norm() * g.norm()))
    same = relative(out(a * weight), out(weight))
    slope = relative(a * gradient(a * weight), g)
    exact = relative(out(a * weight, eps), out(weight, eps / a**2))
    naive, plain = (cross_entropy(out(w, eps), y) for w in (a * weight, weight))
    off = abs(float(naive - plain))
    yield "output", zero("f(aW) = f(W), a = 0.01", same, 1e-12)
    yield "gradient", zero("a g(aW) = g(W)", slope, 1e-12)
    yield "orthogonal", zero("cosine of W and g(W)", cosine, 1e-12)
    yield "eps_law", zero("with ε: BN_ε(aW) = BN_{ε/a²}(W)", exact, 1e-12)
    yield "eps_naive", reported("with ε: the loss at a = 0.01 is off by", off)


def _linted() -> Numbers:
    """What `lint` calls scale-invariant: two weights before BatchNorm, not the head."""
    layers: list[nn.Module] = [nn.Linear(8, 12, bias=False), nn.ReLU()]
    layers += [nn.Linear(12, 16, bias=False), nn.BatchNorm1d(16), nn.ReLU()]
    net = nn.Sequential(*layers, nn.Linear(16, 4)).double()
    batch = normal(32, 8), torch.randint(4, (32,))
    right = {"0.weight", "2.weight"} == set(lint(net, batch, classify).scale_invariant)
    yield "lint_weights", Measured("lint: scale-invariant, of 3 weights", 2 * right, 2)


def _paths() -> Numbers:
    """How far SGD with decay and SGD with a growing rate go apart in 200 steps."""
    rate, decay = 0.1, 0.01

    def path(norm: nn.Module, *, growing: bool) -> Tensor:
        """Rows of W after each step of SGD, of length 1: (steps, 16, 8)."""
        torch.default_generator.manual_seed(0)
        first = nn.Linear(8, 16, bias=False)
        net = nn.Sequential(first, norm, nn.ReLU(), nn.Linear(16, 4)).double()
        sgd = optim.SGD([first.weight], rate, weight_decay=0 if growing else decay)
        directions = []
        for t in range(200):
            if growing:
                sgd.param_groups[0]["lr"] = rate * (1 - rate * decay) ** -(2 * t + 1)
            train_step(sgd, classify(net, (normal(32, 8), torch.randint(4, (32,)))))
            directions.append(normalize(first.weight.detach(), dim=1))
        return torch.stack(directions)

    def apart(norm: nn.Module) -> float:
        off = path(norm, growing=False) - path(norm, growing=True)
        return float(off.flatten(1).norm(dim=1).max())

    what = "directions: decay against growing rate"
    normed = apart(nn.BatchNorm1d(16, eps=NO_EPS, affine=False))
    yield "growing_rate", zero(what, normed, 1e-12)
    yield "growing_rate_plain", reported("… without BatchNorm", apart(nn.Identity()))


def _angles() -> Numbers:
    """The angle of a step in balance over √(2 η λ (1 - β) / (1 + β)), and by rows."""
    for k, (kind, rate, decay, beta) in enumerate(SETTINGS, start=1):
        torch.default_generator.manual_seed(0)
        weight = nn.Parameter(normal(16, 64) / sqrt(64))
        how: dict[str, Any] = {"momentum": beta, "dampening": beta}
        if kind is optim.AdamW:
            how = {"betas": (beta, 0.99)}
        optimizer = kind([weight], rate, weight_decay=decay, **how)
        angles = _turning(optimizer, weight, 350)[250:]
        balance = sqrt(2 * rate * decay * (1 - beta) / (1 + beta))
        ratio = angles.square().mean().sqrt() / balance
        what = f"angle: {kind.__name__}, η {rate:g}, λ {decay:g}, β {beta:g}"
        yield f"angle_{k}", near(what, ratio, 1, 0.05)
    what, adamw = "rows of 33× smaller gradients: AdamW", _row_rotation(optim.AdamW)
    yield "rows_adamw", near(what, adamw, 1, 1e-4)
    yield "rows_adam", reported("… Adam + L2", _row_rotation(optim.Adam))


def _turning(
    optimizer: optim.Optimizer, weight: Tensor, steps: int, share: float = 1.0
) -> Tensor:
    """The angle of each row in each step, trained on noise: (steps, rows).

    Rows r and r + len / 2 are given the same gradients where they start alike, but for a
    share that the loss takes of the second half.
    """
    angles, half = [], len(weight) // 2
    shares = torch.tensor([1.0, share], dtype=weight.dtype).repeat_interleave(half)
    for _ in range(steps):
        out = normalized(normal(32, weight.shape[1]) @ weight.T)
        loss = (out * normal(32, half).repeat(1, 2)).mean(0) @ shares
        before = normalize(weight.detach().clone(), dim=1)
        train_step(optimizer, loss)
        chord = (normalize(weight.detach(), dim=1) - before).norm(dim=1)
        angles.append(2 * torch.asin(chord / 2))
    return torch.stack(angles)


def _row_rotation(kind: Any) -> float:
    """How much faster rows turn whose gradients are 33 times smaller."""
    torch.default_generator.manual_seed(0)
    weight = nn.Parameter((normal(8, 64) / sqrt(64)).repeat(2, 1))
    optimizer = kind([weight], lr=0.01, weight_decay=0.01)
    angles = _turning(optimizer, weight, 500, share=1 / 33)[300:]
    return float(angles[:, 8:].mean() / angles[:, :8].mean())


def _decays() -> Numbers:
    """The share of a weight that decay took in 2000 steps, by the gradients' scale."""
    steps, rate, decay = 2000, 1e-3, 0.1

    def gone(kind: Any) -> list[float]:
        generator = torch.Generator().manual_seed(0)
        size = torch.tensor(SCALES, dtype=torch.float64)[:, None]
        weight = nn.Parameter(torch.ones(len(SCALES), 1000, dtype=torch.float64))
        optimizer = kind([weight], lr=rate, weight_decay=decay)
        for _ in range(steps):
            weight.grad = size * torch.randn(1000, generator=generator).double()
            optimizer.step()
        return [1 - share for share in weight.detach().mean(dim=1).tolist()]

    adamw, adam = gone(optim.AdamW), gone(optim.Adam)
    expected = 1 - (1 - rate * decay) ** steps
    same, what = max(adamw) - min(adamw), "AdamW: differs by the scale"
    yield "adamw_same", zero(what, same, 1e-6)
    for at, outside, inside in zip(SCALES, adamw, adam, strict=True):
        what = f"gone by decay, gradients × {at:g}"
        number = near(f"AdamW: {what}", outside, expected, 0.03, curve="AdamW", at=at)
        yield f"adamw_{at:g}", number
        number = reported(f"Adam + L2: {what}", inside, curve="Adam + L2", at=at)
        yield f"adam_{at:g}", number
