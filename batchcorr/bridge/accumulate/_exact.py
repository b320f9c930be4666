"""The gradient of a big batch in the memory of a micro-batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from batchcorr.bridge._torch import torch
from batchcorr.bridge._training.samples import n_samples
from batchcorr.bridge._training.step import (
    Step,
    require_trainable,
    set_rng_states,
    unchanged,
)
from batchcorr.bridge.accumulate._additive import require_additive, weight_of
from batchcorr.bridge.accumulate._buffers import advance
from batchcorr.bridge.accumulate._mixing import require_plain_norms
from batchcorr.bridge.accumulate._run import Run
from batchcorr.bridge.accumulate._sizes import require_size

if TYPE_CHECKING:
    from torch import Tensor, nn

    from batchcorr.bridge._training.step import LossFunction

__all__ = ["exact"]


def exact(
    model: nn.Module,
    batch: Any,
    loss: LossFunction,
    micro_batch_size: int,
    *,
    reduction: str = "mean",
) -> Tensor:
    r"""Do what `loss(model, batch).backward()` does, in micro-batch memory.

    Gradients are added to `.grad`, running statistics are updated once, as the whole
    batch would, and the loss is returned: but no activation of more than
    `micro_batch_size` samples is ever alive. With K BatchNorm calls in a forward pass
    this takes K forward passes to gather statistics and K + 1 passes forward and
    backward, where plain accumulation takes one: it is meant to verify, and for models
    whose batch does not fit.

    Parameters
    ----------
    model
        The model, with the training flags it is trained with: a BatchNorm in evaluation
        mode is frozen, and stays so.
    batch
        The whole batch: tensors, or tuples, lists and mappings of them, samples on
        axis 0. Anything else in it goes to every micro-batch unchanged.
    loss
        `loss(model, batch)`: runs the model on a batch and returns a scalar.
    micro_batch_size
        Samples at a time; the last micro-batch may be smaller, and one sample is enough.
    reduction
        Whether the loss is the `"mean"` or the `"sum"` over the samples.

    Returns
    -------
    Tensor
        The loss of the whole batch, without its graph.

    Raises
    ------
    InputError
        If the model cannot be taken apart (SyncBatchNorm, DataParallel, activation
        checkpointing); if the loss, or a layer that is no BatchNorm, mixes samples, so
        that no sum over micro-batches gives the gradient; if values are not finite. The
        model is then as it was.

    Notes
    -----
    Statistics are gathered and merged in float64 (float32 for half precision). Random
    layers draw once for each micro-batch, in order, and draw the same again in every
    pass: the gradient is that of the whole batch under these masks, and the generator
    ends where plain accumulation would leave it. Forward hooks of the model run in
    every pass. Whether the loss is additive is measured with random layers held
    still, on groups of half a micro-batch (two samples at least).

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> _ = torch.manual_seed(0)
    >>> model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    >>> model, x = model.double(), torch.randn(32, 3, dtype=torch.float64)
    >>> def loss(model, batch):
    ...     return model(batch).square().mean()
    >>> value = exact(model, x, loss, micro_batch_size=4)
    >>> own = model[0].weight.grad.clone()
    >>> model.zero_grad()
    >>> loss(model, x).backward()
    >>> torch.allclose(own, model[0].weight.grad, rtol=1e-12)
    True
    """
    n = n_samples(batch)
    step = Step(require_trainable(model, loss, batch), loss)
    require_plain_norms(model)
    size = require_size(micro_batch_size, n)
    parts = [torch.arange(k, min(k + size, n)) for k in range(0, n, size)]
    weights = [weight_of(len(part), n, reduction) for part in parts]
    with unchanged(step):
        run = Run(step, batch, parts, weights)
        run.survey()
        run.gather()
        if len(parts) > 1:
            require_additive(step, batch, parts, run.sites, reduction)
        run.pull_back()
        value, gradients, after = run.differentiate()
    advance(model, after, run.running, run.sites)
    set_rng_states(step.devices, run.end)
    with torch.no_grad():
        for parameter, gradient in zip(
            step.parameters.values(), gradients, strict=True
        ):
            if parameter.grad is None:
                parameter.grad = gradient
            elif gradient is not None:
                parameter.grad += gradient
    return value
