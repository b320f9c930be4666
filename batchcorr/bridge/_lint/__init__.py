r"""Faults of networks with BatchNorm, found by measuring rather than by looking.

A redundant bias is one whose change changes nothing; a scale-invariant weight one whose
length changes nothing; a dropout that disturbs BatchNorm one that changes the variance
that comes in. Each is tried on a copy of the model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import optim

from batchcorr.bridge._lint.batch_of_one import find_batches_of_one
from batchcorr.bridge._lint.decayed_weights import find_decayed_weights
from batchcorr.bridge._lint.dropout import find_dropout_before
from batchcorr.bridge._lint.observation import observe
from batchcorr.bridge._lint.redundant_biases import find_redundant_biases
from batchcorr.bridge._lint.result import Finding, LintResult
from batchcorr.bridge._lint.running_statistics import find_bad_statistics
from batchcorr.bridge._lint.scale_invariance import scale_invariant
from batchcorr.bridge._lint.small_batches import find_small_batches
from batchcorr.bridge._lint.subject import Subject
from batchcorr.bridge._training.samples import n_samples
from batchcorr.bridge._training.step import Step, require_trainable, unchanged
from batchcorr.errors import InputError

if TYPE_CHECKING:
    from torch import nn

    from batchcorr.bridge._training.step import LossFunction

__all__ = ["Finding", "LintResult", "lint"]


def lint(
    model: nn.Module,
    example_batch: Any,
    loss: LossFunction,
    optimizer: optim.Optimizer | None = None,
) -> LintResult:
    r"""Look for faults that come with BatchNorm, by measuring them on one batch.

    Found are: biases that a normalization removes (`redundant-bias`); dropout that makes
    a BatchNorm see another variance in training than in evaluation
    (`dropout-before-batchnorm`); weight decay on weights whose length does not matter
    (`decay-on-scale-invariant-weight`, only with an optimizer); too few values per
    channel (`small-batch`) and batches of one sample (`batch-of-one`); statistics for
    evaluation that are missing, not learnt, stale, or far from the data
    (`running-statistics`).

    Parameters
    ----------
    model
        The model as it is trained: `model.train()`, with whatever is frozen frozen.
    example_batch
        One batch of the size it is trained with (a micro-batch, where gradients are
        accumulated): tensors, or tuples, lists and mappings of them, samples on axis 0.
    loss
        `loss(model, batch)`: runs the model it is given and returns a scalar.
    optimizer
        The optimizer of the model: what it decays is looked at. Without one, nothing is
        said of weight decay.

    Returns
    -------
    LintResult
        `findings`, `ok`, a readable `str`, and `parameter_groups(weight_decay=…)`.

    Raises
    ------
    InputError
        If the model is in evaluation mode, or the step cannot be taken.

    Notes
    -----
    The model, its gradients and the random generators stay as they were. All is measured
    on a copy in float64 where the model and the loss allow it, in float32 otherwise. For
    biases, weights and dropout, tensors of the copy that are constant (a γ of zeros, say)
    are moved off that special point, and a batch of fewer than eight samples is repeated
    with noise, so that what is found is a property of the network.

    A BatchNorm that is frozen together with all that comes before it is taken as meant,
    if its statistics are those of the data; and statistics that have had no time yet to
    be learnt are no fault.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> _ = torch.manual_seed(0)
    >>> model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    >>> def loss(model, batch):
    ...     return model(batch).square().mean()
    >>> found = lint(model, torch.randn(32, 3), loss)
    >>> [(finding.rule, finding.layer) for finding in found.findings]
    [('redundant-bias', '0')]
    >>> model[0] = nn.Linear(3, 4, bias=False)
    >>> lint(model, torch.randn(32, 3), loss).ok
    True
    """
    n = n_samples(example_batch)
    step = Step(require_trainable(model, loss, example_batch), loss)
    if not model.training:
        msg = (
            "The model is in evaluation mode, and faults are of training: call "
            "model.train() first, then freeze again what is meant to be frozen."
        )
        raise InputError(msg)
    decay = _decay_of(model, optimizer)
    with unchanged(step):
        subject = Subject.of(step, example_batch)
        norms = observe(subject)
        enlarged = subject.enlarged()
        general = enlarged.general(norms)
        invariant = scale_invariant(general)
        findings = [
            *find_redundant_biases(general),
            *find_dropout_before(general, enlarged),
            *find_decayed_weights(invariant, decay),
            *find_batches_of_one(norms, n),
            *find_small_batches(norms, n),
            *find_bad_statistics(norms),
        ]
    return LintResult(tuple(findings), tuple(invariant), step.parameters)


def _decay_of(model: nn.Module, optimizer: optim.Optimizer | None) -> dict[str, float]:
    """Return the weight decay of each parameter that an optimizer decays."""
    if optimizer is None:
        return {}
    if not isinstance(optimizer, optim.Optimizer):
        msg = (
            "The optimizer must be a torch.optim.Optimizer, not a "
            f"{type(optimizer).__name__}."
        )
        raise InputError(msg)
    names = {id(value): name for name, value in model.named_parameters()}
    groups = [(g, value) for g in optimizer.param_groups for value in g["params"]]
    if not any(id(value) in names for _, value in groups):
        msg = "The optimizer has no parameter of this model: was it built for another?"
        raise InputError(msg)
    return {
        names[id(value)]: float(group["weight_decay"])
        for group, value in groups
        if id(value) in names and group.get("weight_decay", 0)
    }
