"""Numbers beside those that theory gives.

A number that theory gives is judged: it holds within its tolerance. One without an
expected value is only reported: the speed of a machine, or the outcome of one draw.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

__all__ = ["Measured", "near", "reported", "zero"]


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

    def on(self, curve: str, at: float) -> Measured:
        """The same number on a curve of the figure.

        Parameters
        ----------
        curve, at
            Name of the curve, and where on it.

        Returns
        -------
        Measured
            A copy.
        """
        return replace(self, curve=curve, at=float(at))


def zero(what: str, value: float, tolerance: float) -> Measured:
    """A number that should vanish but for rounding."""
    return Measured(what, float(value), 0.0, tolerance)


def near(what: str, value: float, expected: float, share: float) -> Measured:
    """A number that should be within a share of the one expected."""
    return Measured(what, float(value), float(expected), share * abs(float(expected)))


def reported(what: str, value: float) -> Measured:
    """A number that nothing is expected of."""
    return Measured(what, float(value))
