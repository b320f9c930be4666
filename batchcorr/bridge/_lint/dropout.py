r"""Dropout before BatchNorm: the variance that comes in differs in evaluation.

With values kept with probability p and divided by p, a channel's variance in training is
E x²/p - μ², in evaluation E x² - μ²; BatchNorm learns the first and is used with the second,
so that its output has variance below 1. Only what lies between a dropout and the next
BatchNorm matters: that one standardizes anew in training. So the outputs of all BatchNorm
layers are fixed to what they are without dropout, and the variance of what comes in is
compared: with many masks, and with none.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch.nn.modules.dropout import _DropoutNd

from batchcorr.bridge._batches import n_samples
from batchcorr.bridge._channels import channel_moments
from batchcorr.bridge._intercept import Intercept, Quiet
from batchcorr.bridge._lint.result import Finding
from batchcorr.bridge._norms import is_batch_norm
from batchcorr.bridge._running import hooked, input_of, seeded
from batchcorr.bridge._torch import torch

if TYPE_CHECKING:
    from torch import Tensor, nn

    from batchcorr.bridge._step import Step
    from batchcorr.models.moments import Moments

__all__ = ["find_dropout_before"]

MASKS, ROWS = 64, 4096
"""Draws of the masks at most, and samples under masks that are enough."""

SEED = 715_517
"""Far from seeds that people make data with: masks must not follow the values."""

TOLERATED = 0.02
"""Change of the variance that is not worth a word."""


def find_dropout_before(step: Step, batch: Any) -> list[Finding]:
    """The BatchNorm layers whose variance a dropout changes."""
    still = _run(step, batch)
    if not still:
        return []
    masks = min(max(ROWS // n_samples(batch), 4), MASKS)
    drawn = [_run(step, batch, still, SEED + k) for k in range(masks)]
    findings: dict[str, Finding] = {}
    for one, *draws in zip(still, *drawn, strict=True):
        if one.layer in findings:
            continue
        training = draws[0].moments
        for draw in draws[1:]:
            training = training.merge(draw.moments)
        varies = training.variance() > 0
        ratios = one.moments.variance()[varies] / training.variance()[varies]
        ratio = float(ratios.mean()) if len(ratios) else 1.0
        if abs(ratio - 1) > TOLERATED:
            causes = ", ".join(dict.fromkeys(one.dropouts)) or "dropout"
            findings[one.layer] = _finding(one.layer, ratio, causes)
    return list(findings.values())


@dataclass
class _Call:
    """One call of a BatchNorm: where, what came in and went out, dropouts since the last."""

    layer: str
    moments: Moments
    dropouts: list[str]
    output: Tensor = field(init=False)


def _run(
    step: Step, batch: Any, still: list[_Call] | None = None, seed: int = 0
) -> list[_Call]:
    """The calls of BatchNorm layers in training that track statistics, in one pass.

    Random layers draw from the seed, and every call gives what it gave when they were
    `still`; without that, they are.
    """
    names = {
        module: name
        for name, module in step.model.named_modules()
        if isinstance(module, _DropoutNd)
        or (
            is_batch_norm(module)
            and module.training
            and module.running_mean is not None
        )
    }
    calls: list[_Call] = []
    dropouts: list[str] = []

    def enter(module: nn.Module, args: Any, kwargs: Any) -> None:
        if isinstance(module, _DropoutNd):
            dropouts.append(names[module])
        else:
            moments = channel_moments(input_of(args, kwargs))
            calls.append(_Call(names[module], moments, dropouts.copy()))
            dropouts.clear()

    def leave(module: nn.Module, _a: Any, _k: Any, output: Any) -> Any:
        if isinstance(module, _DropoutNd):
            return None
        given = output if still is None else still[len(calls) - 1].output
        calls[-1].output = given.clone()  # what comes next may work in place
        return given.clone()

    quiet = Quiet() if still is None else Intercept()
    watching = hooked(names, before=enter, after=leave)
    with torch.no_grad(), watching, seeded(step.devices, seed), Intercept(), quiet:
        step(batch)
    return calls


def _finding(name: str, ratio: float, causes: str) -> Finding:
    message = (
        f"{causes} changes the variance that comes in: in evaluation it is {ratio:.3f} "
        "of what it is in training, and so is the variance of the output, against 1."
    )
    remedy = (
        "Put dropout behind the last BatchNorm, or drop it: BatchNorm regularizes too. "
        "In a trained model, take the running statistics anew with dropout off "
        "(bridge.recalibrate)."
    )
    evidence = {"variance": ratio}
    return Finding("dropout-before-batchnorm", name, message, evidence, remedy)
