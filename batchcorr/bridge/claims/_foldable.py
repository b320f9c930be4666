"""Small networks with a BatchNorm in every place it is met, and what folding gains."""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING

from torch import nn

from batchcorr.bridge._norms import batch_norms
from batchcorr.bridge._torch import torch
from batchcorr.bridge.claims._networks import normal

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["foldable", "not_foldable", "settled", "speed_networks", "speedup"]

ROUNDS = 15


class Branches(nn.Module):
    """Two convolutions, added or put beside each other, and a BatchNorm."""

    def __init__(self, *, add: bool) -> None:
        super().__init__()
        self.add = add
        self.left, self.right = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4 if add else 8)

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalized sum or concatenation."""
        left, right = self.left(x), self.right(x)
        joined = left + right if self.add else torch.cat([left, right], dim=1)
        out: Tensor = self.norm(joined)
        return out


class Shared(nn.Module):
    """A convolution under two names, with a BatchNorm behind one of them only."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.same = self.conv

    def forward(self, x: Tensor) -> Tensor:
        """Return the path with the BatchNorm and, shifted, the one without."""
        out: Tensor = self.norm(self.conv(x)) + self.same(x + 1)
        return out


def settled(net: nn.Module, *, negative: bool = False) -> nn.Module:
    """Return a network in evaluation mode whose BatchNorms have learned something."""
    for norm in batch_norms(net).values():
        assert norm.running_mean is not None
        assert norm.running_var is not None
        nn.init.normal_(norm.running_mean)
        nn.init.uniform_(norm.running_var, 0.5, 2.0)
        nn.init.uniform_(norm.weight, *((-2.0, -0.5) if negative else (0.5, 2.0)))
        nn.init.normal_(norm.bias)
    return net.double().eval()


def foldable() -> dict[str, tuple[nn.Module, Tensor]]:
    """Return networks whose BatchNorms can all be folded, each with an input."""
    images, rows = normal(4, 3, 8, 8), normal(4, 6)
    nets = {
        "Conv → BN": (nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)),
        "grouped Conv → BN": (nn.Conv2d(3, 6, 3, groups=3), nn.BatchNorm2d(6)),
        "transposed Conv → BN": (nn.ConvTranspose2d(3, 4, 3), nn.BatchNorm2d(4)),
        "Linear → BN": (nn.Linear(6, 5), nn.BatchNorm1d(5)),
        "BN → Linear": (nn.BatchNorm1d(6), nn.Linear(6, 5)),
        "BN → Conv, no padding": (nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3)),
        "Conv → max pool → BN": (
            nn.Conv2d(3, 4, 3),
            nn.MaxPool2d(2),
            nn.BatchNorm2d(4),
        ),
        "BN → pool → Linear": (
            nn.BatchNorm2d(3),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(3, 5),
        ),
    }
    found: dict[str, tuple[nn.Module, Tensor]] = {
        name: (nn.Sequential(*layers), rows if "Linear" in name[:11] else images)
        for name, layers in nets.items()
    }
    found["BN → pool → Linear"] = (found["BN → pool → Linear"][0], images)
    found["add → BN"] = (Branches(add=True), images)
    found["cat → BN"] = (Branches(add=False), images)
    found["shared Conv, BN on one path"] = (Shared(), images)
    return {name: (settled(net), x) for name, (net, x) in found.items()}


def not_foldable() -> dict[str, tuple[nn.Module, Tensor]]:
    """Return networks whose BatchNorm must stay, each with an input."""
    images = normal(4, 3, 8, 8)
    pooled = nn.Sequential(nn.Conv2d(3, 4, 3), nn.MaxPool2d(2), nn.BatchNorm2d(4))
    padded = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3, padding=1))
    tokens = nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6))
    return {
        "Linear → BN on (N, L, C), L = C": (settled(tokens), normal(4, 6, 6)),
        "BN → Conv, padded with zeros": (settled(padded), images),
        "Conv → max pool → BN, scale < 0": (settled(pooled, negative=True), images),
    }


def speed_networks() -> dict[str, tuple[nn.Module, Tensor]]:
    """Return networks as they are deployed, in float32, each with an input."""

    def conv(groups: int, kernel: int) -> list[nn.Module]:
        pad = kernel // 2
        layer = nn.Conv2d(32, 32, kernel, padding=pad, groups=groups, bias=False)
        return [layer, nn.BatchNorm2d(32), nn.ReLU()]

    def dense() -> list[nn.Module]:
        return [nn.Linear(128, 128), nn.BatchNorm1d(128), nn.ReLU()]

    images = torch.randn(8, 32, 16, 16)
    stack = nn.Sequential(*(conv(1, 3) + conv(1, 3) + conv(1, 3)))
    depthwise = nn.Sequential(*(conv(32, 3) + conv(1, 1) + conv(32, 3) + conv(1, 1)))
    mlp = nn.Sequential(*(dense() + dense() + dense()))
    return {
        "conv stack": (settled(stack).float(), images),
        "depthwise": (settled(depthwise).float(), images),
        "MLP, batch 512": (settled(mlp).float(), torch.randn(512, 128)),
        "MLP, batch 1": (mlp, torch.randn(1, 128)),
    }


def speedup(net: nn.Module, folded: nn.Module, x: Tensor) -> float:
    """Return how many times faster the folded network is: the best of some rounds."""
    best = [float("inf"), float("inf")]
    with torch.inference_mode():
        for _ in range(ROUNDS):
            for i, model in enumerate((net, folded)):
                start = perf_counter()
                for _ in range(3):
                    model(x)
                best[i] = min(best[i], perf_counter() - start)
    return best[0] / best[1]
