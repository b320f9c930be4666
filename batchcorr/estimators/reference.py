"""Find the reference batch among the batches."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchcorr.errors import DesignError, InputError, did_you_mean

if TYPE_CHECKING:
    from batchcorr.estimators.metadata import Metadata
    from batchcorr.models.linear_model import LinearFit

__all__ = ["check_reference", "reference_code"]


def reference_code(reference: object, metadata: Metadata) -> int:
    """Return the code of the reference batch, or say which batches there are."""
    if metadata.batch is None:
        msg = "reference= needs batches, but no batch is given."
        raise InputError(msg)
    known = [level for level in metadata.levels if level == reference] or [
        level for level in metadata.levels if str(level) == str(reference)
    ]
    if len(known) != 1:
        msg = (
            f"The reference {reference!r} is not one of the batches. "
            f"{did_you_mean(reference, metadata.levels)}"
        )
        raise InputError(msg)
    return metadata.levels.index(known[0])


def check_reference(code: int, fit: LinearFit, metadata: Metadata) -> None:
    """Refuse a reference batch whose variance cannot be known."""
    if (fit.explained[code] | ~fit.solved).all():
        msg = (
            "The covariates fit every sample of the reference batch "
            f"{metadata.levels[code]!r} exactly, so that it has no variance to adjust "
            "the others to: choose a larger batch, or keep fewer covariates."
        )
        raise DesignError(msg)
    if fit.rows[code, 0] < 2:
        msg = (
            f"The reference batch {metadata.levels[code]!r} has only one sample, so "
            "that it has no variance to adjust the others to: choose a larger batch."
        )
        raise DesignError(msg)
