"""Activations of a network as an AnnData: samples × channels, as samples × genes."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from torch import nn

from batchcorr.bridge._loader import evaluating, read_batches, run
from batchcorr.bridge._norms import require_model
from batchcorr.bridge._torch import torch
from batchcorr.bridge.nn._labels import read_labels
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
    from collections.abc import Hashable, Iterable, Sequence

    from anndata import AnnData
    from torch import Tensor

    from batchcorr.bridge._loader import Minibatch

__all__ = ["capture"]

CHANNELS_LAST = (nn.Linear, nn.LayerNorm, nn.Embedding)
"""Layers whose channels are the last axis; those of all others are the second."""


def capture(
    model: nn.Module,
    loader: Iterable[Any],
    batch: Sequence[Hashable] | int | None = None,
    *,
    labels: Sequence[Hashable] | int | None = None,
    layers: Sequence[str] | None = None,
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
        Names of the modules whose outputs are taken; None: all that have parameters of
        their own.

    Returns
    -------
    AnnData
        X: mean of a channel over positions (time, height, width), samples × channels of
        all layers. `obs`: batch, label. `var`: layer, channel. `uns["layers"]`: a table
        with how much of the variance batch explains in each layer (adjusted R², mean
        over channels), and how much beyond the labels.

    Raises
    ------
    InputError
        If the loader is of wrong shape, labels are missing, not hashable or of another
        number, a layer gives no tensor, or activations are not finite.
    MissingKeyError
        If a layer does not exist.

    Warns
    -----
    AssociationWarning
        If labels and batch cannot be told apart, so that there is no share beyond them.

    Notes
    -----
    One run over the loader; memory for samples × channels in float32 (float64 for a
    model in float64). A module called twice in one run has two sets of channels.

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

    modules = _choose(require_model(model), layers)
    outputs: dict[str, list[Tensor]] = {}
    columns: dict[str, list[Any]] = {"batch": [], "label": []}
    wanted = {"batch": batch, "label": labels}
    with ExitStack() as stack:
        calls: list[tuple[str, Tensor]] = []
        for name, module in modules.items():
            handle = module.register_forward_hook(_recorder(name, calls))
            stack.callback(handle.remove)
        stack.enter_context(evaluating(model))
        for number, minibatch in enumerate(read_batches(loader), start=1):
            calls.clear()
            run(model, minibatch.inputs)
            _collect(outputs, calls, minibatch, number)
            for key, given in wanted.items():
                columns[key] += _column(given, minibatch, number, key)
    matrices = {name: torch.cat(parts).numpy() for name, parts in outputs.items()}
    obs = pd.DataFrame(index=np.arange(len(next(iter(matrices.values())))).astype(str))
    for key, given in wanted.items():
        values = columns[key] if given is None or isinstance(given, int) else given
        if key == "batch" or given is not None:
            obs[key] = pd.Categorical(read_labels(values, len(obs)))
    places = [(name, c) for name, x in matrices.items() for c in range(x.shape[1])]
    names = [f"{name}:{channel}" for name, channel in places]
    var = pd.DataFrame(places, columns=["layer", "channel"], index=names)
    adata = AnnData(np.concatenate(list(matrices.values()), axis=1), obs=obs, var=var)
    adata.uns["layers"] = _shares(matrices, obs)
    return adata


def _choose(model: nn.Module, layers: Sequence[str] | None) -> dict[str, nn.Module]:
    """Return the modules to look at, by name."""
    known = {name: module for name, module in model.named_modules() if name}
    if layers is not None:
        for name in layers:
            if name not in known:
                msg = f"The model has no layer {name!r}. {did_you_mean(name, known)}"
                raise MissingKeyError(msg)
        return {name: known[name] for name in layers}
    found = {
        name or "model": module
        for name, module in model.named_modules()
        if list(module.parameters(recurse=False))
    }
    if not found:
        msg = "No module of the model has parameters: name modules with layers=[…]."
        raise InputError(msg)
    return found


def _recorder(name: str, calls: list[tuple[str, Tensor]]) -> Any:
    """Return a hook that keeps the mean of each channel over positions."""

    def record(module: nn.Module, _inputs: Any, output: Any) -> None:
        if not isinstance(output, torch.Tensor) or output.ndim < 2:
            msg = (
                f"The layer {name!r} ({type(module).__name__}) does not give a tensor of"
                " samples × channels: leave it out of layers=."
            )
            raise InputError(msg)
        if not bool(torch.isfinite(output).all()):
            msg = (
                f"The layer {name!r} gives values that are not finite (NaN): the model "
                "or its inputs are broken there."
            )
            raise InputError(msg)
        if isinstance(module, CHANNELS_LAST):
            output = output.movedim(-1, 1)
        wide = output if output.dtype == torch.float64 else output.float()
        calls.append((name, wide.flatten(2).mean(2) if wide.ndim > 2 else wide))

    return record


def _collect(
    outputs: dict[str, list[Tensor]],
    calls: list[tuple[str, Tensor]],
    minibatch: Minibatch,
    number: int,
) -> None:
    """Add one run's activations, a name for each call of a layer."""
    seen: dict[str, int] = {}
    for name, value in calls:
        seen[name] = seen.get(name, 0) + 1
        key = name if seen[name] == 1 else f"{name} (call {seen[name]})"
        parts = outputs.setdefault(key, [])
        if len(value) != minibatch.size or len(parts) != number - 1:
            msg = (
                f"The layer {name!r} does not give one row for each of the "
                f"{minibatch.size} samples of batch {number}, shape "
                f"{tuple(value.shape)}: leave it out of layers=."
            )
            raise InputError(msg)
        parts.append(value.detach().cpu())
    for name, parts in outputs.items():
        if len(parts) != number:
            msg = f"The layer {name!r} was not called in batch {number}, but before."
            raise InputError(msg)


def _column(given: Any, minibatch: Minibatch, number: int, key: str) -> list[Any]:
    """Return what the loader says of this minibatch's samples."""
    if given is None:
        return [number - 1] * minibatch.size if key == "batch" else []
    if not isinstance(given, int):
        return []
    if not 0 < given <= len(minibatch.beside):
        msg = (
            f"{key}={given} is not an item of the loader's tuples: beside the input "
            f"they have {len(minibatch.beside)}, counted from 1."
        )
        raise InputError(msg)
    return read_labels(minibatch.beside[given - 1], minibatch.size)


def _shares(matrices: dict[str, Any], obs: pd.DataFrame) -> pd.DataFrame:
    """Return how much of each layer's variance batch explains."""
    rows = []
    beyond = "label" in obs and obs["label"].nunique() > 1
    for name, x in matrices.items():
        row = {"layer": name, "channels": x.shape[1], "batch": np.nan}
        if obs["batch"].nunique() > 1 and (np.ptp(x, axis=0) > 0).any():
            row["batch"] = variance_explained(x, obs["batch"]).batch
            if beyond:
                row["batch_beyond_label"] = _beyond(x, obs)
        rows.append(row)
    return pd.DataFrame(rows).set_index("layer")


def _beyond(x: Any, obs: pd.DataFrame) -> float:
    try:
        share = variance_explained(x, obs["batch"], covariates=obs[["label"]])
    except DesignError as error:
        warn(f"No share beyond the labels: {error}", AssociationWarning)
        return float("nan")
    return share.batch_beyond_covariates
