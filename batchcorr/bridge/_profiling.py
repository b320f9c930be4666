r"""Measure a profile: the source's statistics, and how those of small supports err.

Supports are drawn from the source's own minibatches, many at a time: a run of G
supports of n samples has its BatchNorm layers standardize every support by itself, as
if each were a domain. At every layer, in units of the source's mean and sd,

    γ̂ = mean,   δ̂² = variance   of a support;   N = var γ̂,  b = E log δ̂²,
    V = var log δ̂²   over supports

Positions of an image are not replicates, so that whole samples are drawn. And a layer
after corrected ones meets supports whose peculiarity is partly gone: N and V are
measured with all of it left and with all of it absorbed, in location and in scale.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from batchcorr.arrays.generic import tensor_affine, tensor_moments
from batchcorr.bridge._batches import read_batches
from batchcorr.bridge._fingerprints import fingerprints
from batchcorr.bridge._layerwise import (
    call_order,
    correct,
    keeping,
    require_reusable,
)
from batchcorr.bridge._null_table import NullTable
from batchcorr.bridge._profile import LayerProfile, Profile, weights_of
from batchcorr.bridge._rows import positions
from batchcorr.bridge._running import evaluating, input_of, run
from batchcorr.bridge._source_classes import add_classes, class_shares, labels_of
from batchcorr.bridge._torch import torch
from batchcorr.errors import InputError
from batchcorr.models.channel_shrinkage import FLOOR, effective_number
from batchcorr.models.location_scale import LocationScale

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from numpy.typing import NDArray
    from torch import Tensor, nn
    from torch.nn.modules.batchnorm import _BatchNorm

    from batchcorr.bridge._layerwise import Observed

__all__ = ["profile"]

LARGEST = 64
"""Largest support that is drawn; errors of larger ones fall as 1/n."""

CORNERS = ((0, 0), (0, 1), (1, 0), (1, 1))
"""Whether the layers before absorb a support's location and its scale."""


def profile(model: nn.Module, source_loader: Iterable[Any]) -> Profile:
    """Measure what `recalibrate` needs to know of the data a model was trained on.

    Parameters
    ----------
    model
        A torch model with BatchNorm layers; it is put back as it was.
    source_loader
        Source data, shuffled: a DataLoader, or a list of minibatches. Where it gives
        tuples whose second item are integer labels, the moments of classes are kept
        too, which `method="eb_cov"` needs; label k must be the model's logit k. Some
        thousand samples are enough. Supports are drawn inside minibatches: those of a
        few hundred samples are best.

    Returns
    -------
    Profile
        To be saved beside the weights, `profile.save("model.profile.npz")`.

    Raises
    ------
    InputError
        If the model has no BatchNorm layers, or lazy ones; if a layer is called twice,
        in some minibatches only, or keeps no statistics; if the loader is an iterator,
        has minibatches of one sample only, or values that are not finite; if labels are
        not 0 … K-1.

    Warns
    -----
    CovariateWarning
        If labels are given in a form that is not read: one-hot, or not integers.

    Notes
    -----
    One run over the loader, and one for each layer; then some 14,000 samples, four times,
    and again four times with labels. A channel without variance in the source has no
    profile: it keeps its statistics. The random numbers are the same every time.

    Examples
    --------
    >>> import torch
    >>> generator = torch.Generator().manual_seed(0)
    >>> model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    >>> found = profile(model, [torch.randn(200, 3, generator=generator)])
    >>> found.sizes.tolist()
    [1, 2, 4, 8, 16, 32, 64]
    """
    require_reusable(source_loader)
    order = call_order(model, source_loader)
    producers = fingerprints(model, source_loader, order)
    with keeping(order):
        found = correct(model, source_loader, order, _pooled)
        source = {
            name: (mean.cpu().numpy(), variance.cpu().numpy())
            for name, (mean, variance) in found.items()
        }
        shares = class_shares(source_loader)
        classes = add_classes(model, source_loader, order, source, len(shares))
        largest = max(batch.size for batch in read_batches(source_loader))
        if largest < 2:
            msg = (
                "The source loader gives one sample at a time, and supports are drawn "
                "inside minibatches: give some hundred samples at a time."
            )
            raise InputError(msg)
        sizes = 2 ** np.arange(int(np.log2(min(largest, LARGEST))) + 1)
        drawn = _Drawn(model, source_loader, order, source)
        plain = _tables(drawn, sizes, None)
        within = _tables(drawn, sizes, classes) if classes else {}
    none = np.empty((0, 0))
    layers = {}
    for name, norm in order.items():
        mean, variance = source[name]
        class_mean, class_square = classes[name] if classes else (none, none)
        weight, bias = weights_of(norm)
        layers[name] = LayerProfile(
            mean,
            variance,
            weight,
            bias,
            producers[name],
            plain[name],
            within.get(name),
            class_mean,
            class_square,
        )
    return Profile(layers, sizes, shares)


