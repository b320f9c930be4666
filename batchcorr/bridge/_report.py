"""One page on a model: its BatchNorms, and what the other functions say of them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from textwrap import indent, wrap
from typing import TYPE_CHECKING, Any

from batchcorr.bridge._capture import capture
from batchcorr.bridge._fold import fold
from batchcorr.bridge._lint import lint
from batchcorr.bridge._norms import is_batch_norm, is_frozen
from batchcorr.bridge._running import copy_of, hooked, seeded
from batchcorr.bridge._step import Step
from batchcorr.bridge._torch import torch
from batchcorr.bridge.accumulate import check
from batchcorr.errors import BatchCorrError, InputError, some

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence

    import pandas as pd
    from torch import nn, optim

    from batchcorr.bridge._fold import Folded
    from batchcorr.bridge._lint import LintResult
    from batchcorr.bridge._step import LossFunction
    from batchcorr.bridge.accumulate import Cost

__all__ = ["Report", "report"]

PARTITIONS = 5
"""Random partitions of the batch into micro-batches."""

REASONS = 5
"""Reasons that are printed of why BatchNorms are kept."""


@dataclass(frozen=True, repr=False)
class Report:
    """What was measured of a model; `print` it.

    Parameters
    ----------
    batch_norms
        How many BatchNorm layers there are, by class and mode.
    findings
        What `lint` says.
    folded
        What `fold` does with a copy in evaluation mode; None: nothing to fold.
    accumulation
        What `accumulate.check` says; None: no micro-batch was given.
    layers
        Share of batch in the variance of each layer, of `capture`; None: no loader.
    not_measured
        Why a part is missing, by the part's name.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    >>> def loss(model, batch):
    ...     return model(batch).square().mean()
    >>> found = report(model, torch.randn(16, 3), loss)
    >>> found.ok, found.accumulation is None
    (False, True)
    """

    batch_norms: Mapping[str, int]
    findings: LintResult
    folded: Folded | None = None
    accumulation: Cost | None = None
    layers: pd.DataFrame | None = None
    not_measured: Mapping[str, str] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether `lint` found no fault."""
        return self.findings.ok

    def __str__(self) -> str:
        kinds = [f"{count} {kind}" for kind, count in self.batch_norms.items()]
        parts = {
            "BatchNorm layers": "\n".join(kinds) or "none",
            "Findings (bridge.lint)": str(self.findings),
            "Folding (bridge.fold)": self._folding(),
            "Accumulation (accumulate.check)": str(self.accumulation or ""),
            "Batch, share of variance (bridge.capture)": self._shares(),
        }
        for title in parts:
            if missing := self.not_measured.get(title.split()[0].strip(",")):
                parts[title] = "\n".join(wrap(f"Not measured: {missing}", 86))
        return "\n\n".join(
            f"{title}\n{indent(text, '  ')}" for title, text in parts.items() if text
        )

    __repr__ = __str__

    def _folding(self) -> str:
        if self.folded is None:
            return ""
        n, kept = len(self.folded.folded), self.folded.kept
        head = f"{n} of {n + len(kept)} fold into a neighbour, relative error"
        lines = [f"{head} {self.folded.error:.2g}"]
        reasons = list(dict.fromkeys(kept.values()))
        for reason in reasons[:REASONS]:
            names = some([name for name in kept if kept[name] == reason])
            lines += wrap(f"kept: {names}: {reason}", 86, subsequent_indent="  ")
        if len(reasons) > REASONS:
            lines.append(f"and {len(reasons) - REASONS} more reasons, in .folded.kept")
        return "\n".join(lines)

    def _shares(self) -> str:
        if self.layers is None:
            return ""
        largest = self.layers.sort_values("batch", ascending=False).head(10)
        return (
            f"{largest.round(3).to_string()}\nThe {len(largest)} largest of "
            f"{len(self.layers)}: adjusted R² of the domains, mean over channels."
        )


