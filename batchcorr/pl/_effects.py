"""The effects that ComBat estimated, batch by batch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from batchcorr.errors import InputError, MissingKeyError, did_you_mean
from batchcorr.methods.combat import ComBat

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

__all__ = ["Effects", "effects_of"]


class Effects(NamedTuple):
    """What a batch's effects were estimated to be, and what they were shrunk to.

    Attributes
    ----------
    batch
        Its name.
    gamma_hat, gamma_star
        Locations, in standard deviations: (G,), NaN for features not adjusted.
    delta_hat, delta_star
        Variances relative to all: (G,), NaN where the batch tells of none.
    location
        Mean and variance of the normal prior.
    scale
        Shape and rate of the inverse-gamma prior.
    """

    batch: str
    gamma_hat: Floats
    gamma_star: Floats
    delta_hat: Floats
    delta_star: Floats
    location: tuple[float, float]
    scale: tuple[float, float]

    @property
    def scaled(self) -> bool:
        """Whether variances were estimated, and are not all the same."""
        return bool(np.isfinite(self.delta_hat).any() and np.isfinite(self.scale[0]))


def effects_of(correction: object, batches: Sequence[object] | None) -> list[Effects]:
    """The effects of these batches, or of all that have any.

    Raises
    ------
    InputError
        If the correction is not a fitted ComBat.
    MissingKeyError
        If a batch is not known to it.
    """
    if not isinstance(correction, ComBat):
        msg = (
            "correction must be a fitted ComBat, as returned by batchcorr.fit(adata, "
            'batch_key, method="combat") or ComBat().fit, not a '
            f"{type(correction).__name__}."
        )
        raise InputError(msg)
    if "t2" not in correction.details_:
        msg = "This ComBat was fitted with shrink=False: it has no priors."
        raise InputError(msg)
    levels = [str(level) for level in correction.batches_]
    details = correction.details_
    if batches is None:
        # a reference batch stays as it is
        picked = np.flatnonzero(details["t2"] > 0).tolist()
    else:
        one = isinstance(batches, str) or not isinstance(batches, Iterable)
        named = [batches] if one else list(batches)
        for batch in named:
            if str(batch) not in levels:
                msg = (
                    f"The correction has no batch {str(batch)!r:.80}. "
                    f"{did_you_mean(batch, levels)}"
                )
                raise MissingKeyError(msg)
        picked = [levels.index(str(batch)) for batch in named]
        picked = [b for b in picked if details["t2"][b] > 0]
    if not picked:
        msg = (
            "There is nothing to draw: these batches have no shrunken effects (a "
            "reference batch has none)."
        )
        raise InputError(msg)
    by_location = bool(details["mean_only"].any())
    return [
        Effects(
            levels[b],
            details["gamma_hat"][b],
            details["gamma_star"][b],
            np.full_like(details["delta_hat"][b], np.nan)
            if by_location
            else details["delta_hat"][b],
            details["delta_star"][b],
            (float(details["gamma_bar"][b]), float(details["t2"][b])),
            (float(details["a_prior"][b]), float(details["b_prior"][b])),
        )
        for b in picked
    ]
