r"""The gradient of a big batch in the memory of a micro-batch.

With s_l = (μ_l, v_l) the statistics of the whole batch at the l-th BatchNorm, the loss is
L = Σ_m ℓ_m(θ, s_1 … s_K), and each s_l depends on the inputs x_lm of micro-batches. So
statistics are found site after site, and their adjoints s̄_l = ∂L/∂s_l backwards,

    s̄_l = Σ_m ∂/∂s_l [ℓ_m + Σ_{j>l} t_jm],      ∇L = Σ_m ∂/∂θ [ℓ_m + Σ_j t_jm],
    t_jm = Σ_i (μ̄_j x_i + v̄_j (x_i - μ_j)²) / N     over the rows i of x_jm.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from torch import nn

from batchcorr.bridge._layerwise import ReachedError
from batchcorr.bridge._running import has_hooks, random_states, set_random_states
from batchcorr.bridge._torch import torch
from batchcorr.bridge.accumulate._sites import BySites, Site, Whole, require_size
from batchcorr.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import Tensor

    from batchcorr.bridge._running import RandomStates
    from batchcorr.bridge._step import LossFunction

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

    Gradients are added to `.grad`, running statistics are updated once and the loss is
    returned, but no activation of more than `micro_batch_size` samples is ever alive.
    With K BatchNorm calls in a forward pass this takes K forward passes, which stop halfway
    on average, and K + 1 forward and backward, where plain accumulation takes one: to verify,
    or for models whose batch does not fit.

    Parameters
    ----------
    model
        The model, with the training flags it is trained with: a BatchNorm in evaluation
        mode is frozen, and stays so.
    batch
        The whole batch: tensors, or tuples, lists, mappings and dataclasses of them,
        samples on axis 0. Anything else in it goes to every micro-batch unchanged.
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
        If the model is a DistributedDataParallel of several processes; if BatchNorm is
        under an activation checkpoint, or anything under a reentrant one; if the loss,
        or a layer that is no BatchNorm, mixes samples, so that no sum over micro-batches
        gives the gradient; if values are not finite. The model is then as it was.

    Notes
    -----
    Statistics are merged in float64 (float32 for half precision). Random layers draw once
    for each micro-batch, in order, and the same in every pass: the gradient is that of the
    whole batch under these masks, and the generator ends where plain accumulation would
    leave it. Forward hooks run in every pass; without any, some passes stop at a BatchNorm.
    Whether the loss is additive is measured with random layers held still, on groups of
    half a micro-batch (two samples at least).

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
    whole = Whole(model, batch, loss, reduction)
    _require_one_process(model)
    size = require_size(micro_batch_size, whole.n)
    parts = torch.split(torch.arange(whole.n, device="cpu"), size)
    with whole.step.preserved() as reset:
        passes = _Passes(whole, parts, reset)
        passes.find_sites()
        if len(parts) > 1:
            whole.require_additive(parts, passes.sites)
        passes.find_adjoints()
        value, gradients = passes.gradient()
    passes.update_buffers()
    for parameter, gradient in zip(passes.parameters, gradients, strict=True):
        if parameter.grad is None:
            parameter.grad = gradient
        elif gradient is not None:
            with torch.no_grad():
                parameter.grad += gradient
    return value


def _require_one_process(model: nn.Module) -> None:
    """Refuse a model whose gradient is averaged over processes as backward finds it."""
    inner = getattr(model, "_orig_mod", model)  # of torch.compile
    parallel = nn.parallel.DistributedDataParallel
    if isinstance(inner, parallel) and inner.process_group.size() > 1:
        msg = (
            "The model is a DistributedDataParallel, which averages gradients in "
            "loss.backward(), and not here: give model.module, and average each "
            "parameter.grad over the processes before the optimizer steps."
        )
        raise InputError(msg)


class _Passes:
    """Passes over a batch in parts, each with the same random draws, and what they tell."""

    def __init__(
        self, whole: Whole, parts: Sequence[Tensor], reset: Callable[[], None]
    ) -> None:
        self.whole, self.parts, self.reset = whole, parts, reset
        self.step, self.parameters = whole.step, list(whole.step.parameters.values())
        self.sites: list[Site] = []  # whose statistics are known
        self.starts: list[RandomStates] = []  # the random numbers before each part
        self.n_sites: int | None = None  # as the first forward pass has calls

    def _run(self, *, stop: bool = False) -> Iterator[BySites]:
        """The forward pass of each part, to the end or to the first unknown site."""
        for number, rows in enumerate(self.parts):
            if number == len(self.starts):
                self.starts.append(random_states(self.step.devices))
            set_random_states(self.starts[number])
            self.reset()
            with suppress(ReachedError), BySites(self.sites, stop=stop) as forward:
                forward.loss = self.whole.loss(rows)
            calls = len(forward.calls)
            self.n_sites = calls if self.n_sites is None else self.n_sites
            if calls != (len(self.sites) + 1 if stop else self.n_sites):
                msg = (
                    "Micro-batches call BatchNorm a different number of times: the "
                    "model's flow depends on the data, and there are no statistics of "
                    "the whole batch to speak of."
                )
                raise InputError(msg)
            yield forward

    def find_sites(self) -> None:
        """Find the statistics site by site: those before one are known by then."""
        with torch.no_grad():
            found = [forward.unknown for forward in self._run()]
            self.end = random_states(self.step.devices)
            stop = not has_hooks(self.step.model)  # who watches sees every call end
            for number in range(self.n_sites or 0):
                if number:
                    found = [forward.unknown for forward in self._run(stop=stop)]
                self.sites.append(Site([moments[0] for moments in found], number))
            if stop and len(self.sites) > 1:
                next(
                    self._run()
                )  # to its end, where a model may clear what it collects

    def find_adjoints(self) -> None:
        """Find the adjoints, from the last site to the first."""
        for site in reversed(self.sites):
            by = [site.mean, site.variance]
            adjoint = [torch.zeros_like(x.requires_grad_()) for x in by]
            for forward in self._run():
                slopes = self.step.gradients(forward.loss + forward.contribution, by)
                for one, slope in zip(adjoint, slopes, strict=True):
                    one.add_(0.0 if slope is None else slope)
            site.mean, site.variance = site.mean.detach(), site.variance.detach()
            site.adjoint = adjoint

    def gradient(self) -> tuple[Tensor, list[Tensor | None]]:
        """The loss and its gradient."""
        value: Tensor | float = 0.0
        gradients: list[Tensor | None] = [None] * len(self.parameters)
        self.after: dict[str, Tensor] = {}  # the buffers after each part
        for forward in self._run():
            value = value + forward.loss.detach()
            slopes = self.step.gradients(forward.loss + forward.contribution)
            for k, slope in enumerate(slopes):
                if slope is not None:
                    before = gradients[k]
                    gradients[k] = slope if before is None else before + slope
            for name, buffer in self.step.model.named_buffers():
                if not torch.equal(self.after.setdefault(name, buffer.clone()), buffer):
                    msg = (
                        f"The buffer {name} changes with the samples, and is no running "
                        "statistic of a BatchNorm: put that layer into evaluation mode."
                    )
                    raise InputError(msg)
            self.calls = forward.calls
        return torch.as_tensor(value), gradients

    def update_buffers(self) -> None:
        """Leave buffers and random numbers as one step of the whole batch does."""
        with torch.no_grad():
            for name, buffer in self.step.model.named_buffers():
                buffer.copy_(self.after[name])
        for call, site in zip(self.calls, self.sites, strict=True):
            call.update_running(site.moments)
        set_random_states(self.end)
