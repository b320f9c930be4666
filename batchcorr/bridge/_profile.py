r"""A profile: what recalibration needs to know of the source, without its data.

For every BatchNorm layer it holds the source's mean and variance (measured, all layers
before it measured too), how the statistics of a small support err, and the mean and
variance of each class where labels were given. It is saved beside the weights, and knows
its model by two numbers of each weight w,

    ‖w‖,      Σ cos(i) w_i / ‖w‖

which are the same on every device, and nearly so after the weights were rounded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from batchcorr._files import npz
from batchcorr._files.expected import Expected
from batchcorr.bridge._norms import batch_norms
from batchcorr.bridge._running import wide
from batchcorr.bridge._torch import torch
from batchcorr.errors import FileError, InputError
from batchcorr.models.channel_shrinkage import Null

if TYPE_CHECKING:
    from os import PathLike

    from numpy.typing import NDArray
    from torch import nn
    from torch.nn.modules.batchnorm import _BatchNorm

    Floats = NDArray[np.float64]

__all__ = ["LayerProfile", "Profile", "fingerprints", "layer_of", "require_weights"]

SCHEMA = 4
SAME = 0.01
"""Share by which fingerprints may differ from those of the profile's model."""


@dataclass(frozen=True)
class LayerProfile:
    """One layer of C channels; S support sizes; K classes, or 0 without labels.

    `mean` and `variance` are the source's, (C,). In its units, by size, (S, C), are the
    variance of a support's mean, `location_noise`, and bias and variance of its log
    variance, `log_bias` and `log_variance`: NaN where a single row has none. `effective`
    are the independent channels that means and log variances count for, (2,);
    `class_mean` and `class_square` the means of z and z², z = (x - mean)/sd, (K, C).
    """

    mean: Floats
    variance: Floats
    location_noise: Floats
    log_bias: Floats
    log_variance: Floats
    effective: Floats
    class_mean: Floats
    class_square: Floats

    def mixture(self, shares: Floats) -> tuple[Floats, Floats]:
        """Mean and variance of z in a mixture of classes: (C,) each."""
        mean = shares @ self.class_mean
        return mean, np.maximum(shares @ self.class_square - mean**2, 1e-6)

    def null(self, sizes: NDArray[np.int64], n: int, *, single: bool) -> Null:
        """The errors of n samples: between sizes log-linear, beyond them as 1/n.

        A channel with a `single` row in all tells nothing of its variance.
        """
        bias = variance = None
        measured = ~np.isnan(self.log_bias[:, 0])
        if not single and measured.any():
            bias, variance = (
                _between(sizes[measured], values[measured], n)
                for values in (self.log_bias, self.log_variance)
            )
        noise = _between(sizes, self.location_noise, n)
        return Null(noise, bias, variance, *map(float, self.effective))


@dataclass(frozen=True, repr=False)
class Profile:
    """What `recalibrate` knows of the source domain; made by `profile`.

    Parameters
    ----------
    layers
        By name, in the order of their calls.
    sizes
        Support sizes at which errors were measured: (S,).
    shares
        Share of each class in the source: (K,), empty without labels.
    weights
        Two numbers of each parameter, by which the model is known again.

    Examples
    --------
    >>> import os, tempfile, torch
    >>> from batchcorr.bridge import profile
    >>> model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    >>> source = [torch.randn(64, 3, generator=torch.Generator().manual_seed(0))]
    >>> path = os.path.join(tempfile.mkdtemp(), "model.profile.npz")
    >>> profile(model, source).save(path)
    >>> Profile.load(path)
    Profile of 1 BatchNorm layer (4 channels), for supports of 1 to 64, without classes
    """

    layers: dict[str, LayerProfile]
    sizes: NDArray[np.int64]
    shares: NDArray[np.float64]
    weights: dict[str, NDArray[np.float64]]

    def __repr__(self) -> str:
        count = len(self.layers)
        channels = sum(len(layer.mean) for layer in self.layers.values())
        classes = f"with {len(self.shares)}" if len(self.shares) else "without"
        return (
            f"Profile of {count} BatchNorm layer{'s' * (count != 1)} ({channels} channels)"
            f", for supports of {self.sizes.min()} to {self.sizes.max()}, {classes} classes"
        )

    def save(self, path: str | PathLike[str]) -> None:
        """Write the profile; the file is complete or not there.

        Parameters
        ----------
        path
            The file to write, .npz.
        """
        names = {"layers": list(self.layers), "weights": list(self.weights)}
        arrays: dict[str, Any] = {"sizes": self.sizes, "shares": self.shares}
        arrays["weights"] = np.reshape(list(self.weights.values()), (-1, 2))
        for number, layer in enumerate(self.layers.values()):
            arrays |= {f"{number}.{name}": value for name, value in vars(layer).items()}
        npz.write(path, {"schema": SCHEMA, "kind": "profile", **names}, arrays)

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Profile:
        """Read what `save` wrote.

        Parameters
        ----------
        path
            The file.

        Returns
        -------
        Profile
            The profile.

        Raises
        ------
        FileError
            If the file cannot be read, or is no profile of this schema.
        """
        again = "Make it again with profile(model, source_loader).save(path)."
        otherwise = (
            f"{path} is no profile saved by batchcorr, or it is damaged. {again}"
        )
        with npz.reading(path, otherwise) as (header, arrays):
            if int(header["schema"]) != SCHEMA:
                msg = f"{path} was saved by another version of batchcorr. {again}"
                raise FileError(msg)
            s, k = (npz.shape_of(arrays, name)[0] for name in ("sizes", "shares"))
            expected = {
                "sizes": Expected((s,), "i", least=1),
                "shares": Expected((k,), least=0),
                "weights": Expected((len(header["weights"]), 2)),
            }
            own = npz.take(arrays, expected)
            weights = dict(zip(header["weights"], own["weights"], strict=True))
            layers = {
                name: _layer(arrays.under(f"{number}."), s, k)
                for number, name in enumerate(header["layers"])
            }
            return cls(layers, own["sizes"], own["shares"], weights)


