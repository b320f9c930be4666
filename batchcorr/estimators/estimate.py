r"""The middle step: from moments to the frozen correction, on small arrays.

A method is two short functions. `_aim` says what every batch is brought to, from the
linear model of all batches; `_adjust` says how each batch gets there, from that batch's
own effects. What is around them is the same for all methods and is here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol

import numpy as np

from batchcorr.estimators import checks
from batchcorr.estimators.fit_warnings import warn_of_unadjustable
from batchcorr.models.linear_model import LinearFit
from batchcorr.models.location_scale import LocationScale

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from batchcorr.estimators.metadata import Metadata
    from batchcorr.estimators.problem import Problem
    from batchcorr.models.moments import Moments

__all__ = ["Adjustment", "Aim", "Fitted", "LocationScaleSteps", "estimate", "extend"]


@dataclass(frozen=True)
class Aim:
    """What every batch is brought to, frozen at `fit`.

    Attributes
    ----------
    location, scale
        Level and standard deviation after correction: (G,) each.
    adjustable
        Features that can be corrected; the others stay as they are: (G,).
    """

    location: NDArray[np.float64]
    scale: NDArray[np.float64]
    adjustable: NDArray[np.bool_]


class Adjustment(NamedTuple):
    """How some batches reach the aim.

    Attributes
    ----------
    scale, shift
        r and s: (B, G).
    details
        What they were found from, by name; the first axis is the batch.
    """

    scale: NDArray[np.float64]
    shift: NDArray[np.float64]
    details: dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Fitted:
    """All that a fitted estimator knows, and all that `save` writes."""

    metadata: Metadata
    aim: Aim
    correction: LocationScale
    details: dict[str, NDArray[Any]]


class LocationScaleSteps(Protocol):
    """What a location-scale method has to say."""

    fewest_batches: ClassVar[int]

    def _aim(self, fit: LinearFit, metadata: Metadata) -> Aim:
        """Say what every batch is brought to."""
        ...

    def _adjust(
        self, fit: LinearFit, aim: Aim, metadata: Metadata, before: Fitted | None
    ) -> Adjustment:
        """Say how batches get there; `before` if they join batches fitted earlier."""
        ...


def estimate(
    method: LocationScaleSteps,
    problem: Problem,
    *,
    refit: Callable[[LinearFit, list[int]], LinearFit] | None = None,
) -> Fitted:
    """Estimate a correction from the moments of all batches.

    Parameters
    ----------
    refit
        Makes another fit of the linear one and its columns, as one with subjects.

    Raises
    ------
    DesignError
        If there are too few batches, or covariates are confounded with them.
    """
    metadata = problem.metadata
    columns = checks.check_design(problem, at_least=method.fewest_batches)
    fit = problem.fit(columns)
    checks.check_fit(fit, problem, columns)
    if refit is not None:
        fit = refit(fit, columns)
    first = len(metadata.names) - len(metadata.nuisance.names)
    centred = np.array(columns, int) >= first  # nuisances do not move the level
    level = (fit.means * fit.coefficients)[centred].sum(axis=0)
    fit = replace(fit, intercepts=fit.intercepts + level)
    aim = method._aim(fit, metadata)
    aim = replace(aim, adjustable=aim.adjustable & fit.solved & fit.observed)
    warn_of_unadjustable(aim.adjustable)
    adjustment = method._adjust(fit, aim, metadata, None)
    adjustment = adjustment._replace(shift=adjustment.shift + adjustment.scale * level)
    everything = np.zeros((len(metadata.names), len(fit.solved)))
    everything[columns] = np.where(aim.adjustable, fit.coefficients, 0.0)
    correction = _correction(
        adjustment,
        aim.adjustable,
        everything[: metadata.kept],
        everything[metadata.kept :],
    )
    return Fitted(metadata, aim, correction, adjustment.details)


def extend(
    method: LocationScaleSteps, fitted: Fitted, sums: Moments, metadata: Metadata
) -> Fitted:
    """Add batches to a correction: aim and coefficients stay what they were."""
    checks.check_batches(sums, metadata, at_least=1)
    frozen = fitted.correction
    known = np.concatenate([frozen.coefficients, frozen.nuisance])
    fit = LinearFit.of(sums, known)
    adjustable = fitted.aim.adjustable & fit.observed
    aim = replace(fitted.aim, adjustable=adjustable)
    adjustment = method._adjust(fit, aim, metadata, fitted)
    more = _correction(adjustment, adjustable, frozen.coefficients, frozen.nuisance)
    details = {
        name: np.concatenate([value, adjustment.details[name]])
        for name, value in fitted.details.items()
        if name in adjustment.details  # an earlier version may have had others
    }
    return Fitted(
        fitted.metadata.extend(metadata), fitted.aim, frozen.extend(more), details
    )


def _correction(
    adjustment: Adjustment,
    adjustable: NDArray[np.bool_],
    coefficients: NDArray[np.float64],
    nuisance: NDArray[np.float64],
) -> LocationScale:
    """Freeze an adjustment: the identity for features that are not adjustable."""
    return LocationScale(
        scale=np.where(adjustable, adjustment.scale, 1.0),
        shift=np.where(adjustable, adjustment.shift, 0.0),
        coefficients=coefficients,
        nuisance=nuisance,
    )
