"""The public function: trace a copy, plan, change another copy, compare."""

from __future__ import annotations

import warnings
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from batchcorr.bridge._fold.example import Example, read_example
from batchcorr.bridge._fold.plan import plan_all
from batchcorr.bridge._fold.rewrite import add_biases, copied, rewrite
from batchcorr.bridge._fold.trace import Trace
from batchcorr.bridge._fold.verify import (
    outputs_of,
    outputs_of_folded,
    relative_error,
    require_equal,
    require_finite,
)
from batchcorr.bridge._norms import batch_norms, require_model, require_plain
from batchcorr.bridge._running import accelerators, seeded
from batchcorr.bridge._torch import torch
from batchcorr.errors import InputError, some

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor, nn

__all__ = ["Folded", "fold"]


@dataclass(frozen=True, repr=False)
class Folded:
    """A model without the BatchNorm layers that could be folded.

    Parameters
    ----------
    model
        The folded model, of the class of the given one, in evaluation mode.
    folded
        Name of each layer that is gone: the names of the layers that took it up.
    kept
        Name of each layer that is still there: the reason.
    errors
        Largest difference of the outputs, relative to the largest output, by the number
        of samples.
    reads
        Where the model's own code looks at numbers of a tensor: it may branch on them,
        and go another way for other inputs than the examples. Empty for most models.

    Examples
    --------
    >>> from torch import nn
    >>> Folded(nn.Identity(), {"bn": ("conv",)}, {}, {4: 1e-16, 5: 0.0})
    1 of 1 BatchNorm layers folded, relative error 1e-16 for 4, 5 samples
      bn → conv
    """

    model: nn.Module
    folded: dict[str, tuple[str, ...]]
    kept: dict[str, str]
    errors: dict[int, float]
    reads: tuple[str, ...] = ()

    @property
    def error(self) -> float:
        """Largest relative error of all that were measured."""
        return max(self.errors.values())

    def __repr__(self) -> str:
        count = len(self.folded)
        sizes = ", ".join(str(size) for size in self.errors)
        head = (
            f"{count} of {count + len(self.kept)} BatchNorm layers folded, relative "
            f"error {self.error:.2g} for {sizes} samples"
        )
        lines = [head]
        lines += [f"  {name} → {', '.join(into)}" for name, into in self.folded.items()]
        lines += [f"  {name} kept: {reason}" for name, reason in self.kept.items()]
        if self.reads and self.folded:
            lines.append(
                f"  The model looks at values ({some(self.reads)}) and may branch on "
                "them: compare the two on inputs of every kind."
            )
        return "\n".join(lines)


def fold(model: nn.Module, example_inputs: object) -> Folded:
    r"""Remove every BatchNorm layer that can be folded exactly into its neighbours.

    In evaluation mode a BatchNorm is a frozen correction, r ∘ x + s. Behind a linear
    layer or convolution with weight W and bias c it is one of them with

        W' = r ∘ W,      c' = r ∘ c + s

    and in front of one without zero padding W' = W ∘ r, c' = c + W s. On the way to such
    a layer it may pass pooling, reshapes, dropout, and BatchNorms that are gone. What
    else the module does (the activation in timm's) stays. What is computed from what is
    recorded while the model runs on the examples; where the outputs would not stay the
    same, the layer is kept, and the reason given.

    Parameters
    ----------
    model
        A network in evaluation mode. It is not changed.
    example_inputs
        A tensor, a tuple of positional arguments, or a dict of named ones; real data
        are best, since the result is compared on them.

    Returns
    -------
    The folded model with an account of what was done; see `Folded`. It is of the same
    class, and its state_dict lacks the folded layers and has biases where they went.
    `model.train()` would train it without BatchNorm.

    Raises
    ------
    InputError
        If the model is in training mode, has no BatchNorm or cannot be copied, or the
        inputs do not fit it.
    FoldError
        If the folded model computes anything but what the given one does: more than
        1e-10 of the largest output in float64, 1e-5 in float32 (of the weights).

    Notes
    -----
    The data flow is that of a call like the given one. Another call may take another
    way: with other arguments (`features=True`), by other methods, in another mode, or
    where the code branches on sizes or values (`Folded.reads`). Then the folded model
    may compute something else. Fold the model as you will call it.

    Runs the model, and so its hooks, some times on the example inputs, on one sample
    more, and on one sample. Weights that several layers share, or that are computed on
    the fly (weight norm, pruning), are not changed. New weights are computed in float64
    and rounded once. Autocast is off meanwhile.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> model = nn.Sequential(nn.Conv1d(3, 8, 5), nn.BatchNorm1d(8), nn.ReLU()).eval()
    >>> result = fold(model, torch.ones(2, 3, 16))
    >>> result.folded
    {'1': ('0',)}
    >>> result.model
    Sequential(
      (0): Conv1d(3, 8, kernel_size=(5,), stride=(1,))
      (1): Identity()
      (2): ReLU()
    )
    """
    model = _require_foldable(model)
    with _in_own_numbers(model):
        example = read_example(example_inputs, model)
        calls = _record(copied(model), example)
        folded = copied(model)
        added = add_biases(folded)
        plan = plan_all(folded, [call.trace for call in calls])
        rewrite(folded, plan, added)
        errors = {}
        for call in calls:
            outputs = outputs_of_folded(folded, call.example)
            size = call.example.batch_size
            errors[size] = relative_error(outputs, call.outputs)
        require_equal(errors, calls[0].outputs, model)
    reads = tuple(dict.fromkeys(str(step) for step in calls[0].trace.reads))
    return Folded(folded, plan.folded, plan.kept, dict(sorted(errors.items())), reads)


# -- before ------------------------------------------------------------------------------


@contextmanager
def _in_own_numbers(model: nn.Module) -> Iterator[None]:
    """Compute in the numbers of the model, with tensors that may be trained later."""
    kinds = {"cpu", *(device.type for device in accelerators(model))}
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(mode=False))
        for kind in kinds:
            if torch.amp.is_autocast_available(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        yield


def _require_foldable(model: nn.Module) -> nn.Module:
    """The model, unwrapped; refuse what has no BatchNorm, or is not in evaluation mode."""
    model = require_model(model)
    require_plain(model)
    batch_norms(model, frozen=True)
    training = [
        name or "the model" for name, part in model.named_modules() if part.training
    ]
    if training:
        msg = (
            f"The model is in training mode ({some(training)}), where BatchNorm is no "
            "fixed correction. Call model.eval() first."
        )
        raise InputError(msg)
    return model


class _Call(NamedTuple):
    example: Example
    trace: Trace
    outputs: list[Tensor]


def _record(model: nn.Module, example: Example) -> list[_Call]:
    """Outputs and traces of a model for n samples, one more and one, if it takes them."""
    calls: list[_Call] = []
    for given in (example, example.longer(), example.single()):
        if calls and given.batch_size in {call.example.batch_size for call in calls}:
            continue
        try:
            with warnings.catch_warnings():
                if calls:
                    warnings.simplefilter("ignore")  # nobody asked for this size
                outputs = outputs_of(model, given)
        except Exception as error:
            if calls:  # the model takes no such batch
                continue
            msg = (
                f"The model fails on example_inputs: {type(error).__name__}: {error}\n"
                "Give them as the model takes them: a tensor, a tuple of positional "
                "arguments, or a dict of named ones."
            )
            raise InputError(msg) from error
        if not calls:
            require_finite(outputs)
            add_biases(model)
        trace = Trace(model)
        with torch.no_grad(), seeded(accelerators(model)), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            trace.run(given.args, given.kwargs)
        calls.append(_Call(given, trace, outputs))
    return calls
