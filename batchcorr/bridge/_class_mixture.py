r"""Which classes a domain has, from unlabelled samples: assumed, corrected, asked again.

Correction and classes depend on each other: statistics of a domain of two classes look
like a batch effect, and corrected as one they hide the classes. So two assumptions are
followed for two rounds, that of the model corrected without classes and that of the
uncorrected one,

    assumed shares → correction that keeps them → mean probability of each class → …

and the second is believed only if it makes the first layer's statistics clearly more
probable: under a strong shift the uncorrected model says anything.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from scipy.stats import chi2

from batchcorr.bridge._composition import composition
from batchcorr.bridge._estimators import EmpiricalBayes
from batchcorr.bridge._layerwise import correct, put

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import numpy as np
    from numpy.typing import NDArray
    from torch import nn
    from torch.nn.modules.batchnorm import _BatchNorm

    from batchcorr.bridge._layerwise import Statistics
    from batchcorr.bridge._profile import Profile

__all__ = ["choose_classes", "is_unbalanced"]

ROUNDS = 2

CLEARLY = 2.0
"""Log of how many times more probable."""


def choose_classes(
    model: nn.Module,
    loader: Iterable[Any],
    order: Mapping[str, _BatchNorm],
    profile: Profile,
    old: Statistics,
) -> tuple[EmpiricalBayes, Statistics, NDArray[np.float64]]:
    """Return the believed correction: its account, statistics and class shares.

    Parameters
    ----------
    model, loader, order
        The model, corrected by eb without classes; the domain; the layers.
    profile
        What is known of the source.
    old
        The layers' statistics before anything was corrected.
    """
    classes = len(profile.shares)
    starts = [composition(model, loader, classes).cpu().numpy()]
    put(order, old)
    starts.append(composition(model, loader, classes).cpu().numpy())
    found = []
    for start in starts:
        shares = used = start
        for _ in range(ROUNDS):
            used, estimate = shares, EmpiricalBayes(profile, shares)
            values = correct(model, loader, order, estimate)
            shares = composition(model, loader, classes).cpu().numpy()
        found.append((estimate, values, used))
    corrected, uncorrected = found
    gain = uncorrected[0].evidence - corrected[0].evidence
    return uncorrected if gain > CLEARLY else corrected


def is_unbalanced(
    shares: NDArray[np.float64], expected: NDArray[np.float64], n: int
) -> bool:
    """Whether classes are more uneven than chance and than if half were missing.

    Σ (share - expected)²/expected is 1 if half of equal classes are missing; by chance
    it is above the 99 % quantile of χ² with K - 1 degrees of freedom, over n, in one of
    a hundred samples.

    Parameters
    ----------
    shares, expected
        Of the domain and of the source: (K,).
    n
        Samples.

    Examples
    --------
    >>> import numpy as np
    >>> even = np.full(10, 0.1)
    >>> two = np.r_[0.5, 0.5, np.zeros(8)]
    >>> is_unbalanced(two, even, 2), is_unbalanced(two, even, 8)
    (False, True)
    """
    if len(shares) < 2:
        return False
    distance = float(((shares - expected) ** 2 / expected).sum())
    chance = float(chi2.ppf(0.99, len(shares) - 1))
    return distance > max(chance / n, 1.0)
