r"""The methods of size factors: what each is fitted to, and how it measures a sample by it.

With x_ij the count of feature j in sample i, N_i its total and L_i = f_i N_i its
effective library, the factors of edgeR are, up to a constant that makes their product 1,

    tmm, tmmwsp      f_i = trimmed mean of log ratios to a reference sample
    rle              f_i = median_j (x_ij / g_j) / N_i,       g_j = exp mean_i log x_ij
    upperquartile    f_i = upper quartile of x_i / N_i

and those of DESeq divide the counts themselves:

    median_of_ratios   s_i = exp median_j (log x_ij - log g_j)
    poscounts          the same over x_ij > 0, with zeros left out of Σ log (but not of
                       n) in g, and the product made 1

A few features that stand out hardly move a factor. Quantiles are over the features with
a count in any sample.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

from batchcorr.errors import InputError
from batchcorr.models.counts.samples import Samples
from batchcorr.models.counts.trimmed_mean import paired_trimmed_mean, trimmed_mean

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from batchcorr.models.counts.samples import Merge, Reference, Work

    Floats = NDArray[np.float64]
    Places = NDArray[np.intp]
    Measure = tuple[NDArray[Any], float]  # profile and library of a reference

__all__ = ["METHODS"]


# -- what they are fitted to ---------------------------------------------------------------


def _filled(samples: Samples) -> list[int]:
    found: list[int] = np.flatnonzero(samples.totals).tolist()
    return found


def _seen(samples: Samples) -> NDArray[np.bool_]:
    """Find the features with a count in any sample."""
    seen = np.zeros(samples.n_features, dtype=bool)
    for i in _filled(samples):
        seen[samples[i][0]] = True
    return seen


def _richness(samples: Samples) -> NDArray[np.float64]:
    """Add up the square roots of the counts of each sample."""
    found = np.full(len(samples.totals), -1.0)
    for i in _filled(samples):
        found[i] = np.sqrt(samples[i][1]).sum()
    return found


def _uppers(samples: Samples, n: int) -> NDArray[np.float64]:
    """Return each sample's upper quartile over n features, as a share of its total."""
    found = np.zeros(len(samples.totals))
    for i in _filled(samples):
        found[i] = _quantile(samples[i][1], n, 0.75) / samples.totals[i]
    return found


def _logs(samples: Samples) -> NDArray[np.float64]:
    """Count where samples have counts, and add up the logarithms: (2, G)."""
    found = np.zeros((2, samples.n_features))
    for i in _filled(samples):
        features, counts = samples[i]
        found[0, features] += 1
        found[1, features] += np.log(counts)
    return found


def _take_part(_: Samples, seen: NDArray[np.generic]) -> Measure:
    return seen, 1.0


def _typical_sample(samples: Samples, seen: NDArray[np.generic]) -> Measure:
    """Take the sample whose upper quartile, as a share of its total, is most typical."""
    quartiles = partial(_uppers, n=int(seen.sum()))
    filled = _filled(samples)
    upper = samples.gather(quartiles, np.concatenate)[filled]
    if np.median(upper) < 1e-20:
        return _rich_sample(samples, samples.gather(_richness, np.concatenate))
    return _sample(samples, filled[int(np.argmin(np.abs(upper - np.mean(upper))))])


def _rich_sample(samples: Samples, richness: NDArray[np.generic]) -> Measure:
    """Take the sample with the largest sum of square roots of counts."""
    return _sample(samples, int(np.argmax(richness)))


def _sample(samples: Samples, i: int) -> Measure:
    profile = np.zeros(samples.n_features)
    features, profile[features] = samples[i]
    return profile, float(samples.totals[i])


def _everywhere(samples: Samples, found: NDArray[np.generic]) -> Measure:
    """Average the logarithms of features with counts in every sample; -inf elsewhere."""
    (seen, logs), n = found, len(_filled(samples))
    if not (seen == n).any():
        msg = (
            "No feature has counts in every sample, so that there are no ratios to "
            "take the median of. Use method='poscounts' or 'tmmwsp', which do not need "
            "such features, or leave out the samples with the fewest counts."
        )
        raise InputError(msg)
    return np.where(seen == n, logs / n, -np.inf), 1.0


