r"""Size factors: how deeply a sample was sequenced, robust to a few features that stand out.

With x_ij the count of feature j in sample i, N_i its total and L_i = f_i N_i its
effective library, the factors of edgeR are, up to a constant that makes their product 1,

    tmm, tmmwsp      f_i = trimmed mean of log ratios to a reference sample
    rle              f_i = median_j (x_ij / g_j) / N_i,       g_j = exp mean_i log x_ij
    upperquartile    f_i = upper quartile of x_i / N_i

and those of DESeq divide the counts themselves:

    median_of_ratios   s_i = exp median_j (log x_ij - log g_j)
    poscounts          the same over x_ij > 0, with zeros left out of Σ log (but not of
                       n) in g, and the product made 1

What they are measured against, the `Reference`, is frozen at `fit`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias

import numpy as np

from batchcorr.errors import InputError, did_you_mean
from batchcorr.models.trimmed_mean import paired_trimmed_mean, trimmed_mean

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["METHODS", "Reference", "Samples", "learn", "libraries", "measure"]


class Samples(Protocol):
    """Counts, one sample after the other: the columns and values that are positive."""

    n_features: int
    totals: NDArray[np.float64]

    def __getitem__(self, i: int, /) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
        """Return the features with counts of sample i, and the counts."""


@dataclass(frozen=True)
class Reference:
    """What samples are measured against.

    Attributes
    ----------
    method
        Name of the method.
    profile
        By feature, (G,): counts of the reference sample (tmm, tmmwsp), the logarithm of
        g and -inf where a feature takes no part (rle, median_of_ratios, poscounts), or
        whether a feature takes part (upperquartile). Empty for totals.
    library
        Total of the reference sample; for median_of_ratios and poscounts, of a sample
        whose factor is 1.
    centre
        Geometric mean of the factors of fit, which all factors are divided by.
    """

    method: str
    profile: NDArray[Any]
    library: float = 1.0
    centre: float = 1.0


def learn(samples: Samples, method: str) -> tuple[Reference, NDArray[np.float64]]:
    """Learn what samples are measured against; return it and their factors, (n,).

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
    rule, totals = METHODS[method], samples.totals
    filled = np.flatnonzero(totals)
    if not len(filled):
        msg = "All counts are 0: there is nothing to learn from."
        raise InputError(msg)
    profile, library = rule.learn(samples, filled)
    reference = Reference(method, profile, library)
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
    """Return the factors of samples, (n,), each measured on its own.

    Raises
    ------
    InputError
        If a sample has counts but no positive factor; the message says what would work.
    """
    rule, totals = METHODS[reference.method], samples.totals
    factors = np.ones(len(totals))
    if rule.factor is None:
        return factors
    filled = np.flatnonzero(totals)
    for i in filled:
        factors[i] = rule.factor(*samples[i], totals[i], reference)
    bad = filled[~(np.isfinite(factors[filled]) & (factors[filled] > 0))]
    if len(bad):
        rows = ", ".join(map(str, bad[:5])) + (", …" if len(bad) > 5 else "")
        msg = (
            f"{len(bad)} of {len(totals)} samples (rows {rows}) have no size factor by "
            f"{reference.method!r}: {rule.trouble} Use method='poscounts' or 'tmmwsp', "
            "which are made for sparse counts, or 'total'."
        )
        raise InputError(msg)
    factors[filled] /= reference.centre
    return factors