def _pooled(_name: str, observed: Observed) -> tuple[Tensor, Tensor]:
    moments = observed.moments
    return moments.mean[0], moments.squares[0] / moments.n[0]


class _Drawn(NamedTuple):
    """Where supports come from, and what they are compared to."""

    model: nn.Module
    loader: Iterable[Any]
    order: Mapping[str, _BatchNorm]
    source: Mapping[str, tuple[NDArray[np.float64], NDArray[np.float64]]]


Classes = dict[str, tuple["NDArray[np.float64]", "NDArray[np.float64]"]]
Sample = dict[str, tuple["NDArray[np.float64]", "NDArray[np.float64]"]]
"""γ̂ and log δ̂² of supports, by layer: (supports, C) each."""


def _tables(
    drawn: _Drawn, sizes: NDArray[np.int64], classes: Classes | None
) -> dict[str, NullTable]:
    """Return the tables of all layers; with classes, of supports whose mix is known."""
    shape = {name: norm.num_features for name, norm in drawn.order.items()}
    noise = {name: np.empty((len(sizes), 2, 2, c)) for name, c in shape.items()}
    spread = {name: np.empty((len(sizes), 2, 2, c)) for name, c in shape.items()}
    bias = {name: np.empty((len(sizes), c)) for name, c in shape.items()}
    effective = {name: np.ones(2) for name in shape}
    for s, n in enumerate(sizes):
        for a, b in CORNERS:
            now = {name: bias[name][s] for name in shape} if (a, b) != (0, 0) else {}
            sample = _sample(drawn, int(n), (a, b), now, classes)
            for name, (gamma, logs) in sample.items():
                noise[name][s, a, b] = gamma.var(axis=0, ddof=1)
                spread[name][s, a, b] = logs.var(axis=0, ddof=1)
                if (a, b) == (0, 0):
                    bias[name][s] = logs.mean(axis=0)
                    if n <= 1:
                        effective[name][0] = effective_number(gamma)
                    if n <= 4:
                        effective[name][1] = effective_number(logs)
    return {
        name: NullTable(noise[name], spread[name], bias[name], effective[name])
        for name in shape
    }


