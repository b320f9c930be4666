r"""Dropout before BatchNorm: the variance that comes in differs in evaluation.

With values kept with probability p and divided by p, a channel's variance in training is
E x²/p - μ², in evaluation E x² - μ²; BatchNorm learns the first and is used with the second,
so that its output has variance below 1. Only what lies between a dropout and the next
BatchNorm matters: that one standardizes anew in training. So the outputs of all BatchNorm
layers are fixed to what they are without dropout, and the variance of what comes in is
compared: with many masks, and with none.
"""

from __future__ import annotations

from contextlib import nullcontext
from functools import reduce
from typing import TYPE_CHECKING, Any, NamedTuple

from torch.nn.modules.dropout import _DropoutNd

from batchcorr.bridge._batches import n_samples
from batchcorr.bridge._channels import channel_moments
from batchcorr.bridge._intercept import Intercept, Quiet
from batchcorr.bridge._lint.result import Finding
from batchcorr.bridge._norms import is_batch_norm
from batchcorr.bridge._running import hooked, input_of, seeded
from batchcorr.bridge._torch import torch
from batchcorr.models.moments import Moments

if TYPE_CHECKING:
    from torch import Tensor

    from batchcorr.bridge._step import Step

__all__ = ["find_dropout_before"]

MASKS, ROWS = 64, 4096
"""Draws of the masks at most, and samples under masks that are enough."""

SEED = 715_517
"""Far from seeds that people make data with: masks must not follow the values."""

TOLERATED = 0.02
"""Change of the variance that is not worth a word."""


class _Call(NamedTuple):
    """One call of a BatchNorm: what came in, and the dropouts since the last one."""

    layer: str
    moments: Moments
    dropouts: list[str]


def find_dropout_before(step: Step, batch: Any) -> list[Finding]:
    """The BatchNorm layers whose variance a dropout changes."""
    outputs: list[Tensor] = []
    still = _run(step, batch, outputs)
    masks = min(max(ROWS // n_samples(batch), 4), MASKS) if still else 0
    drawn = [_run(step, batch, outputs, SEED + k) for k in range(masks)]
    findings: dict[str, Finding] = {}
    for one, *draws in zip(still, *drawn, strict=True):
        training = reduce(Moments.merge, (draw.moments for draw in draws)).variance()
        varies = training > 0
        ratio = float((one.moments.variance()[varies] / training[varies]).mean())
        if abs(ratio - 1) > TOLERATED:
            causes = ", ".join(dict.fromkeys(one.dropouts)) or "dropout"
            findings.setdefault(one.layer, _finding(one.layer, ratio, causes))
    return list(findings.values())


def _run(
    step: Step, batch: Any, outputs: list[Tensor], seed: int | None = None
) -> list[_Call]:
    """The calls of BatchNorm layers in training that track statistics, in one pass.

    Without a seed random layers are still, and what each call gives is added to `outputs`;
    with one they draw from it, and every call gives what it gave then.
    """
    modules = list(step.model.named_modules())
    drops = {m: name for name, m in modules if isinstance(m, _DropoutNd)}
    norms = {
        m: name
        for name, m in modules
        if is_batch_norm(m) and m.training and m.running_mean is not None
    }
    calls: list[_Call] = []
    dropouts: list[str] = []

    def drop(module: Any, _args: Any, _kwargs: Any) -> None:
        dropouts.append(drops[module])

    def enter(module: Any, args: Any, kwargs: Any) -> None:
        moments = channel_moments(input_of(args, kwargs))
        calls.append(_Call(norms[module], moments, dropouts.copy()))
        dropouts.clear()

    def leave(_module: Any, _a: Any, _k: Any, output: Tensor) -> Tensor:
        if seed is None:
            outputs.append(output.clone())
        return outputs[len(calls) - 1].clone()  # what comes next may work in place

    with (
        hooked(drops, before=drop),
        hooked(norms, before=enter, after=leave),
        seeded(step.devices, seed or 0),
        Intercept(),
        Quiet() if seed is None else nullcontext(),
        torch.no_grad(),
    ):
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