def _layer(arrays: npz.Arrays, s: int, k: int) -> LayerProfile:
    """The layer of these arrays, each of the shape that it must have."""
    (c,) = npz.shape_of(arrays, "mean")
    expected = {
        "mean": Expected((c,)),
        "variance": Expected((c,)),
        "location_noise": Expected((s, c)),
        "log_bias": Expected((s, c), finite=False),
        "log_variance": Expected((s, c), finite=False),
        "effective": Expected((2,)),
        "class_mean": Expected((k, c if k else 0)),
        "class_square": Expected((k, c if k else 0)),
    }
    return LayerProfile(**npz.take(arrays, expected))


def layer_of(profile: Profile, name: str, norm: _BatchNorm) -> LayerProfile:
    """What a profile holds of a layer; refuse one of another model."""
    layer = profile.layers.get(name)
    if layer is None or len(layer.mean) != norm.num_features:
        msg = (
            f"The profile is of another model: it has no layer {name!r} of "
            f"{norm.num_features} channels. Make one of this model with "
            "profile(model, source_loader)."
        )
        raise InputError(msg)
    return layer


def require_weights(profile: Profile, model: nn.Module) -> None:
    """Refuse a model with other weights than that of which this is the profile."""
    for name, own in fingerprints(model).items():
        known = profile.weights.get(name)
        if known is not None and not np.allclose(own, known, SAME, SAME):
            msg = (
                f"The profile is of a model with other weights: {name!r} differs. "
                "Load the weights it was made with, or make it again with "
                "profile(model, source_loader)."
            )
            raise InputError(msg)


def fingerprints(model: nn.Module) -> dict[str, Floats]:
    """Two numbers of each parameter up to the last BatchNorm, by name."""
    last = list(batch_norms(model).values())[-1]
    numbers = {}
    for prefix, module in model.named_modules():
        for name, parameter in module.named_parameters(prefix, recurse=False):
            flat = parameter.detach().cpu().flatten()
            real = torch.view_as_real(flat).flatten() if flat.is_complex() else flat
            real, norm = wide(real), float(wide(real).norm())
            turning = torch.cos(
                torch.arange(len(real), dtype=torch.float64, device="cpu")
            )
            inner = float((turning * real).sum())
            numbers[name] = np.array([norm, inner / (norm or 1.0)])
        if module is last:
            break
    return numbers


def _between(sizes: NDArray[np.int64], values: Floats, n: int) -> Floats:
    """Values at n, interpolated as n · value over log n."""
    scaled = values * sizes[:, None]
    place = np.interp(np.log(n), np.log(sizes), np.arange(len(sizes)))
    low = int(place)
    high = min(low + 1, len(sizes) - 1)
    at: Floats = scaled[low] + (place - low) * (scaled[high] - scaled[low])
    return at / n
