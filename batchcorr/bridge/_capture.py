"""Activations of a network as an AnnData: samples × channels, as samples × genes."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from batchcorr.bridge._activations import Activations
from batchcorr.bridge._batches import read_batches
from batchcorr.bridge._norms import require_model
from batchcorr.bridge._running import evaluating, run
from batchcorr.bridge.nn._labels import domains_by_default, read_labels
from batchcorr.errors import (
    AssociationWarning,
    DesignError,
    InputError,
    MissingKeyError,
    did_you_mean,
    warn,
)
from batchcorr.metrics import variance_explained

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable

    from anndata import AnnData
    from torch import nn

    from batchcorr.bridge._batches import Minibatch

__all__ = ["capture"]


def capture(
    model: nn.Module,
    loader: Iterable[Any],
    batch: Sequence[Hashable] | int | None = None,
    *,
    labels: Sequence[Hashable] | int | None = None,
    layers: Sequence[str] | str | None = None,
    channels: int | Mapping[str, int] | None = None,
) -> AnnData:
    """Run a network and return its activations as an AnnData, with batch and label.

    Every function of the package then works on the network: `pp.combat` on its
    channels, `tl.pca`, `metrics.variance_explained`.

    Parameters
    ----------
    model
        A torch model; it is run in evaluation mode without gradients, and put back.
    loader
        Batches of samples: a DataLoader, or a list of tensors, of tuples whose first
        item goes into the model, or of mappings.
    batch
        Domain of each sample, in the loader's order; or which item of the loader's
        tuples holds it (1 is the one after the input); None: the number of the
        minibatch.
    labels
        Class of each sample, given in the same ways; None: there are none.
    layers
        Names of the modules whose outputs are taken, or one name; None: all that have
        parameters of their own, are called and give samples × channels.
    channels
        Which axis of a layer's output are its channels, for all layers or by name; None:
        the one that is as long as the layer says it is (features, or its bias).

    Returns
    -------
    AnnData
        X: mean of a channel over positions (time, height, width), samples × channels of
        all layers. `obs`: batch, label. `var`: layer, channel. `uns["layers"]`: how much
        of a layer's variance batch explains (adjusted R², mean over channels), and how
        much beyond the labels.

    Raises
    ------
    InputError
        If the loader is of wrong shape, labels are missing, not hashable or of another
        number, a layer that was named gives no samples × channels, or activations are
        not finite.
    MissingKeyError
        If a layer does not exist.

    Warns
    -----
    AssociationWarning
        If labels and batch cannot be told apart, so that there is no share beyond them.
    LayerWarning
        If layers are left out, because they give something else than samples × channels
        (recurrent layers and attention give tuples, some layers are given positions as
        rows) or are not called in every batch; layers that are never called are left out
        silently. If it is not clear which axis are the channels.

    Notes
    -----
    One run over the loader; memory for samples × channels in float32 (float64 for a
    model in float64). A module called twice in one run has two sets of channels. Layers
    that keep statistics by domain take `batch` as the domain, unless `nn.domains` says it.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> _ = torch.manual_seed(0)
    >>> model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU())
    >>> monday, tuesday = torch.randn(50, 3), torch.randn(50, 3) + 2
    >>> adata = capture(model, [monday, tuesday], batch=["mon"] * 50 + ["tue"] * 50)
    >>> adata.shape, list(adata.var_names[:2])
    ((100, 8), ['0:0', '0:1'])
    >>> adata.uns["layers"]["batch"].round(1).tolist()
    [0.2, 0.2]
    """
    from anndata import AnnData

    model = require_model(model)
    modules = _choose(model, layers)
    activations = Activations(modules, _read_axes(channels, modules))
    given = {
        "batch": _read_given(batch, "batch"),
        "label": _read_given(labels, "labels"),
    }
    columns: dict[str, list[Any]] = {"batch": [], "label": []}
    with activations.recorded(), evaluating(model):
        for number, minibatch in enumerate(read_batches(loader)):
            for key, item in given.items():
                columns[key] += _column(item, minibatch, key, len(columns[key]))
            if batch is None:
                columns["batch"] += [number] * minibatch.size
            activations.begin(minibatch.size)
            own = columns["batch"][-minibatch.size :] if batch is not None else None
            with domains_by_default(own):
                run(model, minibatch.inputs)
    matrices = activations.matrices(needed=layers is not None)
    n_samples = len(next(iter(matrices.values())))
    obs = pd.DataFrame(index=np.arange(n_samples).astype(str))
    for key, item in given.items():
        values = item if isinstance(item, list) else columns[key]
        if item is not None or key == "batch":
            obs[key] = pd.Categorical(read_labels(values, n_samples))
    places = [(name, c) for name, x in matrices.items() for c in range(x.shape[1])]
    names = [f"{name}:{channel}" for name, channel in places]
    var = pd.DataFrame(places, columns=["layer", "channel"], index=names)
    adata = AnnData(np.concatenate(list(matrices.values()), axis=1), obs=obs, var=var)
    adata.uns["layers"] = _shares(matrices, obs)
    return adata


def _choose(
    model: nn.Module, layers: Sequence[str] | str | None
) -> dict[str, nn.Module]:
    """The modules to look at, by name; that of the model itself is "model"."""
    every = model.named_modules(remove_duplicate=layers is None)
    known = {name or "model": module for name, module in every}
    names = [k for k, part in known.items() if [*part.parameters(recurse=False)]]
    if layers is not None:
        names = [layers] if isinstance(layers, str) else list(layers)
    if not names:
        msg = (
            "There is no layer to capture: name modules with layers=[…]; None uses all "
            "modules with parameters of their own."
        )
        raise InputError(msg)
    for name in names:
        if name not in known:
            msg = f"The model has no layer {name!r}. {did_you_mean(name, known)}"
            raise MissingKeyError(msg)
    return {name: known[name] for name in names}


def _read_axes(
    channels: int | Mapping[str, int] | None, modules: Mapping[str, nn.Module]
) -> dict[str, int]:
    """The axis of the channels by layer, as far as it is told."""
    if not isinstance(channels, Mapping):
        return {} if channels is None else dict.fromkeys(modules, channels)
    for name in channels.keys() - modules:
        msg = (
            f"channels= names no captured layer {name!r}. {did_you_mean(name, modules)}"
        )
        raise MissingKeyError(msg)
    return dict(channels)


def _read_given(given: Any, key: str) -> list[Any] | int | None:
    """Labels in a list, the number of an item of the loader's tuples, or None."""
    if given is None:
        return None
    if getattr(given, "ndim", 0):
        return list(given.tolist())
    if isinstance(given, Sequence) and not isinstance(given, str | bytes):
        return list(given)
    with suppress(TypeError):  # of what is no whole number
        return operator.index(given)
    msg = (
        f"{key}={given!r:.60} is no list of labels: give one label for each sample, in the "
        "loader's order; or a number, the item of the loader's tuples that holds them "
        "(1 is the one after the input); or None."
    )
    raise InputError(msg)