def libraries(
    reference: Reference,
    totals: NDArray[np.float64],
    factors: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return effective libraries, (n,): totals times factors, 0 without counts."""
    if METHODS[reference.method].of_library:
        return totals * factors
    return np.where(totals > 0, factors * reference.library, 0.0)


# -- what is learned ---------------------------------------------------------------


def _nothing(samples: Samples, filled: NDArray[np.intp]) -> tuple[NDArray[Any], float]:
    return np.zeros(0), 1.0


def _counted(samples: Samples, filled: NDArray[np.intp]) -> tuple[NDArray[Any], float]:
    """Features with a count in any sample."""
    seen = np.zeros(samples.n_features, dtype=bool)
    for i in filled:
        seen[samples[i][0]] = True
    return seen, 1.0


def _typical_sample(
    samples: Samples, filled: NDArray[np.intp]
) -> tuple[NDArray[Any], float]:
    """The sample whose upper quartile, relative to its total, is nearest to the mean."""
    n = int(_counted(samples, filled)[0].sum())
    upper = [_quantile(samples[i][1], n, 0.75) / samples.totals[i] for i in filled]
    if np.median(upper) < 1e-20:
        return _rich_sample(samples, filled)
    return _sample(samples, filled[np.argmin(np.abs(upper - np.mean(upper)))])


def _rich_sample(
    samples: Samples, filled: NDArray[np.intp]
) -> tuple[NDArray[Any], float]:
    """The sample with the largest sum of square roots of counts."""
    richness = [np.sqrt(samples[i][1]).sum() for i in filled]
    return _sample(samples, filled[np.argmax(richness)])


def _sample(samples: Samples, i: int) -> tuple[NDArray[Any], float]:
    profile = np.zeros(samples.n_features)
    features, profile[features] = samples[i]
    return profile, float(samples.totals[i])


def _log_means(
    samples: Samples, filled: NDArray[np.intp], fewest: int
) -> tuple[NDArray[Any], float]:
    """Mean over samples of the logarithms of positive counts; -inf if there are few."""
    seen, logs = (np.zeros(samples.n_features) for _ in range(2))
    for i in filled:
        features, counts = samples[i]
        seen[features] += 1
        logs[features] += np.log(counts)
    return np.where(seen >= fewest, logs / len(filled), -np.inf), 1.0


def _everywhere(
    samples: Samples, filled: NDArray[np.intp]
) -> tuple[NDArray[Any], float]:
    profile, _ = _log_means(samples, filled, len(filled))
    if not np.isfinite(profile).any():
        msg = (
            "No feature has a count in every sample, so that there are no ratios to "
            "take the median of. Use method='poscounts', which needs no such feature, "
            "or 'tmmwsp', or leave out the samples with the fewest counts."
        )
        raise InputError(msg)
    return profile, 1.0


def _anywhere(samples: Samples, filled: NDArray[np.intp]) -> tuple[NDArray[Any], float]:
    return _log_means(samples, filled, 1)


# -- factors of one sample ---------------------------------------------------------


def _tmm(features: Any, counts: Any, total: float, reference: Reference) -> float:
    other = reference.profile[features]
    both = other > 0
    return trimmed_mean(counts[both], total, other[both], reference.library)


def _tmmwsp(features: Any, counts: Any, total: float, reference: Reference) -> float:
    row = np.zeros_like(reference.profile)
    row[features] = counts
    return paired_trimmed_mean(row, total, reference.profile, reference.library)


def _upper(features: Any, counts: Any, total: float, reference: Reference) -> float:
    known = reference.profile[features]
    return _quantile(counts[known], int(reference.profile.sum()), 0.75) / total


def _rle(features: Any, counts: Any, total: float, reference: Reference) -> float:
    means = reference.profile[features]
    known = np.isfinite(means)
    n = int(np.isfinite(reference.profile).sum())
    return _quantile(counts[known] / np.exp(means[known]), n, 0.5) / total


def _ratios(features: Any, counts: Any, total: float, reference: Reference) -> float:
    means = reference.profile[features]
    known = np.isfinite(means)
    ratios = np.log(counts[known]) - means[known]
    if not len(ratios):
        return 0.0
    middle = np.partition(ratios, [(len(ratios) - 1) // 2, len(ratios) // 2])
    return float(
        np.exp((middle[(len(ratios) - 1) // 2] + middle[len(ratios) // 2]) / 2)
    )


def _quantile(positive: NDArray[np.float64], n: int, share: float) -> float:
    """Return a quantile of n values, interpolated, of which all but these are 0."""
    values = np.zeros(n)
    values[: len(positive)] = positive
    at = (n - 1) * share
    low = int(at)
    high = min(low + 1, n - 1)
    values.partition([low, high])
    return float(values[low] + (at - low) * (values[high] - values[low]))


Learn: TypeAlias = Callable[[Samples, "NDArray[np.intp]"], "tuple[NDArray[Any], float]"]
Factor: TypeAlias = Callable[[Any, Any, float, Reference], float]


class Rule(NamedTuple):
    """How a method learns and measures, and when it cannot."""

    learn: Learn
    factor: Factor | None
    of_library: bool = True
    centred: bool = True
    trouble: str = ""


FEW = "none of their counts is in a feature that takes part."
METHODS = {
    "total": Rule(_nothing, None, centred=False),
    "tmm": Rule(_typical_sample, _tmm, trouble=FEW),
    "tmmwsp": Rule(_rich_sample, _tmmwsp, trouble=FEW),
    "rle": Rule(
        _everywhere, _rle, trouble="they lack half of the features of the others."
    ),
    "upperquartile": Rule(
        _counted, _upper, trouble="their upper quartile is 0, as most counts are."
    ),
    "median_of_ratios": Rule(
        _everywhere, _ratios, of_library=False, centred=False, trouble=FEW
    ),
    "poscounts": Rule(_anywhere, _ratios, of_library=False, trouble=FEW),
}
"""The methods, by name."""
