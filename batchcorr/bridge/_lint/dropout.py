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
from batchcorr.bridge._intercept import Call, Intercept, Quiet
from batchcorr.bridge._lint.result import Finding
from batchcorr.bridge._running import hooked
from batchcorr.bridge._torch import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

    from batchcorr.bridge._lint.subject import Subject
    from batchcorr.models.moments import Moments

__all__ = ["find_dropout_before"]

MASKS, ROWS = 64, 4096
"""Draws of the masks at most, and samples under masks that are enough."""

SEED = 715_517
"""Far from seeds that people make data with: masks must not follow the values."""

TOLERATED = 0.02
"""Change of the variance that is not worth a word."""


class _Run(Intercept):
    """One forward pass: what came into each BatchNorm call, and where it was.

    Every call gives the output it had without dropout, once `outputs` are known; of the
    random layers those draw that `draws` says, by their number.
    """

    def __init__(
        self,
        subject: Subject,
        outputs: list[Tensor] | None,
        draws: Callable[[int], bool],
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.known = outputs
        self.inputs: list[Tensor] = []
        self.outputs: list[Tensor] = []
        self.tracked: list[bool] = []
        self.layers: list[str] = []
        self.random: list[str] = []
        self._inside = [""]
        names = {
            id(module): name for name, module in subject.step.model.named_modules()
        }

        def enter(module: nn.Module, _args: Any, _kwargs: Any) -> None:
            self._inside.append(names[id(module)])

        def leave(*_: Any) -> None:
            self._inside.pop()

        modules = subject.step.model.modules()
        with (
            torch.no_grad(),
            hooked(modules, before=enter, after=leave),
            _Some(self, draws),
        ):
            subject.run(self, seed)

    def answer(self, call: Call) -> Tensor:
        """What was given before, or the normalized input the first time."""
        number = len(self.inputs)
        output = super().answer(call) if self.known is None else self.known[number]
        # Copies, since layers after or beside this one may work in place.
        self.inputs.append(call.input.clone())
        self.outputs.append(output.clone())
        self.tracked.append(call.running_mean is not None)
        self.layers.append(self._inside[-1])
        return output.clone()

    def moments(self, site: int) -> Moments:
        """Moments of what came into a call."""
        x = self.inputs[site]
        return Call(
            x, None, None, None, None, training=True, momentum=0.0, eps=0.0
        ).moments()


def _all(_number: int) -> bool:
    return True


def _none(_number: int) -> bool:
    return False


class _Some(Quiet):
    """Lets some of the random layers draw, and notes where they are."""

    def __init__(self, run: _Run, draws: Callable[[int], bool]) -> None:
        super().__init__()
        self.run, self.draws_at = run, draws

    def answer(
        self, number: int, drawn: Callable[[], Any], still: Callable[[], Any]
    ) -> Any:
        """What a random function gives."""
        self.run.random.append(self.run._inside[-1])
        return drawn() if self.draws_at(number) else still()


def find_dropout_before(
    general: Subject, plain: Callable[[], Subject]
) -> list[Finding]:
    """The BatchNorm layers whose variance a dropout changes.

    Looked for at no special point, too, where nothing hides it; the numbers are those of
    the plain model where it shows there.
    """
    if not general.is_random:
        return []
    return list((_find(general) | _find(plain())).values())


def _find(subject: Subject) -> dict[str, Finding]:
    still = _Run(subject, None, _none)
    first = _Run(subject, still.outputs, _all)
    sites = [
        k
        for k, (one, other) in enumerate(zip(still.inputs, first.inputs, strict=True))
        if still.tracked[k] and not torch.equal(one, other)
    ]
    findings: dict[str, Finding] = {}
    for k, ratio in _variance_ratios(subject, still, sites).items():
        layer = still.layers[k]
        if abs(ratio - 1) > TOLERATED and layer not in findings:
            causes = [
                name
                for number, name in enumerate(still.random)
                if not torch.equal(
                    still.inputs[k],
                    _Run(subject, still.outputs, number.__eq__).inputs[k],
                )
            ]
            findings[layer] = _finding(layer, ratio, causes)
    return findings


def _variance_ratios(
    subject: Subject, still: _Run, sites: list[int]
) -> dict[int, float]:
    """The variance in evaluation over that in training, mean over channels."""
    training: dict[int, Moments] = {}
    masks = min(max(ROWS // n_samples(subject.batch), 4), MASKS)
    for seed in range(SEED, SEED + (masks if sites else 0)):
        drawn = _Run(subject, still.outputs, _all, seed)
        for k in sites:
            own = drawn.moments(k)
            training[k] = training[k].merge(own) if k in training else own
    ratios = {}
    for k in sites:
        drawn_variance, plain = training[k].variance(), still.moments(k).variance()
        ratio = plain[drawn_variance > 0] / drawn_variance[drawn_variance > 0]
        ratios[k] = float(ratio.mean()) if len(ratio) else 1.0
    return ratios


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
