"""What weight decay does to weights before BatchNorm: directions, angles, lengths."""

from __future__ import annotations

from math import sqrt
from typing import TYPE_CHECKING

from torch import nn
from torch.nn.functional import batch_norm, cross_entropy, normalize

from batchcorr.bridge._torch import torch
from batchcorr.bridge.claims._networks import normal

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["NO_EPS", "decays", "path", "rotation", "row_rotation", "turning"]

NO_EPS = 1e-300
"""As good as none: torch refuses 0 in training."""


def path(*, norm: bool, growing: bool, steps: int = 200) -> Tensor:
    """Train W by SGD with decay, or without and at a growing rate; return directions.

    Returns
    -------
    Rows of W after each step, of length 1: (steps, 16, 8).
    """
    rate, decay = 0.1, 0.01
    torch.manual_seed(0)
    layer = nn.BatchNorm1d(16, eps=NO_EPS, affine=False) if norm else nn.Identity()
    net = nn.Sequential(
        nn.Linear(8, 16, bias=False), layer, nn.ReLU(), nn.Linear(16, 4)
    ).double()
    weight = next(net.parameters())
    optimizer = torch.optim.SGD([weight], rate, weight_decay=0 if growing else decay)
    directions = []
    for t in range(steps):
        if growing:
            rho = 1 - rate * decay
            optimizer.param_groups[0]["lr"] = rate * rho ** -(2 * t + 1)
        optimizer.zero_grad()
        loss = cross_entropy(net(normal(32, 8)), torch.randint(4, (32,)))
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        directions.append(normalize(weight.detach(), dim=1))
    return torch.stack(directions)


def rotation(optimizer: torch.optim.Optimizer, weight: Tensor, steps: int) -> Tensor:
    """Train W on noise; return the angle that each row turns by in each step."""
    share = torch.ones(len(weight), dtype=weight.dtype)
    return turning(optimizer, weight, steps, share)


def turning(
    optimizer: torch.optim.Optimizer, weight: Tensor, steps: int, share: Tensor
) -> Tensor:
    """Return the angles where the loss takes a share of each row's output.

    Rows r and r + len / 2 are given the same gradients, but for their shares, where
    they start alike.
    """
    angles, half = [], len(weight) // 2
    for _ in range(steps):
        out = batch_norm(
            normal(32, weight.shape[1]) @ weight.T,
            None,
            None,
            training=True,
            eps=NO_EPS,
        )
        loss = (out * normal(32, half).repeat(1, 2)).mean(0) @ share
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        before = normalize(weight.detach().clone(), dim=1)
        optimizer.step()
        chord = (normalize(weight.detach(), dim=1) - before).norm(dim=1)
        angles.append(2 * torch.asin(chord / 2))
    return torch.stack(angles)


def row_rotation(kind: type[torch.optim.Optimizer], shrunk: float = 33.0) -> float:
    """Return how much faster rows turn whose gradients are so many times smaller."""
    torch.manual_seed(0)
    start = (normal(8, 64) / sqrt(64)).repeat(2, 1)
    weight, share = nn.Parameter(start), torch.ones(16, dtype=start.dtype)
    share[8:] = 1 / shrunk
    optimizer = kind([weight], lr=0.01, weight_decay=0.01)  # type: ignore[call-arg]
    angles = turning(optimizer, weight, 700, share)[400:]
    return float(angles[:, 8:].mean() / angles[:, :8].mean())


def decays(kind: type[torch.optim.Optimizer], scales: list[float]) -> list[float]:
    """Return how much of a weight is gone after 2000 steps of gradient noise.

    One row of weights for each scale of the noise; λ = 0.1, η = 1e-3.
    """
    generator = torch.Generator().manual_seed(0)
    size = torch.tensor(scales, dtype=torch.float64)[:, None]
    weight = nn.Parameter(torch.ones(len(scales), 1000, dtype=torch.float64))
    optimizer = kind([weight], lr=1e-3, weight_decay=0.1)  # type: ignore[call-arg]
    for _ in range(2000):
        noise = torch.randn(1000, generator=generator, dtype=torch.float64)
        weight.grad = size * noise
        optimizer.step()
    gone: list[float] = (1 - weight.detach().mean(dim=1)).tolist()
    return gone