def report(
    model: nn.Module,
    batch: Any,
    loss: LossFunction,
    optimizer: optim.Optimizer | None = None,
    loader: Iterable[Any] | None = None,
    *,
    domain: Sequence[Hashable] | int | None = None,
    micro_batch_size: int | None = None,
) -> Report:
    """Look at the BatchNorms of a model with every function that asks no more than this.

    Parameters
    ----------
    model, batch, loss, optimizer
        As for `lint`.
    loader, domain
        Samples of several domains, and which those are, as for `capture` its loader and
        batch; None: batch shares are left out; each minibatch is a domain.
    micro_batch_size
        Samples of a micro-batch, if gradients are accumulated over `batch`; None: what
        accumulation costs is left out.

    Returns
    -------
    Report
        An account to print, with each result as an attribute.

    Raises
    ------
    InputError
        As `lint`. Other parts that cannot be measured are named with the reason.

    Notes
    -----
    The model, its gradients and the random numbers stay as they were. About a dozen
    training steps for `lint`, some runs for `fold`, five times the batch for
    accumulation, and one run over the loader.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> _ = torch.manual_seed(0)
    >>> model = nn.Sequential(
    ...     nn.Linear(3, 4, bias=False), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 1)
    ... )
    >>> def loss(model, batch):
    ...     return model(batch).square().mean()
    >>> print(report(model, torch.randn(32, 3), loss))
    BatchNorm layers
      1 BatchNorm1d, training
    <BLANKLINE>
    Findings (bridge.lint)
      No fault found. Looked at 1 BatchNorm1d and 5 weights and biases.
    <BLANKLINE>
    Folding (bridge.fold)
      1 of 1 fold into a neighbour, relative error ...
    """
    findings = lint(model, batch, loss, optimizer)
    step = Step.of(model, loss)
    kinds = Counter(filter(None, map(_kind, step.model.modules())))
    size: Any = {"micro_batch_sizes": [micro_batch_size], "partitions": PARTITIONS}
    asked: dict[str, Callable[[], Any]] = {}
    if kinds:
        asked["Folding"] = lambda: fold(*_evaluated(step, batch))
    if micro_batch_size is not None:
        asked["Accumulation"] = lambda: check(step.model, batch, loss, **size)
    if loader is not None:
        asked["Batch"] = lambda: capture(step.model, loader, domain).uns["layers"]
    results: dict[str, Any] = {}
    missing: dict[str, str] = {}
    for part, measure in asked.items():
        try:
            results[part] = measure()
        except BatchCorrError as error:
            missing[part] = str(error)
    folded, cost, shares = map(results.get, ("Folding", "Accumulation", "Batch"))
    return Report(kinds, findings, folded, cost, shares, missing)


def _kind(layer: Any) -> str:
    """Class and mode of a BatchNorm; "" of other layers."""
    name, mode = type(layer).__name__, "training" if layer.training else "evaluation"
    if is_batch_norm(layer):
        tracked = "" if layer.running_mean is not None else ", no running statistics"
        return f"{name}, {mode}{tracked}"
    return f"{name}, frozen in buffers" if is_frozen(layer) else ""


def _evaluated(step: Step, batch: Any) -> tuple[nn.Module, Any]:
    """A copy of the model in evaluation mode, and what the loss calls it with."""
    model = copy_of(step.model).eval()
    calls: list[tuple[Any, Any]] = []

    def note(_: nn.Module, args: Any, kwargs: Any) -> None:
        calls.append((args, kwargs))

    with torch.no_grad(), seeded(step.devices), hooked([model], before=note):
        step.loss(model, batch)
    args, kwargs = calls[0] if calls else ((), {})
    if bool(args) == bool(kwargs):
        msg = (
            "The loss does not call the model with inputs by position or by name alone: "
            "use bridge.fold(model.eval(), example_inputs)."
        )
        raise InputError(msg)
    return model, args or kwargs
