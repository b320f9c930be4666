r"""BatchNorm at inference is a fixed affine map, and its neighbour can take it up.

    BN(x) = r ∘ x + s,      r ∘ (W x + c) + s = (r ∘ W) x + (r ∘ c + s)

exactly, but for rounding; where it could not be exact, the BatchNorm stays.
"""

from __future__ import annotations

from timeit import repeat
from typing import TYPE_CHECKING

from torch import nn

from batchcorr.bridge._fold import fold
from batchcorr.bridge._torch import torch
from batchcorr.bridge.claims._claim import Claim
from batchcorr.bridge.claims._measured import (
    Measured,
    normal,
    relative,
    reported,
    seeded,
    zero,
)

if TYPE_CHECKING:
    from torch import Tensor

    Network = tuple[nn.Module, Tensor]

__all__ = ["folding"]


@seeded
def folding() -> Claim:
    """Measure that BatchNorm at inference folds into its neighbours exactly.

    Returns
    -------
    Claim
        Errors of the folded networks by where the BatchNorm stands, those where it must
        stay, and, only reported, how much faster the folded ones are on this machine.

    Examples
    --------
    >>> folding().measured["kept"].holds
    True
    """
    measured = {}
    left, errors, speeds = 0, [], {}
    for name, (net, x) in _foldable().items():
        result = fold(net, x)
        error = relative(result.model(x), net(x))
        measured[f"fold, {name}"] = zero(f"folded: {name}", error, 1e-12)
        left += len(result.kept)
    stay = sum(len(fold(*given).kept) for given in _not_foldable())
    for name, (net, x) in _deployed().items():
        result = fold(net, x)
        errors.append(relative(result.model(x), net(x)))
        ratio = _seconds(net, x) / _seconds(result.model, x)
        speeds[f"speed, {name}"] = reported(f"times faster: {name}", ratio)
    measured |= {
        "left": zero("BatchNorms left in these networks", left, 0),
        "kept": Measured("BatchNorms kept, of 3 that must be", float(stay), 3),
        "float32": zero("folded in float32, the worst", max(errors), 1e-5),
    }
    return Claim(
        name="folding",
        title="BatchNorm at inference folds into its neighbour without error",
        statement=(
            "At inference BatchNorm is a fixed affine map. Taken up by the weights of a "
            "neighbour it is exact to rounding; where it cannot be exact it is kept. How "
            "much faster that is depends on network and machine."
        ),
        measured=measured | speeds,
    )


def _trained(*layers: nn.Module, negative: bool = False) -> nn.Module:
    """A network in evaluation mode whose BatchNorms are at no special point."""
    net = nn.Sequential(*layers)
    for norm in net.modules():
        if isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.normal_(norm.get_buffer("running_mean"))
            nn.init.uniform_(norm.get_buffer("running_var"), 0.5, 2.0)
            nn.init.uniform_(norm.weight, *((-2.0, -0.5) if negative else (0.5, 2.0)))
            nn.init.normal_(norm.bias)
    return net.double().eval()


def _foldable() -> dict[str, Network]:
    """Networks whose BatchNorms can all be folded, each with an input."""
    images, rows = normal(4, 3, 8, 8), normal(4, 6)
    norm3, norm4, conv = nn.BatchNorm2d(3), nn.BatchNorm2d(4), nn.Conv2d(3, 4, 3)
    grouped, transposed = nn.Conv2d(3, 6, 3, groups=3), nn.ConvTranspose2d(3, 4, 3)
    pooled = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 5))
    nets: dict[str, tuple[Tensor, list[nn.Module]]] = {
        "Conv → BN": (images, [conv, norm4]),
        "grouped Conv → BN": (images, [grouped, nn.BatchNorm2d(6)]),
        "transposed Conv → BN": (images, [transposed, norm4]),
        "Linear → BN": (rows, [nn.Linear(6, 5), nn.BatchNorm1d(5)]),
        "BN → Linear": (rows, [nn.BatchNorm1d(6), nn.Linear(6, 5)]),
        "BN → Conv, no padding": (images, [norm3, conv]),
        "Conv → max pool → BN": (images, [conv, nn.MaxPool2d(2), norm4]),
        "BN → pool → Linear": (images, [norm3, *pooled]),
    }
    return {name: (_trained(*layers), x) for name, (x, layers) in nets.items()}


def _not_foldable() -> list[Network]:
    """Networks whose BatchNorm must stay, each with an input.

    Linear → BN over the positions of (N, L, C), L = C; BN → Conv padded with zeros; and
    Conv → max pool → BN with a negative scale.
    """
    images = normal(4, 3, 8, 8)
    tokens = _trained(nn.Linear(6, 6), nn.BatchNorm1d(6))
    padded = _trained(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3, padding=1))
    pooled = (nn.Conv2d(3, 4, 3), nn.MaxPool2d(2), nn.BatchNorm2d(4))
    maxima = _trained(*pooled, negative=True)
    return [(tokens, normal(4, 6, 6)), (padded, images), (maxima, images)]


def _deployed() -> dict[str, Network]:
    """Networks as they are deployed, in float32, each with an input."""

    def conv(groups: int, kernel: int) -> list[nn.Module]:
        pad = kernel // 2
        layer = nn.Conv2d(32, 32, kernel, padding=pad, groups=groups, bias=False)
        return [layer, nn.BatchNorm2d(32), nn.ReLU()]

    def linear() -> list[nn.Module]:
        return [nn.Linear(128, 128), nn.BatchNorm1d(128), nn.ReLU()]

    images = torch.randn(8, 32, 16, 16)
    stack = _trained(*conv(1, 3), *conv(1, 3), *conv(1, 3)).float()
    depthwise = _trained(*conv(32, 3), *conv(1, 1), *conv(32, 3), *conv(1, 1)).float()
    mlp = _trained(*linear(), *linear(), *linear()).float()
    return {
        "conv stack": (stack, images),
        "depthwise": (depthwise, images),
        "MLP, batch 512": (mlp, torch.randn(512, 128)),
        "MLP, batch 1": (mlp, torch.randn(1, 128)),
    }


def _seconds(net: nn.Module, x: Tensor) -> float:
    """The shortest time of three runs."""
    with torch.inference_mode():
        return min(repeat(lambda: net(x), number=3, repeat=10))
