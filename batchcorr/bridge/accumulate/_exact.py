r"""The gradient of a big batch in the memory of a micro-batch.

With s_l = (μ_l, v_l) the statistics of the whole batch at the l-th BatchNorm, the loss is
L = Σ_m ℓ_m(θ, s_1 … s_K), and each s_l is merged from moments t_lm(θ, s_1 … s_{l-1}) of
micro-batches. So statistics are found site after site, and their adjoints backwards,

    s̄_l = Σ_m ∂/∂s_l [ℓ_m + Σ_{j>l} ⟨t̄_jm, t_jm⟩],
    ∇L  = Σ_m ∂/∂θ   [ℓ_m + Σ_j ⟨t̄_jm, t_jm⟩],       t̄_jm from s̄_j through the merge.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from torch.utils.checkpoint import CheckpointError

from batchcorr.bridge._batches import n_samples, take
from batchcorr.bridge._running import random_states, set_random_states
from batchcorr.bridge._step import Step
from batchcorr.bridge._torch import torch
from batchcorr.bridge.accumulate._additive import (
    require_additive,
    require_separable,
    weight_of,
)
from batchcorr.bridge.accumulate._sites import Reached, Site, Survey, Whole, add_to
from batchcorr.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import Tensor, nn

    from batchcorr.bridge._intercept import Call
    from batchcorr.bridge._running import RandomStates
    from batchcorr.bridge._step import LossFunction
    from batchcorr.models.moments import Moments

__all__ = ["exact", "require_size"]


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
        If BatchNorm is under activation checkpointing; if the loss, or a layer that is no BatchNorm, mixes samples, so that no sum over
        micro-batches gives the gradient; if values are not finite. The model is then as
        it was.

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
    step = Step.of(model, loss, batch)
    require_separable(step.model)
    size = require_size(micro_batch_size, n)
    parts = [torch.arange(k, min(k + size, n)) for k in range(0, n, size)]
    weights = [weight_of(len(part), n, reduction) for part in parts]
    with step.preserved() as reset:
        run = _Run(step, [take(batch, part) for part in parts], weights, reset)
        run.survey()
        run.gather()
        if len(parts) > 1:
            require_additive(step, batch, parts, run.sites, reduction)
        run.pull_back()
        value, gradients = run.differentiate()
    run.update_buffers()
    for parameter, gradient in zip(step.parameters.values(), gradients, strict=True):
        if parameter.grad is None:
            parameter.grad = gradient
        elif gradient is not None:
            with torch.no_grad():
                parameter.grad += gradient
    return value


def require_size(size: object, n: int) -> int:
    """A micro-batch size, at most that of the batch."""
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        msg = f"A micro-batch has a whole number of samples, at least 1, not {size!r}."
        raise InputError(msg)
    return min(size, n)


@dataclass
class _Run:
    """A batch in parts, and what is known of it so far.

    Attributes
    ----------
    step, parts, weights, reset
        What is differentiated, the micro-batches, what the loss of each counts for, and
        what gives the buffers their first values.
    states, end
        The random numbers before each part and after the last.
    sites
        The sites whose statistics are known, of `n_sites`.
    calls, after
        The BatchNorm calls of the last pass, and the buffers after the first part.
    """

    step: Step
    parts: Sequence[Any]
    weights: Sequence[float]
    reset: Callable[[], None]
    states: list[RandomStates] = field(default_factory=list)
    end: RandomStates = field(default_factory=dict)
    n_sites: int = 0
    sites: list[Site] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    after: dict[str, Tensor] = field(default_factory=dict)

    def survey(self) -> None:
        """Run plain forward passes: which sites there are, and where draws begin.

        Nothing before the first site depends on statistics, so that its moments are
        those of the whole batch already.
        """
        surveys = []
        for part in self.parts:
            self.states.append(random_states(self.step.devices))
            self.reset()
            with torch.no_grad(), Survey() as survey:
                self.step(part)
            surveys.append(survey.moments)
        self.end = random_states(self.step.devices)
        counts = sorted({len(moments) for moments in surveys})
        if len(counts) > 1:
            msg = (
                "Micro-batches call BatchNorm a different number of times, "
                f"{' or '.join(map(str, counts))}: the model's flow depends on the "
                "data, and there are no statistics of the whole batch to speak of."
            )
            raise InputError(msg)
        self.n_sites = counts[0]
        if self.n_sites:
            self.sites = [Site.of([moments[0] for moments in surveys], 0)]

    def gather(self) -> None:
        """Find the statistics site by site: those before one are frozen by then."""
        for number in range(len(self.sites), self.n_sites):
            found = [self._moments(part) for part in range(len(self.parts))]
            self.sites.append(Site.of(found, number))

    def _moments(self, part: int) -> Moments:
        """The moments of one part at the first site that is not known yet."""
        self._rewind(part)
        try:
            with torch.no_grad(), Whole(self.sites, last=False):
                self.step(self.parts[part])
        except Reached as reached:
            return reached.moments
        msg = "The model called BatchNorm less often than before: its flow changes."
        raise InputError(msg)

    def pull_back(self) -> None:
        """Find the adjoints, from the last site to the first."""
        for number in reversed(range(len(self.sites))):
            site = self.sites[number]
            wanted = [x.clone().requires_grad_() for x in (site.mean, site.variance)]
            self.sites[number] = replace(site, mean=wanted[0], variance=wanted[1])
            totals = [torch.zeros_like(x) for x in wanted]
            for part in range(len(self.parts)):
                _, objective = self._objective(part)
                with _without_checkpointing():
                    found = torch.autograd.grad(objective, wanted, allow_unused=True)
                add_to(totals, found)
            self.sites[number] = site.with_adjoint(*totals)

    def differentiate(self) -> tuple[Tensor, list[Tensor | None]]:
        """The loss and its gradient."""
        value: Tensor | float = 0.0
        gradients: list[Tensor | None] = []
        for part in range(len(self.parts)):
            own, objective = self._objective(part)
            value = value + own.detach()
            with _without_checkpointing():
                found = self.step.gradients(objective)
            self._require_same_buffers()
            gradients = gradients or [None] * len(found)
            for k, gradient in enumerate(found):
                if gradient is not None:
                    total = gradients[k]
                    gradients[k] = gradient if total is None else total + gradient
        return torch.as_tensor(value), gradients

    def _objective(self, part: int) -> tuple[Tensor, Tensor]:
        """One part's share of the loss, and with what its moments contribute."""
        self._rewind(part)
        with Whole(self.sites, part) as whole:
            value = self.weights[part] * self.step(self.parts[part])
        self.calls = whole.calls
        return value, value + whole.contribution

    def _rewind(self, part: int) -> None:
        set_random_states(self.states[part])
        self.reset()

    def _require_same_buffers(self) -> None:
        """Require that every micro-batch leaves the buffers alike."""
        now = {name: value.clone() for name, value in self.step.model.named_buffers()}
        self.after = self.after or now
        for name, value in self.after.items():
            if not torch.equal(value, now[name]):
                msg = (
                    f"The buffer {name} changes with the samples, and is no running "
                    "statistic of a BatchNorm: what the whole batch would make of it "
                    "cannot be told from micro-batches. Put that layer into evaluation "
                    "mode."
                )
                raise InputError(msg)

    def update_buffers(self) -> None:
        """Leave buffers and random numbers as one step of the whole batch does."""
        with torch.no_grad():
            for name, buffer in self.step.model.named_buffers():
                buffer.copy_(self.after[name])
        for call, site in zip(self.calls, self.sites, strict=True):
            call.update_running(site.whole)
        set_random_states(self.end)


@contextmanager
def _without_checkpointing() -> Iterator[None]:
    """Say what to switch off where a forward pass is run again with other statistics."""
    try:
        yield
    except CheckpointError as error:
        msg = (
            "A BatchNorm lies in a part of the model under activation checkpointing, "
            "which runs it again with other statistics: switch checkpointing off."
        )
        raise InputError(msg) from error
