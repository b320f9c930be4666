"""What lint gives back: findings with their evidence, and parameter groups."""

from __future__ import annotations

from dataclasses import dataclass, field
from textwrap import wrap
from typing import TYPE_CHECKING, Any

from batchcorr.errors import InputError, some

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

__all__ = ["Finding", "LintResult"]

INDENT = " " * 4


@dataclass(frozen=True)
class Finding:
    """What one rule says of one layer.

    Parameters
    ----------
    rule
        Which rule.
    layer
        Name of the layer in the model.
    message
        What was seen, in words and numbers.
    evidence
        The numbers by name.
    remedy
        What to do.
    severity
        "fault": training or evaluation suffers. "note": good to know, and one may want it.

    Examples
    --------
    >>> print(
    ...     Finding("small-batch", "bn", "2 values per channel.", {"rows": 2}, "More.")
    ... )
    small-batch (fault): bn
        2 values per channel.
        Remedy: More.
    """

    rule: str
    layer: str
    message: str
    evidence: Mapping[str, float]
    remedy: str
    severity: str = "fault"

    def __str__(self) -> str:
        return _entry([self])


def _entry(alike: Sequence[Finding]) -> str:
    """The findings of a rule with one remedy: all layers, and the first one's numbers."""
    first = alike[0]
    lines = [f"{first.rule} ({first.severity}): {some(f.layer for f in alike)}"]
    at = f"{first.layer}: " if len(alike) > 1 else ""
    for text in (at + first.message, f"Remedy: {first.remedy}"):
        lines += wrap(text, 88, initial_indent=INDENT, subsequent_indent=INDENT)
    return "\n".join(lines)


@dataclass(frozen=True)
class LintResult:
    """What was found in a model, and what its parameters are.

    `str` groups the findings: one entry for a rule and remedy, however many layers.

    Attributes
    ----------
    findings
        Layer by layer, rule by rule.
    scale_invariant
        Names of the weights whose length does not change what the network computes.
    batch_norms
        How many BatchNorm layers were called, by class.

    Examples
    --------
    >>> print(LintResult((), (), {}, {"BatchNorm2d": 53}))
    No fault found. Looked at 53 BatchNorm2d and 0 weights and biases.
    """

    findings: tuple[Finding, ...]
    scale_invariant: tuple[str, ...]
    _parameters: Mapping[str, Tensor] = field(repr=False)
    batch_norms: Mapping[str, int]

    @property
    def ok(self) -> bool:
        """Whether no fault was found; there may be notes."""
        return all(finding.severity != "fault" for finding in self.findings)

    def __str__(self) -> str:
        groups: dict[tuple[str, str, str], list[Finding]] = {}
        for finding in sorted(self.findings, key=lambda f: f.severity != "fault"):
            key = finding.severity, finding.rule, finding.remedy
            groups.setdefault(key, []).append(finding)
        entries = [_entry(alike) for alike in groups.values()]
        if self.ok:
            kinds = [f"{n} {kind}" for kind, n in self.batch_norms.items()]
            looked = f"{', '.join(kinds) or 'no BatchNorm'} and {len(self._parameters)}"
            head = f"No fault found. Looked at {looked} weights and biases."
            entries = [head, *entries]
        return "\n".join(entries)

    def parameter_groups(self, *, weight_decay: float) -> list[dict[str, Any]]:
        """Groups for an optimizer, of which only ordinary weights decay.

        Decaying a scale-invariant weight only raises the effective learning rate of its
        direction; a bias, and a scale or shift of a normalization, is one number per
        channel and has nothing to overfit with. Neither decays.

        Parameters
        ----------
        weight_decay
            Decay of the ordinary weights: matrices and kernels that are not
            scale-invariant.

        Returns
        -------
        list of dict
            One or two groups of trainable parameters, each parameter once.

        Raises
        ------
        InputError
            If the decay is negative or no number.

        Examples
        --------
        >>> import torch
        >>> from torch import nn
        >>> net = nn.Sequential(nn.Linear(3, 4, bias=False), nn.BatchNorm1d(4))
        >>> _ = net.append(nn.Linear(4, 1))
        >>> def loss(model, batch):
        ...     return model(batch).square().mean()
        >>> from batchcorr.bridge._lint import lint
        >>> found = lint(net, torch.randn(16, 3), loss)
        >>> groups = found.parameter_groups(weight_decay=0.01)
        >>> [(len(g["params"]), g["weight_decay"]) for g in groups]
        [(1, 0.01), (4, 0.0)]
        >>> optimizer = torch.optim.AdamW(groups, lr=1e-3)
        """
        number = isinstance(weight_decay, int | float)
        if not number or isinstance(weight_decay, bool) or not weight_decay >= 0:
            msg = f"weight_decay must be a number from 0 on, not {weight_decay!r}."
            raise InputError(msg)
        decayed: list[Tensor] = []
        free: list[Tensor] = []
        for name, value in self._parameters.items():
            ordinary = value.ndim > 1 and name not in self.scale_invariant
            (decayed if ordinary else free).append(value)
        groups = [
            {"params": decayed, "weight_decay": float(weight_decay)},
            {"params": free, "weight_decay": 0.0},
        ]
        return [group for group in groups if group["params"]]