def _column(
    item: list[Any] | int | None, minibatch: Minibatch, key: str, start: int
) -> list[Any]:
    """The labels of this minibatch's samples, of which the first is number `start`."""
    if not isinstance(item, int):
        return item[start : start + minibatch.size] if item else []
    if not 0 < item <= len(minibatch.others):
        msg = (
            f"{key}={item} is not an item of the loader's tuples: beside the input "
            f"they have {len(minibatch.others)}, counted from 1."
        )
        raise InputError(msg)
    return read_labels(minibatch.others[item - 1], minibatch.size)


def _shares(matrices: dict[str, Any], obs: pd.DataFrame) -> pd.DataFrame:
    """How much of each layer's variance batch explains, and how much beyond the labels."""
    table = pd.DataFrame(
        {"channels": [x.shape[1] for x in matrices.values()], "batch": np.nan},
        index=pd.Index(matrices, name="layer"),
    )
    if obs["batch"].nunique() < 2:
        return table
    covariates = None
    if "label" in obs and obs["label"].nunique() > 1:
        covariates, table["batch_beyond_label"] = obs[["label"]], np.nan
    for name, x in matrices.items():
        if not (np.ptp(x, axis=0) > 0).any():
            continue
        try:
            share = variance_explained(x, obs["batch"], covariates=covariates)
        except DesignError as error:  # of the labels, whatever the layer
            warn(
                f"The share beyond the labels cannot be computed: {error}",
                AssociationWarning,
            )
            covariates = None
            share = variance_explained(x, obs["batch"])
        table.loc[name, "batch"] = share.batch
        if covariates is not None:
            table.loc[name, "batch_beyond_label"] = share.batch_beyond_covariates
    return table
