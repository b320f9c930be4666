r"""What each BatchNorm meets in one training step.

Running statistics are far from a batch when they differ by more than half a standard
deviation, or a factor of two in variance, and by more than three standard errors: those
of N independent samples, whose positions are not replicates,

    (x̄_c - running mean_c) / sd_c,     log(running variance_c / v_c),

root mean squares over channels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from batchcorr.bridge._intercept import Intercept
from batchcorr.bridge._lint.result import Finding
from batchcorr.bridge._norms import is_batch_norm, is_by_domain, statistics_of
from batchcorr.bridge._running import hooked, input_of, random_states, seeded, wide
from batchcorr.bridge._torch import torch
from batchcorr.bridge.nn._domain_norm import DomainBatchNorm
from batchcorr.bridge.nn._labels import read_labels

if TYPE_CHECKING:
    from collections.abc import Hashable

    from torch import Tensor, nn

    from batchcorr.bridge._step import Step

__all__ = ["Distance", "Observed", "by_domain", "norms_of", "observe"]

SHIFT, RATIO, ERRORS = 0.5, 2.0, 3.0
"""What is far: standard deviations, a factor of the variance, standard errors."""


def norms_of(model: nn.Module) -> dict[nn.Module, str]:
    """The BatchNorm layers of a model, also those of several domains, and their names."""
    return {
        module: name
        for name, module in model.named_modules()
        if is_batch_norm(module) or is_by_domain(module)
    }


def by_domain(norm: nn.Module, args: Any, kwargs: Any) -> dict[Hashable, Tensor]:
    """The rows that a BatchNorm normalizes together: all, or those of each domain."""
    x = input_of(args, kwargs)
    if not isinstance(norm, DomainBatchNorm):
        return {None: x}
    labels = read_labels(args[1] if len(args) > 1 else kwargs.get("domain"), len(x))
    known = [
        label
        for label in dict.fromkeys(labels)
        if norm._code(label, norm.unseen) is not None
    ]
    return {label: x[[label == other for other in labels]] for label in known}


@dataclass
class Observed:
    """What one BatchNorm was called with, of one domain where it has several.

    Attributes
    ----------
    norm
        The layer, in the copy; of a domain an ordinary one.
    updates
        How often its running statistics have moved.
    rows, samples
        Values per channel and samples in the smallest call.
    means, variances
        Of each sample and channel over positions, call by call.
    learns_before
        Whether an input depends on something that is trained.
    """

    layer: str
    domain: Hashable
    norm: Any
    updates: int = 0
    rows: int = 0
    samples: int = 0
    means: list[Tensor] = field(default_factory=list)
    variances: list[Tensor] = field(default_factory=list)
    learns_before: bool = False

    def add(self, x: Tensor) -> None:
        """Look at the input of a call."""
        rows, samples = x.numel() // x.shape[1], int(x.shape[0])
        self.rows = min(self.rows or rows, rows)
        self.samples = min(self.samples or samples, samples)
        self.learns_before |= x.requires_grad
        positions = wide(x.detach()).reshape(samples, x.shape[1], -1)
        mean = positions.mean(2)
        self.means.append(mean)
        self.variances.append((positions - mean[:, :, None]).square_().mean(2))

    def finding(self, rule: str, message: str, *rest: Any) -> Finding:
        """What a rule says of the layer, with evidence and remedy."""
        if self.domain is not None:
            message = f"Domain {self.domain!r}: {message}"
        return Finding(rule, self.layer, message, *rest)


def observe(step: Step, batch: Any) -> tuple[list[Observed], bool]:
    """What each BatchNorm that is called meets, and whether random numbers are drawn."""
    norms = norms_of(step.model)
    found: dict[nn.Module, dict[Hashable, Observed]] = {norm: {} for norm in norms}

    def note(norm: Any, args: Any, kwargs: Any) -> None:
        for domain, x in by_domain(norm, args, kwargs).items():
            if domain not in found[norm]:
                one: Any = norm if domain is None else _of_domain(norm, domain)
                updates = int(one.num_batches_tracked or 0)
                found[norm][domain] = Observed(norms[norm], domain, one, updates)
            found[norm][domain].add(x)

    with hooked(norms, before=note), seeded(step.devices), Intercept():
        before = random_states(step.devices)
        step(batch)
        after = random_states(step.devices)
    draws = not all(torch.equal(before[device], after[device]) for device in before)
    return [one for ones in found.values() for one in ones.values()], draws


def _of_domain(norm: DomainBatchNorm, domain: Hashable) -> nn.Module:
    """An ordinary layer with the statistics of one domain, and the same weights."""
    one = norm.as_batch_norm(domain)
    one.register_parameter("weight", norm.weight)
    return one


class Distance(NamedTuple):
    """Distances of running statistics from a batch, with what chance alone gives."""

    shift: float
    shift_error: float
    log_ratio: float
    log_ratio_error: float

    @classmethod
    def of(cls, one: Observed) -> Distance:
        """How far the running statistics are from those of what came in."""
        mean, variance = statistics_of(one.norm)
        means = torch.cat(one.means)
        centre = means.mean(0)
        squares = torch.cat(one.variances) + (means - centre).square()
        own = squares.mean(0) + one.norm.eps
        n = len(means)

        def error(each: Tensor) -> float:
            return _rms(each.std(0)) / n**0.5 if n > 1 else math.inf

        return cls(
            shift=_rms((centre - mean) / own.sqrt()),
            shift_error=error(means / own.sqrt()),
            log_ratio=_rms(((variance + one.norm.eps).clamp_min(1e-300) / own).log()),
            log_ratio_error=error(squares / own),
        )

    @property
    def is_far(self) -> bool:
        return self.shift > max(SHIFT, ERRORS * self.shift_error) or (
            self.log_ratio > max(math.log(RATIO), ERRORS * self.log_ratio_error)
        )

    @property
    def numbers(self) -> dict[str, float]:
        return {"shift": self.shift, "variance_factor": _factor(self.log_ratio)}

    def __str__(self) -> str:
        return (
            f"running means are {self.shift:.2g} standard deviations from the batch's "
            f"(chance: {self.shift_error:.2g}), variances a factor of "
            f"{_factor(self.log_ratio):.2g} (chance: {_factor(self.log_ratio_error):.2g})"
        )


def _rms(values: Tensor) -> float:
    return float(values.square().mean().sqrt())


def _factor(log_ratio: float) -> float:
    return math.exp(min(log_ratio, 700))
