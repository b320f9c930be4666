r"""Dropout before BatchNorm: the variance that comes in differs in evaluation.

With values kept with probability p and divided by p, a channel's variance in training is
E x²/p - μ², in evaluation E x² - μ²; BatchNorm learns the first and is used with the second,
so that its output has variance below 1. Only what lies between a dropout and the next
BatchNorm matters: that one standardizes anew in training. So the outputs of all BatchNorm
layers are held at what they are without dropout, and the variance of what comes in is
compared: with many masks, and with none.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from batchcorr.bridge._lint.observation import Trail
from batchcorr.bridge._lint.result import Finding
from batchcorr.bridge._torch import torch
from batchcorr.bridge._training.intercept import Call, Intercept, variance_of
from batchcorr.bridge._training.quiet import DROPOUTS, Quiet

if TYPE_CHECKING:
    from torch import Tensor

    from batchcorr.bridge._lint.subject import Subject
    from batchcorr.models.moments import Moments

__all__ = ["find_dropout_before"]

MASKS = 32
"""Draws of the masks."""

TOLERATED = 0.02
"""Change of the variance that is not worth a word."""


class _Held(Intercept):
    """Gives every call the output it had without dropout, and keeps its input."""

    def __init__(self, trail: Trail, outputs: list[Tensor] | None = None) -> None:
        super().__init__()
        self.trail = trail
        self.outputs = outputs
        self.calls: list[Call] = []
        self.names: list[str] = []
        self.given: list[Tensor] = []

    def answer(self, call: Call) -> Tensor:
        """Return what was given before, or normalize for the first time."""
        output = (
            super().answer(call)
            if self.outputs is None
            else self.outputs[len(self.calls)]
        )
        # Copies, since layers after or beside this one may work in place.
        self.calls.append(replace(call, input=call.input.clone()))
        self.names.append(self.trail.name)
        self.given.append(output.clone())
        return output.clone()


class _Only(Quiet):
    """Leaves on a single dropout, by its number in the forward pass, or none."""

    def __init__(self, trail: Trail, number: int | None = None) -> None:
        super().__init__()
        self.trail = trail
        self.number = number
        self.names: list[str] = []

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func in DROPOUTS:
            self.names.append(self.trail.name)
            if len(self.names) - 1 == self.number:
                return func(*args, **(kwargs or {}))
        return super().__torch_function__(func, types, args, kwargs)


def find_dropout_before(*subjects: Subject) -> list[Finding]:
    """Return the BatchNorm layers whose variance a dropout changes.

    Where it does in several subjects, the numbers are those of the last.
    """
    found: dict[str, Finding] = {}
    for subject in subjects:
        found |= {finding.layer: finding for finding in _find(subject)}
    return list(found.values())


def _find(subject: Subject) -> list[Finding]:
    trail = Trail(subject.step.model)
    still, none = _Held(trail), _Only(trail)
    _run(subject, still, none)
    first = _run(subject, _Held(trail, still.given))
    sites = [
        k
        for k, call in enumerate(still.calls)
        if call.running_mean is not None and _differ(call, first.calls[k])
    ]
    ratios = _variance_ratios(subject, trail, still, sites)
    findings: dict[str, Finding] = {}
    for k, ratio in ratios.items():
        if abs(ratio - 1) > TOLERATED and still.names[k] not in findings:
            causes = [
                name
                for number, name in enumerate(none.names)
                if _reaches(subject, trail, still, number, k)
            ]
            findings[still.names[k]] = _finding(still.names[k], ratio, causes)
    return list(findings.values())


def _run(subject: Subject, held: _Held, *modes: Any, seed: int = 0) -> _Held:
    with torch.no_grad(), ExitStack() as stack:
        stack.enter_context(held)
        for mode in modes:
            stack.enter_context(mode)
        subject.run(mode=stack.pop_all(), seed=seed)
    return held


def _differ(one: Call, other: Call) -> bool:
    return not torch.equal(one.input, other.input)


def _variance_ratios(
    subject: Subject, trail: Trail, still: _Held, sites: list[int]
) -> dict[int, float]:
    """Return the variance in evaluation over that in training, mean over channels."""
    if not sites:
        return {}
    training: dict[int, Moments] = {}
    for seed in range(MASKS):
        drawn = _run(subject, _Held(trail, still.given), seed=seed)
        for k in sites:
            own = drawn.calls[k].moments()
            training[k] = training[k].merge(own) if k in training else own
    ratios = {}
    for k in sites:
        there = variance_of(training[k]) > 0
        ratio = (
            variance_of(still.calls[k].moments())[there]
            / variance_of(training[k])[there]
        )
        ratios[k] = float(ratio.mean()) if len(ratio) else 1.0
    return ratios


def _reaches(
    subject: Subject, trail: Trail, still: _Held, number: int, site: int
) -> bool:
    """Whether a dropout alone changes what comes into a BatchNorm."""
    alone = _run(subject, _Held(trail, still.given), _Only(trail, number))
    return _differ(still.calls[site], alone.calls[site])


def _finding(name: str, ratio: float, causes: list[str]) -> Finding:
    what = ", ".join(dict.fromkeys(causes)) or "dropout"
    return Finding(
        rule="dropout-before-batchnorm",
        layer=name,
        message=(
            f"{what} changes the variance that comes in: in evaluation it is {ratio:.3f} "
            f"of what it is in training, and so is the variance of the output, against 1."
        ),
        evidence={"variance": ratio},
        remedy=(
            f"Put {what} behind the last BatchNorm, or drop it: BatchNorm regularizes "
            "too. In a trained model, take the running statistics anew with dropout off."
        ),
    )
