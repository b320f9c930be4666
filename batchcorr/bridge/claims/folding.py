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
from batchcorr.bridge.claims._claim import Claim, Measured, reported, zero
from batchcorr.bridge.claims._networks import normal, relative, seeded

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["folding"]


@seeded
def folding() -> Claim:
    """Measure that BatchNorm at inference folds into its neighbours exactly.

    Returns
    -------
    Claim
        Errors of the folded networks by where the BatchNorm stands, those where it must
        stay, and how much faster the folded ones are on this machine, which is judged
        by nobody.

    Examples
    --------
    >>> folding().measured["kept"].holds
    True
    """
    folded = {name: fold(*given) for name, given in _foldable().items()}
    speeds, single = {}, []
    for name, (net, x) in _speed_networks().items():
        result = fold(net, x)
        single.append(result.error)
        speeds[name] = _speedup(net, result.model, x)
    left = sum(len(result.kept) for result in folded.values())
    stay = sum(len(fold(*given).kept) for given in _not_foldable())
    return Claim(
        name="folding",
        title="BatchNorm at inference folds into its neighbour without error",
        statement=(
            "At inference BatchNorm is a fixed affine map. Taken up by the weights of a "
            "neighbour it is exact to rounding; where it cannot be exact it is kept. How "
            "much faster that is depends on network and machine."
        ),
        measured={
            **{
                f"fold, {name}": zero(f"folded: {name}", result.error, 1e-12)
                for name, result in folded.items()
            },
            "pair": zero("folded weights = r ∘ W, r ∘ c + s", _pair(), 1e-12),
            "left": zero("BatchNorms left in these networks", left, 0),
            "kept": Measured("BatchNorms kept, of 3 that must be", float(stay), 3, 0),
            "float32": zero("folded in float32, the worst", max(single), 1e-5),
            **{
                f"speed, {name}": reported(f"times faster: {name}", ratio)
                for name, ratio in speeds.items()
            },
        },
    )


def _trained(net: nn.Module, *, negative: bool = False) -> nn.Module:
    """A network in evaluation mode whose BatchNorms are at no special point."""
    for norm in net.modules():
        if isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d):
            assert norm.running_mean is not None
            assert norm.running_var is not None
            nn.init.normal_(norm.running_mean)
            nn.init.uniform_(norm.running_var, 0.5, 2.0)
            nn.init.uniform_(norm.weight, *((-2.0, -0.5) if negative else (0.5, 2.0)))
            nn.init.normal_(norm.bias)
    return net.double().eval()


def _foldable() -> dict[str, tuple[nn.Module, Tensor]]:
    """Networks whose BatchNorms can all be folded, each with an input."""
    images, rows = normal(4, 3, 8, 8), normal(4, 6)
    norm3, norm4 = nn.BatchNorm2d(3), nn.BatchNorm2d(4)
    pooled = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 5))
    nets: dict[str, tuple[Tensor, tuple[nn.Module, ...]]] = {
        "Conv → BN": (images, (nn.Conv2d(3, 4, 3), norm4)),
        "grouped Conv → BN": (
            images,
            (nn.Conv2d(3, 6, 3, groups=3), nn.BatchNorm2d(6)),
        ),
        "transposed Conv → BN": (images, (nn.ConvTranspose2d(3, 4, 3), norm4)),
        "Linear → BN": (rows, (nn.Linear(6, 5), nn.BatchNorm1d(5))),
        "BN → Linear": (rows, (nn.BatchNorm1d(6), nn.Linear(6, 5))),
        "BN → Conv, no padding": (images, (norm3, nn.Conv2d(3, 4, 3))),
        "Conv → max pool → BN": (
            images,
            (nn.Conv2d(3, 4, 3), nn.MaxPool2d(2), norm4),
        ),
        "BN → pool → Linear": (images, (norm3, *pooled)),
    }
    return {
        name: (_trained(nn.Sequential(*layers)), x)
        for name, (x, layers) in nets.items()
    }


def _not_foldable() -> list[tuple[nn.Module, Tensor]]:
    """Networks whose BatchNorm must stay, each with an input.

    Linear → BN over the positions of (N, L, C), L = C; BN → Conv padded with zeros; and
    Conv → max pool → BN with a negative scale.
    """
    images = normal(4, 3, 8, 8)
    pooled = nn.Sequential(nn.Conv2d(3, 4, 3), nn.MaxPool2d(2), nn.BatchNorm2d(4))
    padded = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3, padding=1))
    tokens = nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6))
    return [
        (_trained(tokens), normal(4, 6, 6)),
        (_trained(padded), images),
        (_trained(pooled, negative=True), images),
    ]


def _pair() -> float:
    """How far the weights of a folded pair are from r ∘ W and r ∘ c + s."""
    linear, norm = nn.Linear(16, 8), nn.BatchNorm1d(8)
    pair = _trained(nn.Sequential(linear, norm))
    assert norm.running_mean is not None
    assert norm.running_var is not None
    r = norm.weight / (norm.running_var + norm.eps).sqrt()
    s = norm.bias - r * norm.running_mean
    folded = fold(pair, normal(4, 16)).model.get_submodule("0")
    assert isinstance(folded, nn.Linear)
    weight = relative(folded.weight, r[:, None] * linear.weight)
    return max(weight, relative(folded.bias, r * linear.bias + s))


def _speed_networks() -> dict[str, tuple[nn.Module, Tensor]]:
    """Networks as they are deployed, in float32, each with an input."""

    def conv(groups: int, kernel: int) -> list[nn.Module]:
        pad = kernel // 2
        layer = nn.Conv2d(32, 32, kernel, padding=pad, groups=groups, bias=False)
        return [layer, nn.BatchNorm2d(32), nn.ReLU()]

    def dense() -> list[nn.Module]:
        return [nn.Linear(128, 128), nn.BatchNorm1d(128), nn.ReLU()]

    images = torch.randn(8, 32, 16, 16)
    stack = nn.Sequential(*(conv(1, 3) + conv(1, 3) + conv(1, 3)))
    depthwise = nn.Sequential(*(conv(32, 3) + conv(1, 1) + conv(32, 3) + conv(1, 1)))
    mlp = _trained(nn.Sequential(*(dense() + dense() + dense()))).float()
    return {
        "conv stack": (_trained(stack).float(), images),
        "depthwise": (_trained(depthwise).float(), images),
        "MLP, batch 512": (mlp, torch.randn(512, 128)),
        "MLP, batch 1": (mlp, torch.randn(1, 128)),
    }


def _speedup(net: nn.Module, folded: nn.Module, x: Tensor) -> float:
    """How many times faster the folded network is: the best of some rounds."""
    with torch.inference_mode():
        plain, quick = (
            min(repeat(lambda model=model: model(x), number=3, repeat=15))  # type: ignore[misc]
            for model in (net, folded)
        )
    return plain / quick