def _sample(
    drawn: _Drawn,
    n: int,
    absorbed: tuple[int, int],
    bias: Mapping[str, NDArray[np.float64]],
    classes: Classes | None,
) -> Sample:
    """Draw supports of n samples and return their statistics at every layer."""
    parts: dict[str, list[tuple[Any, Any]]] = {name: [] for name in drawn.order}
    wanted = max(64, min(512, 2048 // n))
    with ExitStack() as stack:
        supports = _Supports(drawn, absorbed, bias, classes, parts)
        for name, norm in drawn.order.items():
            hook = supports.hook(name)
            handle = norm.register_forward_hook(hook, with_kwargs=True)
            stack.callback(handle.remove)
        stack.enter_context(evaluating(drawn.model))
        count = 0
        for inputs, labels in _draws(drawn.loader, n):
            supports.begin(n, labels)
            run(drawn.model, inputs)
            count += supports.count
            if count >= wanted:
                break
    return {
        name: (
            np.concatenate([gamma for gamma, _ in values]),
            np.concatenate([logs for _, logs in values]),
        )
        for name, values in parts.items()
    }


def _draws(loader: Iterable[Any], n: int) -> Iterator[tuple[Any, Any]]:
    """Yield inputs and labels of whole supports, samples in random order, for ever."""
    rng = np.random.default_rng(n)
    while True:
        for batch in read_batches(loader):
            whole = batch.size // n * n
            if not whole:
                continue
            pick = torch.as_tensor(rng.permutation(batch.size)[:whole])
            labels = labels_of(batch)
            if isinstance(batch.inputs, dict):
                inputs: Any = {k: v[pick.to(v.device)] for k, v in batch.inputs.items()}
            else:
                inputs = batch.inputs[pick.to(batch.inputs.device)]
            yield inputs, None if labels is None else labels[pick.numpy()]


class _Supports:
    """Hooks that let BatchNorm layers standardize every support by itself."""

    def __init__(
        self,
        drawn: _Drawn,
        absorbed: tuple[int, int],
        bias: Mapping[str, NDArray[np.float64]],
        classes: Classes | None,
        parts: dict[str, list[tuple[Any, Any]]],
    ) -> None:
        self.drawn, self.absorbed, self.bias = drawn, absorbed, bias
        self.classes, self.parts = classes, parts
        self.size, self.count, self.labels = 1, 0, None

    def begin(self, size: int, labels: Any) -> None:
        """Say how many samples a support of the next run has, and their labels."""
        self.size, self.labels = size, labels

    def hook(self, name: str) -> Any:
        """Return the hook of a layer: it replaces the layer's output."""

        def standardize(
            norm: _BatchNorm, args: Any, kwargs: Any, _output: Any
        ) -> Tensor:
            x = input_of(args, kwargs)
            self.count = x.shape[0] // self.size
            rows = _side_by_side(x, self.count)
            moments = tensor_moments(rows)
            mean = moments.mean.reshape(self.count, -1).double().cpu().numpy()
            squares = moments.squares.reshape(self.count, -1).double().cpu().numpy()
            variance = squares / float(moments.n[0, 0])
            mean, variance = self._corrected(name, mean, variance, len(rows) == 1)
            weight, bias = weights_of(norm)
            scale = weight / np.sqrt(variance + norm.eps)
            shift = bias - scale * mean
            none = np.empty((0, scale.size))
            values = [scale.reshape(1, -1), shift.reshape(1, -1), none, none]
            like = moments.mean
            correction = LocationScale(*(like.new_tensor(v) for v in values))
            return _apart(tensor_affine(rows, correction), x.shape, self.count)

        return standardize

    def _corrected(
        self,
        name: str,
        mean: NDArray[np.float64],
        variance: NDArray[np.float64],
        single: bool,  # noqa: FBT001
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Keep γ̂ and log δ̂² of the supports, and return what they are standardized by.

        Parameters are means and variances, (G, C).
        """
        at, squared = self.drawn.source[name]
        known = squared > 0
        sd = np.sqrt(np.where(known, squared, 1.0))
        centre: Any = 0.0
        expected: Any = 1.0
        if self.classes is not None:
            centre, expected = self._mixture(name)
        location, scale = self.absorbed
        if single:
            logs = np.full(mean.shape, np.nan)
            moved = np.zeros(mean.shape)
        else:
            ratio = np.where(known, variance / sd**2, 1.0)
            logs = np.log(np.maximum(ratio, FLOOR) / expected)
            moved = scale * (logs - self.bias.get(name, logs.mean(axis=0)))
        gamma = np.where(known, (mean - at) / sd, 0.0) - np.exp(moved / 2) * centre
        self.parts[name].append((gamma, logs))
        return at + sd * location * gamma, squared * np.exp(moved)

    def _mixture(self, name: str) -> tuple[Any, Any]:
        """Return mean and variance that supports of these classes have in the source."""
        assert self.classes is not None
        assert self.labels is not None
        means, squares = self.classes[name]
        shares = np.eye(len(means))[self.labels].reshape(self.count, self.size, -1)
        mean = shares.mean(axis=1) @ means
        return mean, np.maximum(shares.mean(axis=1) @ squares - mean**2, 1e-6)


def _side_by_side(x: Tensor, count: int) -> Tensor:
    """Return G supports as columns: (G n, C, …) to (n · positions, G · C)."""
    n, channels, places = x.shape[0] // count, x.shape[1], positions(x.shape)
    x = x.reshape(count, n, channels, places)
    return x.permute(1, 3, 0, 2).reshape(n * places, count * channels)


def _apart(rows: Tensor, shape: Any, count: int) -> Tensor:
    """Return what `_side_by_side` was given."""
    n, channels, places = shape[0] // count, shape[1], positions(shape)
    x = rows.reshape(n, places, count, channels).permute(2, 0, 3, 1)
    return x.reshape(shape)
