r"""Faults of networks with BatchNorm, found by measuring rather than by looking.

A redundant bias is one whose change changes nothing; a scale-invariant weight one whose
length changes nothing; a dropout that disturbs BatchNorm one that changes the variance
that comes in. Each is tried on a copy of the model.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from torch import enable_grad, optim

from batchcorr.bridge._batches import n_samples
from batchcorr.bridge._lint.dropout import find_dropout_before
from batchcorr.bridge._lint.result import Finding, LintResult
from batchcorr.bridge._lint.rules import find_faults, observe
from batchcorr.bridge._lint.symmetries import (
    find_decayed_weights,
    find_redundant_biases,
    scale_invariant,
)
from batchcorr.bridge._lint.trial import copied, enlarged, general_trial
from batchcorr.bridge._norms import require_no_domains
from batchcorr.bridge._running import seeded
from batchcorr.bridge._step import Step
from batchcorr.errors import InputError

if TYPE_CHECKING:
    from torch import nn

    from batchcorr.bridge._step import LossFunction

__all__ = ["Finding", "LintResult", "lint"]


def lint(
    model: nn.Module,
    example_batch: Any,
    loss: LossFunction,
    optimizer: optim.Optimizer | None = None,
) -> LintResult:
    r"""Look for faults that come with BatchNorm, by measuring them on one batch.

    ================================= ====== ========================================
    rule
    ================================= ====== ========================================
    `redundant-bias`                  fault  a bias that a normalization removes
    `dropout-before-batchnorm`        fault  the variance differs in evaluation
    `small-batch`, `batch-of-one`     fault  too few values per channel
    `running-statistics`              fault  broken (NaN, negative variance), missing,
                                             never or wrongly updated, still moving in a
                                             frozen backbone, stale, far from the data
    `running-statistics`              note   frozen amid training, and still fitting
    `decay-on-scale-invariant-weight` note   decay on a weight whose length means nothing
                                             (only with an optimizer)
    ================================= ====== ========================================

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
        `findings`; `ok`, whether none is a fault; a `str` with one entry for a rule,
        however many layers, or what was looked at; `parameter_groups(weight_decay=…)`.

    Raises
    ------
    InputError
        If the model is in evaluation mode or has layers by domain, or the step cannot be
        taken; what torch said is the cause.

    Notes
    -----
    The model, its gradients and the random generators stay as they were: copies of it
    are run about a dozen times, however many layers it has, and with dropout some dozens
    more. What BatchNorm meets, and dropout, is measured on the batch as it is; symmetries
    on eight samples of it (fewer are repeated with noise) in float64, in float32 where
    the model or the loss insist on that, with tensors that are constant (a γ of zeros,
    say) moved off that special point, so that what is found is a property of the network.

    A BatchNorm that is frozen together with all that comes before it is taken as meant,
    if its statistics are those of the data; and statistics that have had no time yet to
    be learnt are no fault. A SyncBatchNorm is looked at as on one process.

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
    step = Step.of(model, loss)
    step.require_training()
    require_no_domains(step.model)
    decay = _decay_of(step.model, optimizer)
    with seeded(step.devices, None), enable_grad():
        own = copied(step)
        seen, draws = observe(own, example_batch)
        general = general_trial(own, example_batch)
        invariant = scale_invariant(general)
        findings = [
            *find_redundant_biases(general),
            *(find_dropout_before(own, enlarged(example_batch)) if draws else []),
            *find_faults(seen, n),
            *find_decayed_weights(invariant, decay),
        ]
    kinds = Counter(type(step.model.get_submodule(one.layer)).__name__ for one in seen)
    return LintResult(tuple(findings), tuple(invariant), step.parameters, kinds)


def _decay_of(model: nn.Module, optimizer: optim.Optimizer | None) -> dict[str, float]:
    """The weight decay of each parameter that an optimizer decays."""
    if optimizer is None:
        return {}
    if not isinstance(optimizer, optim.Optimizer):
        msg = f"{optimizer!r:.60} is no torch.optim.Optimizer."
        raise InputError(msg)
    names = {id(value): name for name, value in model.named_parameters()}
    decay = {
        names[id(value)]: float(group.get("weight_decay", 0))
        for group in optimizer.param_groups
        for value in group["params"]
        if id(value) in names
    }
    if not decay:
        msg = "The optimizer has no parameter of this model: was it built for another?"
        raise InputError(msg)
    return {name: value for name, value in decay.items() if value}
