"""Layers that say of themselves which one correction they are: `as_correction()`.

While the model is followed, a plain BatchNorm of the same effect stands in for such a
layer, whatever its own code does; whether it told the truth is measured at the end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from batchcorr.bridge._fold.sharing import place
from batchcorr.bridge._fold.weights import one_map
from batchcorr.bridge._norms import correction_of
from batchcorr.bridge._torch import torch

if TYPE_CHECKING:
    from torch import Tensor

    from batchcorr.models.location_scale import LocationScale

__all__ = ["PassThrough", "StandIn", "corrections_in"]

UNTRACKED = (
    "it keeps no running statistics (track_running_stats=False): it normalizes each "
    "batch by itself, in evaluation too"
)


class PassThrough(nn.Identity):
    """What is left of a layer that may have been given more than activations."""

    def forward(self, input: Tensor, *_: object, **__: object) -> Tensor:
        """Return the activations."""
        return input


class StandIn(_BatchNorm):
    """A BatchNorm of any number of dimensions that is one given correction."""

    def __init__(self, correction: LocationScale, like: Tensor) -> None:
        super().__init__(correction.n_features, device=like.device, dtype=like.dtype)
        self.eps = 0.0
        with torch.no_grad():
            self.weight.copy_(correction.scale[0])
            self.bias.copy_(correction.shift[0])
        self.eval()

    def _check_input_dim(self, input: Tensor) -> None:
        """Take any."""

    def forward(self, input: Tensor, *_: object, **__: object) -> Tensor:
        """Correct the activations, whatever else is given."""
        return super().forward(input)


def corrections_in(model: nn.Module) -> tuple[dict[str, LocationScale], dict[str, str]]:
    """Return the corrections of a model's layers, and why some have no single one.

    Layers with `as_correction()` are replaced by stand-ins in the model.
    """
    found: dict[str, LocationScale] = {}
    without: dict[str, str] = {}
    for path, module in list(model.named_modules()):
        if any(path.startswith(f"{outer}.") for outer in (*found, *without)):
            continue  # a part of a layer that speaks for itself
        if hasattr(module, "as_correction"):
            correction = _given(module)
            if correction is None:
                without[path] = "it is not one correction for all rows (as_correction)"
                continue
            found[path] = correction
            place(model, path, StandIn(correction, _like(module)))
        elif isinstance(module, _BatchNorm):
            if module.running_mean is None:
                without[path] = UNTRACKED
            else:
                found[path] = correction_of(module)
    return found, without


def _given(module: Any) -> LocationScale | None:
    """Return what a layer says it does, in float64."""
    correction = module.as_correction()
    if correction is None or correction.n_batches != 1:
        return None
    return one_map(
        correction.scale[0].detach().double(), correction.shift[0].detach().double()
    )


def _like(module: nn.Module) -> Tensor:
    """Return a floating-point tensor of a layer, for its device and dtype."""
    tensors = [*module.parameters(), *module.buffers()]
    return next((x for x in tensors if x.is_floating_point()), torch.empty(0))
