r"""BatchNorm at inference is a fixed affine map, and its neighbour can take it up.

    BN(x) = r ∘ x + s,      r ∘ (W x + c) + s = (r ∘ W) x + (r ∘ c + s)

exactly, but for rounding; where it could not be exact, the BatchNorm stays.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn

from batchcorr.arrays.generic import tensor_affine
from batchcorr.bridge._fold import fold
from batchcorr.bridge._fold.weights import layer_weights
from batchcorr.bridge._norms import correction_of
from batchcorr.bridge.claims import _foldable
from batchcorr.bridge.claims._figures import BLUE, GREY, VERMILION, panel
from batchcorr.bridge.claims._networks import normal, relative, seeded
from batchcorr.bridge.claims._result import Claim, Measured, reported, zero

if TYPE_CHECKING:
    from collections.abc import Mapping

    from matplotlib.figure import Figure

    from batchcorr.bridge._fold import Folded

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
    >>> folding().measured["pair"].holds
    True
    """
    folded = {name: fold(*given) for name, given in _foldable.foldable().items()}
    kept = {name: fold(*given) for name, given in _foldable.not_foldable().items()}
    speeds, single = {}, []
    for name, (net, x) in _foldable.speed_networks().items():
        result = fold(net, x)
        single.append(result.error)
        speeds[name] = _foldable.speedup(net, result.model, x)
    return Claim(
        name="folding",
        title="BatchNorm at inference folds into its neighbour without error",
        statement=(
            "At inference BatchNorm is a fixed affine map. Taken up by the weights of a "
            "neighbour it is exact to rounding; where it cannot be exact it is kept. How "
            "much faster that is depends on network and machine."
        ),
        measured={
            "affine": zero("BN(eval) against r x + s", _affine(), 1e-12),
            "pair": zero("Linear → BN against r ∘ W, r ∘ c + s", _pair(), 1e-12),
            **{
                f"fold, {name}": zero(f"folded: {name}", result.error, 1e-12)
                for name, result in folded.items()
            },
            "left": zero("BatchNorms left in these networks", _left(folded), 0),
            "kept": Measured(
                f"BatchNorms kept, of {len(kept)} that must be",
                _left(kept),
                len(kept),
                0,
            ),
            "float32": zero("folded in float32, the worst", max(single), 1e-5),
            **{
                f"speed, {name}": reported(f"times faster: {name}", ratio)
                for name, ratio in speeds.items()
            },
        },
        series={
            "errors": {name: result.error for name, result in folded.items()},
            "kept": list(kept),
        },
        draw=_draw,
    )


def _left(results: Mapping[str, Folded]) -> float:
    return float(sum(len(result.kept) for result in results.values()))


def _affine() -> float:
    """Return how far evaluation is from the frozen correction."""
    norm, x = nn.BatchNorm1d(8), normal(64, 8)
    _foldable.settled(norm)
    return relative(tensor_affine(x, correction_of(norm)), norm(x))


def _pair() -> float:
    """Return how far the weights of a folded pair are from the pair."""
    linear, norm, x = nn.Linear(16, 8), nn.BatchNorm1d(8), normal(64, 16)
    pair = _foldable.settled(nn.Sequential(linear, norm))
    weight, bias = layer_weights(linear.weight, linear.bias, None, correction_of(norm))
    return relative(x @ weight.T + bias, pair(x))


def _draw(figure: Figure, series: Mapping[str, Any]) -> None:
    """Draw the error of each folded network, and name those that are kept."""
    errors, kept = series["errors"], series["kept"]
    names = [*errors, *kept][::-1]
    figure.set_size_inches(figure.get_figwidth(), 0.2 * len(names) + 0.9)
    axes = panel(figure.subplots(), x="relative error after folding")
    for row, name in enumerate(names):
        if name in errors:
            axes.plot([1e-17, errors[name]], [row, row], color=BLUE, linewidth=0.8)
            axes.plot(errors[name], row, "o", color=BLUE)
        else:
            axes.text(2e-17, row, "kept", color=VERMILION, va="center")
    axes.axvline(1e-12, color=GREY, linewidth=0.6, linestyle=(0, (4, 2)))
    axes.text(1e-12, len(names) - 0.4, "tolerance", color=GREY, ha="center")
    axes.set(xscale="log", xlim=(1e-17, 1e-11), ylim=(-0.6, len(names)))
    axes.set_xticks([1e-16, 1e-14, 1e-12])
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(axis="y", length=0)
    for text, name in zip(axes.get_yticklabels(), names, strict=True):
        text.set_color(BLUE if name in errors else VERMILION)