def _anywhere(samples: Samples, found: NDArray[np.generic]) -> Measure:
    """Average the logarithms of positive counts over all samples; -inf without any."""
    seen, logs = found
    return np.where(seen > 0, logs / len(_filled(samples)), -np.inf), 1.0


# -- factors of one sample ---------------------------------------------------------


def _tmm(features: Places, counts: Floats, total: float, reference: Reference) -> float:
    other = reference.profile[features]
    both = other > 0
    return trimmed_mean(counts[both], total, other[both], reference.library)


def _tmmwsp(
    features: Places, counts: Floats, total: float, reference: Reference
) -> float:
    row = np.zeros_like(reference.profile)
    row[features] = counts
    return paired_trimmed_mean(row, total, reference.profile, reference.library)


def _upper(
    features: Places, counts: Floats, total: float, reference: Reference
) -> float:
    known = reference.profile[features]
    return _quantile(counts[known], int(reference.profile.sum()), 0.75) / total


def _rle(features: Places, counts: Floats, total: float, reference: Reference) -> float:
    means = reference.profile[features]
    known = np.isfinite(means)
    n = int(np.isfinite(reference.profile).sum())
    return _quantile(counts[known] / np.exp(means[known]), n, 0.5) / total


def _ratios(features: Places, counts: Floats, _: float, reference: Reference) -> float:
    means = reference.profile[features]
    known = np.isfinite(means)
    ratios = np.log(counts[known]) - means[known]
    if not len(ratios):
        return 0.0
    lower, upper = (len(ratios) - 1) // 2, len(ratios) // 2
    ratios.partition([lower, upper])
    return float(np.exp((ratios[lower] + ratios[upper]) / 2))


def _quantile(positive: NDArray[np.float64], n: int, share: float) -> float:
    """Return a quantile of n values, interpolated, of which all but these are 0."""
    values = np.zeros(n)
    values[: len(positive)] = positive
    at = (n - 1) * share
    low = int(at)
    high = min(low + 1, n - 1)
    values.partition([low, high])
    return float(values[low] + (at - low) * (values[high] - values[low]))


Fit: TypeAlias = Callable[[Samples, Any], tuple[Any, float]]
Factor: TypeAlias = Callable[[Any, Any, float, Any], float]


class Rule(NamedTuple):
    """How a method is fitted and measures, and when it cannot.

    `read` and `merge` are the first read, together with which the totals are found;
    `fit` takes what it gave.
    """

    read: Work[Any] | None
    merge: Merge[Any]
    fit: Fit
    factor: Factor | None
    of_library: bool = True
    centred: bool = True
    trouble: str = ""


def _nothing(_: Samples, __: object) -> Measure:
    return np.zeros(0), 1.0


FEW = "none of their counts is in a feature that takes part."
ANY, SUM = partial(np.any, axis=0), partial(np.sum, axis=0)
METHODS = {
    "total": Rule(None, SUM, _nothing, None, centred=False),
    "tmm": Rule(_seen, ANY, _typical_sample, _tmm, trouble=FEW),
    "tmmwsp": Rule(_richness, np.concatenate, _rich_sample, _tmmwsp, trouble=FEW),
    "rle": Rule(
        _logs,
        SUM,
        _everywhere,
        _rle,
        trouble="they lack half of the features of the others.",
    ),
    "upperquartile": Rule(
        _seen,
        ANY,
        _take_part,
        _upper,
        trouble="their upper quartile is 0, as most counts are.",
    ),
    "median_of_ratios": Rule(
        _logs, SUM, _everywhere, _ratios, of_library=False, centred=False, trouble=FEW
    ),
    "poscounts": Rule(_logs, SUM, _anywhere, _ratios, of_library=False, trouble=FEW),
}
"""The methods, by name."""
