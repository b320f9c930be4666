"""Numbers beside those that theory gives.

A number that theory gives is judged: it holds within its tolerance. One without an
expected value is only reported: the speed of a machine, or the outcome of one draw.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, SupportsFloat, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Measured", "Numbers", "near", "reported", "zero"]


@dataclass(frozen=True)
class Measured:
    """One number of a claim.

    Parameters
    ----------
    what
        What was measured, in words.
    value
        What came out.
    expected, tolerance
        What theory gives, and how far off it may be; None: only reported.
    curve, at
        For a number that depends on another: the curve it lies on, and where.

    Examples
    --------
    >>> Measured("a ratio", 0.98, expected=1.0, tolerance=0.05).holds
    True
    """

    what: str
    value: float
    expected: float | None = None
    tolerance: float = 0.0
    curve: str = ""
    at: float = 0.0

    @property
    def holds(self) -> bool:
        """Whether the value is as expected; a NaN never is."""
        if self.expected is None:
            return True
        return abs(self.value - self.expected) <= self.tolerance


Numbers: TypeAlias = "Iterator[tuple[str, Measured]]"
"""What a measurement gives: numbers, and a short name of each."""


def zero(what: str, value: SupportsFloat, tolerance: float) -> Measured:
    """A number that should vanish but for rounding."""
    return Measured(what, float(value), 0.0, tolerance)


def near(
    what: str, value: SupportsFloat, expected: SupportsFloat, share: float, **curve: Any
) -> Measured:
    """A number that should be within a share of the one expected."""
    aim = float(expected)
    return Measured(what, float(value), aim, share * abs(aim), **curve)


def reported(what: str, value: SupportsFloat, **curve: Any) -> Measured:
    """A number that nothing is expected of."""
    return Measured(what, float(value), **curve)
