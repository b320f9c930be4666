"""Samples of counts as size factors read them, and what they are measured against."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Merge", "Reference", "Samples", "Work"]

T = TypeVar("T")


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


class Samples(Protocol):
    """Counts, one sample after the other: the columns and values that are positive.

    They may lie in many blocks, in different places: what is found from all of them is
    found from each block and merged, by functions that can be sent there.
    """

    n_features: int
    first: int

    @property
    def totals(self) -> NDArray[np.float64]:
        """Sum of the counts of each sample: (n,)."""

    @property
    def logged(self) -> float:
        """The largest of the first values if they look like logarithms, else 0."""

    def __getitem__(self, i: int, /) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
        """Return the features with counts of sample i, and the counts."""

    def gather(self, work: Work[T], merge: Merge[T]) -> T:
        """Work on every block of samples, and merge the results of neighbours."""


Work: TypeAlias = Callable[[Samples], T]
Merge: TypeAlias = Callable[[list[T]], T]
