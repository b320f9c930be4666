"""Size factors: how deeply samples were sequenced, measured against what is frozen.

`fit_reference` finds what samples are measured against, the `Reference`, and their factors;
`measure` finds the factors of any samples, one by one; `scaled_totals` turns factors into
effective library sizes. What the methods are is in `size_factor_methods`.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from batchcorr.errors import InputError, did_you_mean, some
from batchcorr.models.counts.samples import Reference
from batchcorr.models.counts.size_factor_methods import METHODS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from batchcorr.models.counts.samples import Samples

__all__ = ["METHODS", "Reference", "fit_reference", "measure", "scaled_totals"]


def fit_reference(
    samples: Samples, method: str
) -> tuple[Reference, NDArray[np.float64]]:
    """What samples are measured against, and their factors, (n,).

    Samples without counts take no part, and have the factor 1.

    Raises
    ------
    InputError
        If the method does not exist, or does not work on these counts.
    """
    if method not in METHODS:
        msg = f"There is no size factor method {method!r}. " + did_you_mean(
            method, METHODS
        )
        raise InputError(msg)
    rule = METHODS[method]
    found = None if rule.read is None else samples.gather(rule.read, rule.merge)
    totals = samples.totals
    filled = np.flatnonzero(totals)
    if not len(filled):
        msg = "All counts are 0, so there is nothing to fit."
        raise InputError(msg)
    reference = Reference(method, *rule.fit(samples, found))
    factors = measure(samples, reference)
    if rule.centred:
        centre = float(np.exp(np.mean(np.log(factors[filled]))))
        factors[filled] /= centre
        reference = replace(reference, centre=centre)
    if not rule.of_library:
        ratios = np.log(totals[filled]) - np.log(factors[filled])
        reference = replace(reference, library=float(np.exp(np.mean(ratios))))
    return reference, factors


def measure(samples: Samples, reference: Reference) -> NDArray[np.float64]:
    """The factors of samples, (n,), each measured on its own.

    Raises
    ------
    InputError
        If a sample has counts but no positive factor; the message says what would work.
    """
    rule, totals = METHODS[reference.method], samples.totals
    if rule.factor is None:
        return np.ones(len(totals))
    work = partial(_factors, reference=reference)
    factors: NDArray[np.float64] = samples.gather(work, np.concatenate)
    filled = np.flatnonzero(totals)
    bad = filled[~(np.isfinite(factors[filled]) & (factors[filled] > 0))]
    if len(bad):
        msg = (
            f"{len(bad)} of {len(totals)} samples (rows {some(bad + samples.first)}) have no size factor by "
            f"{reference.method!r}: {rule.trouble} Use method='poscounts' or 'tmmwsp', "
            "which are made for sparse counts, or 'total'."
        )
        raise InputError(msg)
    factors[filled] /= reference.centre
    return factors


def _factors(samples: Samples, reference: Reference) -> NDArray[np.float64]:
    """Measure each sample with counts: as the method has it, good or not."""
    measured = METHODS[reference.method].factor
    assert measured is not None
    factors = np.ones(len(samples.totals))
    for i in np.flatnonzero(samples.totals).tolist():
        factors[i] = measured(*samples[i], samples.totals[i], reference)
    return factors


def scaled_totals(
    reference: Reference, totals: NDArray[np.float64], factors: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Effective library sizes, (n,): totals times factors, 0 without counts."""
    if METHODS[reference.method].of_library:
        return totals * factors
    return np.where(totals > 0, factors * reference.library, 0.0)
