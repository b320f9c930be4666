r"""Which layer lets samples meet, other than a BatchNorm whose statistics are held.

The model is run on some samples and on half of them. What comes into a layer and what it
gives must be the same for that half; where it first is not, samples have met: inside the
layer, if its input was the same, and else in the module around it.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from batchcorr.bridge._torch import torch
from batchcorr.bridge._training.quiet import Quiet
from batchcorr.bridge._training.samples import leaves, take
from batchcorr.bridge._training.step import fixed_seed
from batchcorr.bridge.accumulate._sites import Adjoint
from batchcorr.bridge.nn._combat_norm import ComBatNorm
from batchcorr.bridge.nn._domain_norm import DomainBatchNorm
from batchcorr.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor, nn

    from batchcorr.bridge._training.step import Step
    from batchcorr.bridge.accumulate._sites import Site

__all__ = ["mixing_layer", "require_plain_norms"]


def require_plain_norms(model: nn.Module) -> None:
    """Require that no layer normalizes by a batch in another way than BatchNorm.

    Raises
    ------
    InputError
        If one does: its statistics cannot be merged from those of micro-batches.
    """
    for name, module in model.named_modules():
        if module.training and isinstance(module, DomainBatchNorm | ComBatNorm):
            kind = type(module).__name__
            msg = (
                f"The layer {name or 'model'!r} is a {kind}, which mixes the samples of "
                "a batch by statistics that are not BatchNorm's: what it would do with "
                "the whole batch cannot be told from micro-batches. Put a "
                f"torch.nn.BatchNorm{module.dimensions}d in its place, or freeze it "
                "with .eval()."
            )
            raise InputError(msg)


def mixing_layer(
    step: Step, batch: Any, parts: Sequence[Tensor], sites: Sequence[Site]
) -> str:
    """Return the name and kind of the layer where samples meet first, or nothing."""
    rows = torch.cat(list(parts))[: max(2, len(parts[0]))]
    half = rows[: len(rows) // 2]
    one = _Diary(step.model)
    other = _Diary(step.model, one, len(half) / len(rows))
    for diary, some in ((one, half), (other, rows)):
        with ExitStack() as stack:
            diary.watch(stack)
            for mode in (torch.no_grad(), Adjoint(sites, 0), Quiet()):
                stack.enter_context(mode)
            stack.enter_context(fixed_seed(step.devices, 0))
            step(take(batch, some), parameters={})  # whatever the loss, of so few
    return other.found


class _Diary:
    """What went into modules and came out of them, compared with another diary.

    Parameters
    ----------
    model
        The model whose modules are watched.
    before
        The diary of a run on the first of the samples.
    share
        How many of the samples those were.
    """

    def __init__(
        self, model: nn.Module, before: _Diary | None = None, share: float = 1.0
    ) -> None:
        self.model = model
        self.before = before
        self.share = share
        self.entries: list[list[Tensor]] = []
        self.inside: list[str] = []
        self.found = ""

    def watch(self, stack: ExitStack) -> None:
        """Look at all modules until the stack is left."""
        for name, module in self.model.named_modules():
            enter = module.register_forward_pre_hook(
                self._enter(name), with_kwargs=True
            )
            leave = module.register_forward_hook(self._leave)
            stack.callback(enter.remove)
            stack.callback(leave.remove)

    def _enter(self, name: str) -> Any:
        def enter(module: nn.Module, args: Any, kwargs: Any) -> None:
            self._write((args, kwargs))
            self.inside.append(f"{name or 'model'!r} ({type(module).__name__})")

        return enter

    def _leave(self, _module: nn.Module, _args: Any, output: Any) -> None:
        self._write(output)
        self.inside.pop()

    def _write(self, values: Any) -> None:
        """Keep copies, or compare with those kept before: the first one counts."""
        if self.before is None:
            self.entries.append([value.clone() for value in leaves(values)])
        elif not self.found and self.inside and self.before.entries:
            known = self.before.entries.pop(0)
            pairs = zip(known, leaves(values), strict=False)
            if any(self._differ(*pair) for pair in pairs):
                self.found = self.inside[-1]
        elif self.before.entries:
            self.before.entries.pop(0)

    def _differ(self, known: Tensor, value: Tensor) -> bool:
        """Whether the first rows of a tensor are not those known of fewer samples."""
        comparable = (
            known.is_floating_point()
            and known.numel() > 0
            and value.ndim > 0
            and known.shape[1:] == value.shape[1:]
            and len(known) == round(self.share * len(value))
        )
        if not comparable:
            return False
        allowed = torch.finfo(known.dtype).eps ** 0.5 * float(known.abs().max())
        return bool((known - value[: len(known)]).abs().max() > allowed)
