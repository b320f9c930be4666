"""What folding did: the model, which layers are gone, which are not and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Folded"]


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
        Largest difference of the outputs, relative to the largest output, by batch size.
    any_batch
        Whether the data flow was proved for any number of samples from two on; one
        sample, if the model takes it, was measured. If not, nothing was folded, or the
        model takes the given number of samples, but neither one, nor one more, nor
        twice as many.

    Examples
    --------
    >>> from torch import nn
    >>> Folded(nn.Identity(), {"bn": ("conv",)}, {}, {4: 1e-16, 5: 0.0}, True)
    1 of 1 BatchNorm layers folded, relative error 1e-16 at batch size 4, 5
      bn → conv
    """

    model: nn.Module
    folded: dict[str, tuple[str, ...]]
    kept: dict[str, str]
    errors: dict[int, float]
    any_batch: bool

    @property
    def error(self) -> float:
        """Largest relative error of all that were measured."""
        return max(self.errors.values())

    def __repr__(self) -> str:
        count = len(self.folded)
        sizes = ", ".join(str(size) for size in self.errors)
        head = (
            f"{count} of {count + len(self.kept)} BatchNorm layers folded, relative "
            f"error {self.error:.2g} at batch size {sizes}"
        )
        lines = [head]
        lines += [f"  {name} → {', '.join(into)}" for name, into in self.folded.items()]
        lines += [f"  {name} kept: {reason}" for name, reason in self.kept.items()]
        if self.folded and not self.any_batch:
            lines.append(
                "  Proved for this batch size only: the model takes neither one sample, "
                "nor one more, nor twice as many."
            )
        return "\n".join(lines)
