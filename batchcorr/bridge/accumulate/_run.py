r"""A big batch, worked on micro-batch by micro-batch: statistics, adjoints, gradient.

With s_l = (μ_l, v_l) the statistics of the whole batch at the l-th BatchNorm, the loss is
L = Σ_m ℓ_m(θ, s_1 … s_K), and each s_l is merged from moments t_lm(θ, s_1 … s_{l-1}) of
micro-batches. So statistics are found site after site, and their adjoints backwards,

    s̄_l = Σ_m ∂/∂s_l [ℓ_m + Σ_{j>l} ⟨t̄_jm, t_jm⟩],
    ∇L  = Σ_m ∂/∂θ   [ℓ_m + Σ_j ⟨t̄_jm, t_jm⟩],       t̄_jm from s̄_j through the merge.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from torch.utils.checkpoint import CheckpointError

from batchcorr.bridge._torch import torch
from batchcorr.bridge._training.samples import take
from batchcorr.bridge._training.step import (
    require_any,
    rng_states,
    set_rng_states,
)
from batchcorr.bridge.accumulate._buffers import Running, require_same
from batchcorr.bridge.accumulate._sites import (
    Adjoint,
    Gather,
    Reached,
    Site,
    Survey,
    site_of,
)
from batchcorr.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from batchcorr.bridge._training.step import Step
    from batchcorr.models.moments import Moments

__all__ = ["Run"]


@dataclass
class Run:
    """A batch in parts, and what is known of it so far.

    Attributes
    ----------
    step, batch, parts, weights
        What is differentiated, the rows of each part, and what its loss counts for.
    states, end
        The generators before each part and after the last.
    running
        Which running statistics each site updates.
    sites
        The sites whose statistics are known.
    """

    step: Step
    batch: Any
    parts: Sequence[Tensor]
    weights: Sequence[float]
    states: list[list[Tensor]] = field(default_factory=list)
    end: list[Tensor] = field(default_factory=list)
    running: list[Running] = field(default_factory=list)
    sites: list[Site] = field(default_factory=list)

    def survey(self) -> None:
        """Run plain forward passes: which sites there are, and where draws begin.

        Nothing before the first site depends on statistics, so that its moments are
        those of the whole batch already.
        """
        surveys = []
        for part in self.parts:
            self.states.append(rng_states(self.step.devices))
            buffers = self.step.buffers()
            survey = Survey(buffers)
            with torch.no_grad(), survey:
                self.step(take(self.batch, part), buffers)
            surveys.append(survey)
        self.end = rng_states(self.step.devices)
        self.running = surveys[0].running
        counts = sorted({len(survey.moments) for survey in surveys})
        if len(counts) > 1:
            msg = (
                "Micro-batches call BatchNorm a different number of times, "
                f"{' or '.join(map(str, counts))}: the model's flow depends on the "
                "data, and there are no statistics of the whole batch to speak of."
            )
            raise InputError(msg)
        if self.running:
            self.sites = [site_of([survey.moments[0] for survey in surveys], 0)]

    def gather(self) -> None:
        """Find the statistics site by site: those before one are frozen by then."""
        for number in range(len(self.sites), len(self.running)):
            found = [self._moments(part) for part in range(len(self.parts))]
            self.sites.append(site_of(found, number))

    def _moments(self, part: int) -> Moments:
        """Return the moments of one part at the first site not known yet."""
        set_rng_states(self.step.devices, self.states[part])
        gather = Gather(self.sites)
        with torch.no_grad(), gather, suppress(Reached):
            self.step(take(self.batch, self.parts[part]))
        if gather.moments is None:
            msg = "The model called BatchNorm less often than before: its flow changes."
            raise InputError(msg)
        return gather.moments

    def pull_back(self) -> None:
        """Find the adjoints, from the last site to the first."""
        for number in reversed(range(len(self.sites))):
            site = self.sites[number]
            wanted = [value.clone().requires_grad_() for value in site.statistics]
            self.sites[number] = replace(site, mean=wanted[0], variance=wanted[1])
            bars = [torch.zeros_like(value) for value in wanted]
            for part in range(len(self.parts)):
                _, found, _ = self._backward(part, wanted)
                for k, gradient in enumerate(found):
                    if gradient is not None:
                        bars[k] += gradient
            self.sites[number] = site.with_adjoint(*bars)

    def differentiate(self) -> tuple[Tensor, list[Tensor | None], dict[str, Tensor]]:
        """Return the loss, its gradient, and the buffers after a micro-batch."""
        wanted = list(self.step.parameters.values())
        value, found, first = self._backward(0, wanted)
        gradients = list(require_any(found))
        for part in range(1, len(self.parts)):
            more, found, after = self._backward(part, wanted)
            require_same(first, after)
            value = value + more
            for k, gradient in enumerate(found):
                held = gradients[k]
                if gradient is not None:
                    gradients[k] = gradient if held is None else held + gradient
        return value, gradients, first

    def _backward(
        self, part: int, wanted: Sequence[Tensor]
    ) -> tuple[Tensor, tuple[Tensor | None, ...], dict[str, Tensor]]:
        """Return one part's loss, the gradient of it and all pulls, and the buffers."""
        set_rng_states(self.step.devices, self.states[part])
        buffers = self.step.buffers()
        adjoint = Adjoint(self.sites, part)
        with adjoint:
            loss = self.step(take(self.batch, self.parts[part]), buffers)
            value = self.weights[part] * loss
            objective = sum(adjoint.pulls, start=value)
            found = _differentiate(objective, wanted)
        return value.detach(), found, buffers


def _differentiate(value: Tensor, wanted: Sequence[Tensor]) -> tuple[Tensor, ...]:
    try:
        return torch.autograd.grad(value, wanted, allow_unused=True)
    except CheckpointError as error:
        msg = (
            "A BatchNorm lies in a part of the model under activation checkpointing, "
            "which runs it again with other statistics: switch checkpointing off."
        )
        raise InputError(msg) from error
