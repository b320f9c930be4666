"""A profile: what recalibration needs to know of the source, without its data.

For every BatchNorm layer it holds the source's mean and variance (measured, all layers
before it measured too), how the statistics of a small support err, and the mean and
variance of each class where labels were given. It is saved beside the weights.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from batchcorr._files import npz
from batchcorr.bridge._norms import affine_of, channels_of
from batchcorr.bridge._null_table import NullTable
from batchcorr.errors import FileError, InputError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from os import PathLike

    from numpy.typing import NDArray
    from torch.nn.modules.batchnorm import _BatchNorm

__all__ = ["LayerProfile", "Profile", "weights_of"]

SCHEMA = 3
SAME = 0.01
"""Share by which γ, β and fingerprints may differ from those of the profile's model."""


@dataclass(frozen=True)
class LayerProfile:
    """One layer of C channels; K classes, or 0 where there were no labels.

    Attributes
    ----------
    mean, variance
        Of the source: (C,).
    weight, bias
        γ and β, to know the model again: (C,).
    producers
        Fingerprints of the P parameters before the layer, for the same end: (P, 3).
    null
        Errors of a support.
    class_null
        Errors of a support whose classes are known; None without labels.
    class_mean, class_square
        Mean of z and z² in each class, z = (x - mean)/sd: (K, C).
    """

    mean: NDArray[np.float64]
    variance: NDArray[np.float64]
    weight: NDArray[np.float64]
    bias: NDArray[np.float64]
    producers: NDArray[np.float64]
    null: NullTable
    class_null: NullTable | None
    class_mean: NDArray[np.float64]
    class_square: NDArray[np.float64]

    def mixture(
        self, shares: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean and variance of z in a mixture of classes: (…, C) each."""
        mean = shares @ self.class_mean
        return mean, np.maximum(shares @ self.class_square - mean**2, 1e-6)


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
        header = {"schema": SCHEMA, "kind": "profile", "layers": list(self.layers)}
        arrays: dict[str, Any] = {"sizes": self.sizes, "shares": self.shares}
        for number, layer in enumerate(self.layers.values()):
            for name, value in _arrays(layer).items():
                arrays[f"{number}.{name}"] = value
        npz.write(path, header, arrays)

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Profile:
        """Read what `save` wrote.

        Parameters
        ----------
        path
            The file.

        Returns
        -------
        The profile.

        Raises
        ------
        FileError
            If the file cannot be read, or is no profile of this schema.

        Examples
        --------
        >>> Profile.load("nowhere.npz")
        Traceback (most recent call last):
        batchcorr.errors.FileError: There is no file nowhere.npz.
        """
        otherwise = (
            f"{path} is no profile saved by batchcorr, or it is damaged. Make it "
            "again with profile(model, source_loader).save(path)."
        )
        with npz.reading(path, otherwise) as (header, arrays):
            if int(header["schema"]) > SCHEMA:
                msg = (
                    f"{path} was saved by a newer batchcorr (schema "
                    f"{header['schema']}; this one reads {SCHEMA}): update it."
                )
                raise FileError(msg)
            if int(header["schema"]) < SCHEMA:
                msg = (
                    f"{path} was saved by an older batchcorr, which measured other "
                    "things. Make it again with profile(model, source_loader)."
                )
                raise FileError(msg)
            (n_sizes,), (n_classes,) = (
                npz.shape_of(arrays, name) for name in ("sizes", "shares")
            )
            own = npz.take(
                arrays,
                {
                    "sizes": npz.Expected((n_sizes,), "i", least=1),
                    "shares": npz.Expected((n_classes,), least=0),
                },
            )
            layers = {
                name: _layer(arrays.under(f"{number}."), n_sizes, n_classes)
                for number, name in enumerate(header["layers"])
            }
            return cls(layers, **own)

    def require(
        self,
        order: Mapping[str, _BatchNorm],
        producers: Mapping[str, NDArray[np.float64]],
    ) -> None:
        """Refuse layers of which this is not the profile.

        Parameters
        ----------
        order
            The layers, by name.
        producers
            Fingerprints of the parameters before each.

        Raises
        ------
        InputError
            If names, channels, γ and β, or the weights before them differ.
        """
        for name, norm in order.items():
            layer = self.layers.get(name)
            if layer is None or len(layer.mean) != channels_of(norm):
                what = "is not in it" if layer is None else f"has {len(layer.mean)}"
                msg = (
                    "The profile is of another model: the layer "
                    f"{name!r} of {channels_of(norm)} channels {what}. Make one of "
                    "this model with profile(model, source_loader)."
                )
                raise InputError(msg)
            what = _difference(layer, norm, producers[name])
            if what:
                msg = (
                    f"The profile is of a model with other weights: {what} the layer "
                    f"{name!r} differ. Load the weights it was made with, or make it "
                    "again with profile(model, source_loader)."
                )
                raise InputError(msg)


def weights_of(norm: _BatchNorm) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """γ and β of a layer, 1 and 0 where it has none."""
    size = channels_of(norm)
    weight, bias = affine_of(norm)
    return (
        np.ones(size) if weight is None else weight.cpu().numpy(),
        np.zeros(size) if bias is None else bias.cpu().numpy(),
    )


def _difference(
    layer: LayerProfile, norm: _BatchNorm, producers: NDArray[np.float64]
) -> str:
    """Which weights differ from those of the profile, or "" if none do."""
    for found, known in zip(weights_of(norm), (layer.weight, layer.bias), strict=True):
        if not np.allclose(found, known, rtol=SAME, atol=SAME):
            return "γ or β of"
    known = layer.producers
    few, many = sorted((producers, known), key=len)
    near = np.isclose(few[:, None, :], many[None, :, :], rtol=SAME, atol=SAME)
    found_again = np.any(np.all(near, axis=2), axis=1)  # a call need not use them all
    same = bool(np.all(found_again)) and (len(few) > 0 or len(many) == 0)
    return "" if same else "the weights before"


def _arrays(layer: LayerProfile) -> dict[str, NDArray[np.float64]]:
    """The arrays of a layer by name, those of its tables after a dot."""
    found = {}
    for field in fields(layer):
        value = getattr(layer, field.name)
        if isinstance(value, NullTable):
            for inner in fields(value):
                found[f"{field.name}.{inner.name}"] = getattr(value, inner.name)
        elif value is not None:
            found[field.name] = value
    return found


def _layer(arrays: npz.Arrays, n_sizes: int, n_classes: int) -> LayerProfile:
    """The layer of these arrays, each of the shape that it must have."""
    (c,), (n_producers, _) = (
        npz.shape_of(arrays, name) for name in ("mean", "producers")
    )
    own = {name: npz.Expected((c,)) for name in ("mean", "variance", "weight", "bias")}
    own["producers"] = npz.Expected((n_producers, 3))
    own["class_mean"] = own["class_square"] = npz.Expected(
        (n_classes, c if n_classes else 0)
    )
    tables = {
        "location_noise": npz.Expected((n_sizes, 2, c)),
        "log_variance": npz.Expected((n_sizes, 2, c), finite=False),
        "log_bias": npz.Expected((n_sizes, c), finite=False),
        "effective": npz.Expected((2,)),
    }
    null = NullTable(**npz.take(arrays.under("null."), tables))
    stored = arrays.under("class_null.")
    class_null = NullTable(**npz.take(stored, tables)) if len(stored) else None
    return LayerProfile(null=null, class_null=class_null, **npz.take(arrays, own))
