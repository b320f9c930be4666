r"""BatchNorm at inference is a fixed affine map, and its neighbour can take it up.

    BN(x) = r ∘ x + s,      r ∘ (W x + c) + s = (r ∘ W) x + (r ∘ c + s)

exactly, but for rounding; where it could not be exact, the BatchNorm stays. How much faster
that is depends on network and machine.
"""

from __future__ import annotations

from timeit import repeat
from typing import TYPE_CHECKING

from torch import nn

from batchcorr.bridge._fold import fold
from batchcorr.bridge._torch import torch
from batchcorr.bridge.claims._claim import claim
from batchcorr.bridge.claims._measured import Measured, Numbers, reported, zero
from batchcorr.bridge.claims._tensors import normal, relative

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["folding"]


@claim("BatchNorm at inference folds into its neighbour without error", __doc__)
def folding() -> Numbers:
    """Measure that BatchNorm at inference folds into its neighbours exactly.

    Returns
    -------
    Claim
        Errors by where the BatchNorm stands, those that must stay, and speeds.

    Examples
    --------
    >>> folding().measured["kept"].holds
    True
    """
    speeds, left, worst = {}, 0, 0.0
    for name, (layers, x) in {**_foldable(), **_deployed()}.items():
        net = _trained(*layers).to(x.dtype)
        result = fold(net, x)
        left += len(result.kept)
        error = relative(result.model(x), net(x))
        if x.dtype == torch.float64:
            yield f"fold, {name}", zero(f"folded: {name}", error, 1e-12)
            continue
        worst = max(worst, error)
        ratio = _seconds(net, x) / _seconds(result.model, x)
        speeds[f"speed, {name}"] = reported(f"times faster: {name}", ratio)
    stay = sum(len(fold(*given).kept) for given in _not_foldable())
    yield "left", zero("BatchNorms left in these networks", left, 0)
    yield "kept", Measured("BatchNorms kept, of 3 that must be", stay, 3)
    yield "float32", zero("folded in float32, the worst", worst, 1e-5)
    yield from speeds.items()


def _trained(*layers: nn.Module) -> nn.Sequential:
    """A network in evaluation mode whose BatchNorms are at no special point."""
    net = nn.Sequential(*layers)
    for norm in net.modules():
        if isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.normal_(norm.get_buffer("running_mean"))
            nn.init.uniform_(norm.get_buffer("running_var"), 0.5, 2.0)
            nn.init.uniform_(norm.weight, 0.5, 2.0)
            nn.init.normal_(norm.bias)
    return net.double().eval()


def _foldable() -> dict[str, tuple[list[nn.Module], Tensor]]:
    """Layers whose BatchNorms can all be folded, each with an input."""
    images, rows = normal(4, 3, 8, 8), normal(4, 6)
    norm3, norm4, conv = nn.BatchNorm2d(3), nn.BatchNorm2d(4), nn.Conv2d(3, 4, 3)
    grouped, transposed = nn.Conv2d(3, 6, 3, groups=3), nn.ConvTranspose2d(3, 4, 3)
    pooled = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 5))
    return {
        "Conv → BN": ([conv, norm4], images),
        "grouped Conv → BN": ([grouped, nn.BatchNorm2d(6)], images),
        "transposed Conv → BN": ([transposed, norm4], images),
        "Linear → BN": ([nn.Linear(6, 5), nn.BatchNorm1d(5)], rows),
        "BN → Linear": ([nn.BatchNorm1d(6), nn.Linear(6, 5)], rows),
        "BN → Conv, no padding": ([norm3, conv], images),
        "Conv → max pool → BN": ([conv, nn.MaxPool2d(2), norm4], images),
        "BN → pool → Linear": ([norm3, *pooled], images),
    }


def _not_foldable() -> list[tuple[nn.Module, Tensor]]:
    """Networks whose BatchNorm must stay, each with an input.

    Linear → BN over the positions of (N, L, C), L = C; BN → Conv padded with zeros; and
    Conv → max pool → BN with a negative scale.
    """
    images = normal(4, 3, 8, 8)
    tokens = _trained(nn.Linear(6, 6), nn.BatchNorm1d(6))
    padded = _trained(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3, padding=1))
    maxima = _trained(nn.Conv2d(3, 4, 3), nn.MaxPool2d(2), nn.BatchNorm2d(4))
    nn.init.uniform_(maxima.get_parameter("2.weight"), -2.0, -0.5)
    return [(tokens, normal(4, 6, 6)), (padded, images), (maxima, images)]


def _deployed() -> dict[str, tuple[list[nn.Module], Tensor]]:
    """Layers as they are deployed, each with an input in float32."""

    def conv(groups: int, kernel: int) -> list[nn.Module]:
        pad = kernel // 2
        layer = nn.Conv2d(32, 32, kernel, padding=pad, groups=groups, bias=False)
        return [layer, nn.BatchNorm2d(32), nn.ReLU()]

    def linear() -> list[nn.Module]:
        return [nn.Linear(128, 128), nn.BatchNorm1d(128), nn.ReLU()]

    images = torch.randn(8, 32, 16, 16)
    depthwise = [*conv(32, 3), *conv(1, 1), *conv(32, 3), *conv(1, 1)]
    return {
        "conv stack": ([*conv(1, 3), *conv(1, 3), *conv(1, 3)], images),
        "depthwise": (depthwise, images),
        "MLP, batch 512": (linear() + linear() + linear(), torch.randn(512, 128)),
        "MLP, batch 1": (linear() + linear() + linear(), torch.randn(1, 128)),
    }


def _seconds(net: nn.Module, x: Tensor) -> float:
    """The shortest time of three runs."""
    with torch.inference_mode():
        return min(repeat(lambda: net(x), number=3, repeat=10))
