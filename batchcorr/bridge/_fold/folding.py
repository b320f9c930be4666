"""The public function: follow a copy, plan, change another copy, measure."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

from batchcorr.bridge._fold.example import read_example
from batchcorr.bridge._fold.exported import export
from batchcorr.bridge._fold.flow import flow_of
from batchcorr.bridge._fold.plan import make_plan
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
from batchcorr.bridge._norms import batch_norms, require_model
from batchcorr.errors import FoldError, InputError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from batchcorr.bridge._fold.example import Example
    from batchcorr.bridge._fold.plan import Plan

__all__ = ["fold"]


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
    takes batches of any size. `model.train()` would train it without BatchNorm.

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
    Runs the model, and so its hooks, on the example inputs. A weight that several layers
    share, or that is computed on the fly (weight norm, pruning), is not changed. A model
    whose code branches on sizes other than the batch size is followed for the given
    sizes only.

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
    example = read_example(example_inputs, model)
    scratch, _ = _copied(model)
    longer = example.longer()
    expected = {example.batch_size: _run(scratch, example)}
    more = _try_run(scratch, longer)
    plan, any_batch = _planned(scratch, example, longer if more else None)
    if more and any_batch:
        expected[longer.batch_size] = more
    folded, groups = _copied(model)
    rewrite(folded, plan)
    rejoin(folded, groups)
    errors = {
        size: relative_error(_run_folded(folded, inputs), expected[size])
        for inputs in (example, longer)
        if (size := inputs.batch_size) in expected
    }
    require_equal(errors, expected[example.batch_size])
    return Folded(folded, plan.folded, plan.kept, errors, any_batch)


def _require_foldable(model: nn.Module) -> None:
    """Refuse what has no BatchNorm, or is not in evaluation mode."""
    modules = dict(require_model(model).named_modules())
    if not any(hasattr(module, "as_correction") for module in modules.values()):
        batch_norms(model)
    training = [name or "the model" for name, part in modules.items() if part.training]
    if training:
        shown = ", ".join(training[:5]) + (", …" if len(training) > 5 else "")
        msg = (
            f"The model is in training mode ({shown}), where BatchNorm is no fixed "
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


def _planned(
    scratch: nn.Module, example: Example, longer: Example | None
) -> tuple[Plan, bool]:
    """Return what is to be done, and whether it holds for any batch size."""
    corrections, without = corrections_in(scratch)
    program, any_batch = export(scratch, example, longer)
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
    """Return the outputs for one sample more, or None if the model takes no more."""
    try:
        return outputs(model, example)
    except (RuntimeError, ValueError, TypeError, LookupError, AssertionError):
        return None


def _run_folded(model: nn.Module, example: Example) -> list[Tensor]:
    """Return the folded model's outputs."""
    try:
        return outputs(model, example)
    except Exception as error:
        msg = (
            f"The folded model fails: {type(error).__name__}: {error}\nThe given one "
            "does not, so its code needs a BatchNorm that its exported graph does not "
            "show: fold a part of the model."
        )
        raise FoldError(msg) from error
