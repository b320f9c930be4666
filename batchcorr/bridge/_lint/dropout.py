r"""Dropout before BatchNorm: the variance that comes in differs in evaluation.

With values kept with probability p and divided by p, a channel's variance in training is
E x²/p - μ², in evaluation E x² - μ²; BatchNorm learns the first and is used with the second,
so that its output has variance below 1. Only what lies between a dropout and the next
BatchNorm matters: that one standardizes anew in training. So the outputs of all BatchNorm
layers are fixed to what they are without dropout, and the variance of what comes in is
compared: with many masks, and with none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from batchcorr.bridge._batches import n_samples
from batchcorr.bridge._intercept import Quiet
from batchcorr.bridge._lint.result import Finding
from batchcorr.bridge._norms import is_batch_norm
from batchcorr.bridge._rows import channel_moments
from batchcorr.bridge._running import hooked, input_of
from batchcorr.bridge._torch import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

    from batchcorr.bridge._lint.trial import Trial
    from batchcorr.models.moments import Moments

__all__ = ["find_dropout_before"]

MASKS, ROWS = 64, 4096
"""Draws of the masks at most, and samples under masks that are enough."""

SEED = 715_517
"""Far from seeds that people make data with: masks must not follow the values."""

TOLERATED = 0.02
"""Change of the variance that is not worth a word."""


class _Run(Quiet):
    """One forward pass, in which some of the random layers draw.

    Attributes
    ----------
    moments, outputs, layers
        What came into each BatchNorm call that tracks statistics, what went out, and
        where it was.
    random
        Where the random layers are.
    """

    def __init__(
        self,
        trial: Trial,
        still: _Run | None,
        draws: Callable[[int], bool],
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.draws_at, self.known = draws, still
        self.moments: list[Moments] = []
        self.outputs: list[Tensor] = []
        self.layers: list[str] = []
        self.random: list[str] = []
        self._inside = [""]
        self._names = {
            module: name for name, module in trial.step.model.named_modules()
        }
        with (
            torch.no_grad(),
            hooked(self._names, before=self._enter, after=self._leave),
            self,
        ):
            trial.run(seed)

    def _enter(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        self._inside.append(self._names[module])
        if _is_learning(module):
            self.moments.append(channel_moments(input_of(args, kwargs)))
            self.layers.append(self._names[module])

    def _leave(self, module: nn.Module, _a: Any, _k: Any, output: Any) -> Any:
        self._inside.pop()
        if not _is_learning(module):
            return None
        if self.known is not None:
            output = self.known.outputs[len(self.outputs)]
        self.outputs.append(output.clone())  # what comes next may work in place
        return output.clone()

    def answer(
        self, number: int, drawn: Callable[[], Any], still: Callable[[], Any]
    ) -> Any:
        """What a random function gives."""
        self.random.append(self._inside[-1])
        return drawn() if self.draws_at(number) else still()

    def differs(self, other: _Run, call: int) -> bool:
        """Whether another thing came into a call."""
        one, two = self.moments[call], other.moments[call]
        return not (
            torch.equal(one.mean, two.mean) and torch.equal(one.squares, two.squares)
        )


def _is_learning(module: nn.Module) -> bool:
    """Whether a layer is a BatchNorm in training that tracks statistics."""
    norm = is_batch_norm(module) and module.training
    return norm and module.running_mean is not None


def find_dropout_before(general: Trial, plain: Callable[[], Trial]) -> list[Finding]:
    """The BatchNorm layers whose variance a dropout changes."""
    if not general.is_random:
        return []
    trial = plain()
    still = _Run(trial, None, lambda _: False)
    if not still.moments:
        return []
    masks = min(max(ROWS // n_samples(trial.batch), 4), MASKS)
    drawn = [_Run(trial, still, lambda _: True, SEED + k) for k in range(masks)]
    findings: dict[str, Finding] = {}
    for call, layer in enumerate(still.layers):
        if layer in findings or not drawn[0].differs(still, call):
            continue
        training = drawn[0].moments[call]
        for run in drawn[1:]:
            training = training.merge(run.moments[call])
        there = training.variance() > 0
        ratios = still.moments[call].variance()[there] / training.variance()[there]
        ratio = float(ratios.mean()) if len(ratios) else 1.0
        if abs(ratio - 1) > TOLERATED:
            causes = [
                name
                for number, name in enumerate(still.random)
                if _Run(trial, still, number.__eq__).differs(still, call)
            ]
            findings[layer] = _finding(layer, ratio, causes)
    return list(findings.values())


def _finding(name: str, ratio: float, causes: list[str]) -> Finding:
    what = ", ".join(dict.fromkeys(causes)) or "dropout"
    message = (
        f"{what} changes the variance that comes in: in evaluation it is {ratio:.3f} of "
        "what it is in training, and so is the variance of the output, against 1."
    )
    remedy = (
        "Put dropout behind the last BatchNorm, or drop it: BatchNorm regularizes too. "
        "In a trained model, take the running statistics anew with dropout off "
        "(bridge.recalibrate)."
    )
    evidence = {"variance": ratio}
    return Finding("dropout-before-batchnorm", name, message, evidence, remedy)
