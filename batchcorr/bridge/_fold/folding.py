"""The public function: follow a copy, plan, change another copy, measure."""

from __future__ import annotations

import copy
import warnings
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from batchcorr.bridge._fold.example import read_example
from batchcorr.bridge._fold.exported import export
from batchcorr.bridge._fold.flow import flow_of
from batchcorr.bridge._fold.plan import Plan, make_plan
from batchcorr.bridge._fold.result import Folded
from batchcorr.bridge._fold.rewrite import rewrite
from batchcorr.bridge._fold.sharing import rejoin, separate
from batchcorr.bridge._fold.stand_ins import corrections_in
from batchcorr.bridge._fold.verify import (
    outputs,
    relative_error,
    require_equal,
    require_finite,
)
from batchcorr.bridge._norms import batch_norms, require_model, require_plain
from batchcorr.bridge._torch import torch
from batchcorr.errors import FoldError, InputError, some

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor, nn

    from batchcorr.bridge._fold.example import Example

__all__ = ["fold"]

DEPENDS = (
    "the data flow depends on the number of samples, so that what is exact for one "
    "number need not be for another: fold a part that takes any number"
)


def fold(model: nn.Module, example_inputs: object) -> Folded:
    r"""Remove every BatchNorm layer that can be folded exactly into its neighbours.

    In evaluation mode a BatchNorm is a frozen correction, r ∘ x + s. Behind a linear
    layer or convolution with weight W and bias c it is one of them with

        W' = r ∘ W,      c' = r ∘ c + s

    and in front of one without zero padding W' = W ∘ r, c' = c + W s. On the way to such
    a layer it may pass additions, concatenations, pooling, reshapes, dropout, and other
    BatchNorms. Which step follows which is taken from `torch.export`; where that does
    not prove that the outputs stay the same, the layer is kept, and the reason given.

    Parameters
    ----------
    model
        A network in evaluation mode. It is not changed.
    example_inputs
        A tensor, a tuple of positional arguments, or a dict of named ones; real data
        are best, since the result is compared on them. Sizes other than that of the
        batch, the first axis, are taken to be fixed.

    Returns
    -------
    The folded model with an account of what was done; see `Folded`. It is of the same
    class, its state_dict lacks the folded layers and has biases where they went, and
    takes all batch sizes that the given one takes. `model.train()` would train it
    without BatchNorm.

    Raises
    ------
    InputError
        If the model is in training mode, has no BatchNorm, cannot be copied or cannot
        be followed by torch.export, or the inputs do not fit it.
    FoldError
        If the folded model computes anything but what the given one does: more than
        1e-10 of the largest output in float64, 1e-5 in float32.

    Notes
    -----
    The data flow is that of a call like the given one. Another call may take another
    way: with other arguments (`features=True`), by other methods, in another mode, or
    for sizes, other than the batch size, on which the code branches. Then the folded
    model may compute something else. Where the flow depends on the batch size, nothing
    is folded.

    Runs the model, and so its hooks, on the example inputs, on one sample more, and on
    one sample; if it takes neither, on the samples twice. A weight that several layers
    share, or that is computed on the fly (weight norm, pruning), is not changed. Autocast
    is off meanwhile.

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
    _require_foldable(model)
    with _plainly(model):
        example = read_example(example_inputs, model)
        scratch, _ = _copied(model)
        expected = {example: _run(scratch, example)}
        for other in (example.longer(), example.single(), example.doubled()):
            if other.batch_size == example.batch_size:
                continue
            if len(expected) == 1 or other.batch_size == 1:
                found = _try_run(scratch, other)
                expected |= {} if found is None else {other: found}
        plan, any_batch = _planned(scratch, list(expected))
        folded, groups = _copied(model)
        rewrite(folded, plan)
        rejoin(folded, groups)
        errors = {
            inputs.batch_size: relative_error(_run_folded(folded, inputs), outs)
            for inputs, outs in expected.items()
        }
        require_equal(errors, expected[example])
    return Folded(
        folded, plan.folded, plan.kept, dict(sorted(errors.items())), any_batch
    )


@contextmanager
def _plainly(model: nn.Module) -> Iterator[None]:
    """Compute in the numbers of the model, with tensors that may be trained later."""
    kinds = {"cpu", *(x.device.type for x in [*model.parameters(), *model.buffers()])}
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(mode=False))
        for kind in kinds:
            if torch.amp.is_autocast_available(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        yield


def _require_foldable(model: nn.Module) -> None:
    """Refuse what has no BatchNorm, or is not in evaluation mode."""
    modules = dict(require_model(model).named_modules())
    require_plain(model)
    if not any(hasattr(module, "as_correction") for module in modules.values()):
        batch_norms(model)
    training = [name or "the model" for name, part in modules.items() if part.training]
    if training:
        msg = (
            f"The model is in training mode ({some(training)}), where BatchNorm is no fixed "
            "correction. Call model.eval() first."
        )
        raise InputError(msg)


def _copied(model: nn.Module) -> tuple[nn.Module, list[list[str]]]:
    """Return a copy with a module for every name, and the names that shared one."""
    try:
        copied = copy.deepcopy(model)
    except (RuntimeError, TypeError) as error:
        msg = (
            f"The model cannot be copied, and it is never changed itself: {error}. "
            "Remove what cannot be copied, such as tensors kept from a forward pass."
        )
        raise InputError(msg) from error
    return copied, separate(copied)


def _planned(scratch: nn.Module, taken: list[Example]) -> tuple[Plan, bool]:
    """Return what is to be done, and whether it holds for any batch size.

    Parameters
    ----------
    scratch
        The model.
    taken
        Inputs that it takes, the given ones first.
    """
    corrections, without = corrections_in(scratch)
    several = max(taken, key=lambda example: example.batch_size)
    any_batch = len(taken) > 1
    program = export(scratch, several, any_batch=any_batch)
    if program is None:
        return Plan(kept=dict.fromkeys([*corrections, *without], DEPENDS)), False
    plan = make_plan(flow_of(program, scratch), corrections)
    plan.kept.update(without)
    return plan, any_batch


def _run(model: nn.Module, example: Example) -> list[Tensor]:
    """Return the given model's outputs."""
    try:
        found = outputs(model, example)
    except Exception as error:
        msg = (
            f"The model fails on example_inputs: {type(error).__name__}: {error}\n"
            "Give them as the model takes them: a tensor, a tuple of positional "
            "arguments, or a dict of named ones."
        )
        raise InputError(msg) from error
    require_finite(found)
    return found


def _try_run(model: nn.Module, example: Example) -> list[Tensor] | None:
    """Return the outputs for another batch size, or None if the model takes none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # nobody asked for this size
            return outputs(model, example)
    except Exception:  # noqa: BLE001 - whatever it is, the model takes no such batch
        return None


def _run_folded(model: nn.Module, example: Example) -> list[Tensor]:
    """Return the folded model's outputs."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the given model has said it
            return outputs(model, example)
    except Exception as error:
        msg = (
            f"The folded model fails: {type(error).__name__}: {error}\nThe given one "
            "does not, so its code needs a BatchNorm that its exported graph does not "
            "show: fold a part of the model."
        )
        raise FoldError(msg) from error
