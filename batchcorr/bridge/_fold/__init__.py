r"""Folding: a BatchNorm at inference is a frozen correction, and needs not be applied.

    r ∘ (W x + c) + s = (r ∘ W) x + (r ∘ c + s),     W (r ∘ x + s) + c = (W r) x + (c + W s)

`trace` follows the results of layers through one run, `plan` says which layer takes up
which correction and changes a copy, and `compare` runs it beside the given model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from batchcorr.bridge._fold.compare import (
    error_of,
    examples_of,
    outputs_of,
    outputs_of_given,
    require_equal,
)
from batchcorr.bridge._fold.deployed import compiled, exported, require_same
from batchcorr.bridge._fold.plan import Plan
from batchcorr.bridge._fold.trace import Trace
from batchcorr.bridge._norms import batch_norms, require_model, unwrapped
from batchcorr.bridge._running import accelerators, copy_of, require_evaluation
from batchcorr.bridge._torch import torch
from batchcorr.errors import some

if TYPE_CHECKING:
    from torch import Tensor, nn

    from batchcorr.bridge._fold.compare import Arguments

__all__ = ["Folded", "fold"]

SHOWN = 10
"""Layers folded, and layers kept, that are printed."""


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
    example
        Positional and named arguments of a call, and the tensors that the given model
        returned: what `check` compares with.

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
    example: tuple[Arguments, list[Tensor]] = (((), {}), [])

    @property
    def error(self) -> float:
        """Largest relative error of all that were measured."""
        return max(self.errors.values())

    def __repr__(self) -> str:
        count = len(self.folded)
        sizes = ", ".join(map(str, self.errors))
        head = f"{count} of {count + len(self.kept)} BatchNorm layers folded, relative"
        lines = [f"{head} error {self.error:.2g} for {sizes} samples"]
        into = [f"  {name} → {', '.join(into)}" for name, into in self.folded.items()]
        kept = [f"  {name} kept: {reason}" for name, reason in self.kept.items()]
        for where, entries in (("folded", into), ("kept", kept)):
            lines += entries[:SHOWN]
            if len(entries) > SHOWN:
                lines.append(f"  and {len(entries) - SHOWN} more, in .{where}")
        if self.reads and self.folded:
            lines.append(
                f"  The model looks at values ({some(self.reads)}) and may branch on "
                "them: compare the two on inputs of every kind."
            )
        return "\n".join(lines)

    def check(self, *, compile: bool = True, onnx: bool = False) -> dict[str, float]:
        """Compare the folded model, as it is deployed, with the given one.

        Parameters
        ----------
        compile
            Whether to compile it with `torch.compile`, which needs a C++ compiler.
        onnx
            Whether to export it to ONNX and run it there, which needs onnx, onnxscript
            and onnxruntime. Many of its operators take float32 only.

        Returns
        -------
        dict of str to float
            The largest difference of the outputs for the examples, relative to the largest
            output, "compiled" and "exported to ONNX".

        Raises
        ------
        FoldError
            If either fails, or differs by more than `fold` allows.
        MissingPackageError
            If what runs ONNX is not installed.

        Examples
        --------
        >>> import torch
        >>> model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
        >>> result = fold(model.eval(), torch.ones(2, 3))
        >>> result.check(compile=False)  # compile=True: {'compiled': 1.2e-07}
        {}
        """
        ways = {"compiled": compiled} if compile else {}
        ways |= {"exported to ONNX": exported} if onnx else {}
        return {
            how: require_same(how, deploy, self.model, *self.example)
            for how, deploy in ways.items()
        }


def fold(model: nn.Module, example_inputs: object) -> Folded:
    r"""Remove every BatchNorm layer that can be folded exactly into its neighbours.

    In evaluation mode a BatchNorm is a frozen correction, r ∘ x + s. Behind a linear
    layer or convolution with weight W and bias c it is one of them with

        W' = r ∘ W,      c' = r ∘ c + s

    and in front of one without zero padding W' = W ∘ r, c' = c + W s. On the way to such
    a layer it may pass pooling, reshapes, dropout, and BatchNorms that are gone. What
    else the module does (the activation in timm's) stays. Where the outputs would not
    stay the same, the layer is kept, and the reason given.

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
        If the folded model computes anything but what the given one does, on the
        examples, one sample more or one: a difference of more than 1e-10 of the largest
        output in float64, 1e-5 in float32 (of the weights).

    Notes
    -----
    The data flow is that of a call like the given one. With other arguments
    (`features=True`), by other methods, or where the code branches on sizes or values
    (`Folded.reads`), the folded model may compute something else: fold the model as you
    will call it. It is run, with its hooks, some times. Weights that are computed on the
    fly (weight norm, pruning), or used by functions too, are not changed; of layers with
    tied weights one that takes a BatchNorm up gets its own. New weights are computed in
    float64 and rounded once. Autocast is off meanwhile.

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
    model = require_model(model)
    batch_norms(model)
    require_evaluation(
        dict(model.named_modules()), "where BatchNorm is no fixed correction"
    )
    examples = examples_of(example_inputs)
    kind = next((device.type for device in accelerators(model)), "cpu")
    with torch.inference_mode(mode=False), torch.autocast(kind, enabled=False):
        folded = _copied(model)
        expected = outputs_of_given(folded, examples)
        trace = Trace(folded)
        outputs_of(trace.run, examples[0], folded)
        plan = Plan(folded, trace)
        plan.rewrite()
        errors = {
            size: error_of(folded, *pair) for size, pair in sorted(expected.items())
        }
        example = next(iter(expected.values()))
        require_equal(errors, example[1], model)
    reads = tuple(dict.fromkeys(trace.reads))
    return Folded(folded, plan.folded, plan.kept, errors, reads, example)


def _copied(model: nn.Module) -> nn.Module:
    """A copy without wrappers of torch.compile, and without an autograd graph."""
    copies: dict[int, Any] = {}
    for module in [*model.modules()][::-1]:
        if unwrapped(module) is not module:
            copies[id(module)] = copy_of(unwrapped(module), copies)
    twin = copy_of(model, copies)
    for module in twin.modules():
        module._compiled_call_impl = None  # of module.compile()
    return twin
