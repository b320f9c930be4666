r"""BatchNorm on a batch of one sample.

With one value per channel there is no variance, and torch refuses. With positions there
is one, but of a single sample: training normalizes each sample by itself, as InstanceNorm
does, and evaluation by an average over samples, which is another function.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchcorr.bridge._lint.result import Finding

if TYPE_CHECKING:
    from collections.abc import Mapping

    from batchcorr.bridge._lint.observation import Observed

__all__ = ["find_batches_of_one", "is_of_one"]


def is_of_one(one: Observed, n: int) -> bool:
    """Whether a BatchNorm normalizes a single sample by itself."""
    return one.by_batch and (one.rows == 1 or (n == 1 and one.samples == 1))


def find_batches_of_one(norms: Mapping[str, Observed], n: int) -> list[Finding]:
    """Return the BatchNorm layers that meet one sample."""
    return [_finding(name, one) for name, one in norms.items() if is_of_one(one, n)]


def _finding(name: str, one: Observed) -> Finding:
    rows = one.rows
    message = (
        "It gets one value per channel, which has no variance: torch refuses to train it."
        if rows == 1
        else f"It gets one sample, of {rows} positions: training normalizes each sample "
        "by itself, evaluation all by the same statistics."
    )
    return Finding(
        rule="batch-of-one",
        layer=name,
        message=message,
        evidence={"rows": rows, "samples": one.samples},
        remedy=(
            "Use larger batches (drop_last=True in the DataLoader, if it is the last one "
            "that is small), or GroupNorm, or freeze the layer with .eval()."
        ),
    )
