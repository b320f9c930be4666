"""What a claim comes back as: a sentence, numbers beside those expected, a verdict.

A number holds if it lies within its tolerance of the one expected. A number without
either is reported and judged by nobody: speed depends on the machine.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from matplotlib.figure import Figure

__all__ = ["Claim", "Measured", "near", "reported", "zero"]


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
        What was to come out, and how far off it may be; None: only reported.

    Examples
    --------
    >>> Measured("a ratio", 0.98, expected=1.0, tolerance=0.05).holds
    True
    """

    what: str
    value: float
    expected: float | None = None
    tolerance: float | None = None

    @property
    def holds(self) -> bool:
        """Whether the value is as expected; a NaN never is."""
        if self.expected is None or self.tolerance is None:
            return True
        return abs(self.value - self.expected) <= self.tolerance


def zero(what: str, value: float, tolerance: float) -> Measured:
    """Return a number that should vanish but for rounding."""
    return Measured(what, float(value), 0.0, tolerance)


def near(what: str, value: float, expected: float, share: float) -> Measured:
    """Return a number that should be within a share of the one expected."""
    return Measured(what, float(value), float(expected), share * abs(float(expected)))


def reported(what: str, value: float) -> Measured:
    """Return a number that nothing is expected of."""
    return Measured(what, float(value))


@dataclass(frozen=True)
class Claim:
    """A claim with its evidence.

    Parameters
    ----------
    name
        Name of the function that measured it.
    title
        The finding, in a line.
    statement
        What is claimed, in full.
    measured
        Every number, by a short name.
    series
        What the figure draws, by name.
    draw
        How it is drawn.

    Examples
    --------
    >>> from batchcorr.bridge import claims
    >>> claims.dropout().verdict
    'holds: 8 of 8 numbers as expected'
    """

    name: str
    title: str
    statement: str
    measured: Mapping[str, Measured]
    series: Mapping[str, Any] = field(repr=False)
    draw: Callable[[Figure, Mapping[str, Any]], None] = field(repr=False)

    @property
    def holds(self) -> bool:
        """Whether every number is as expected."""
        return all(number.holds for number in self.measured.values())

    @property
    def verdict(self) -> str:
        """The outcome in words, with the numbers that are not as expected."""
        failed = [number for number in self.measured.values() if not number.holds]
        if not failed:
            judged = [n for n in self.measured.values() if n.expected is not None]
            return f"holds: {len(judged)} of {len(judged)} numbers as expected"
        return "does not hold: " + "; ".join(
            f"{number.what}: {number.value:.3g}, expected {number.expected:.3g}"
            for number in failed
        )

    def figure(self) -> Figure:
        """Draw the evidence, at the width of one column.

        Returns
        -------
        A matplotlib figure that no window shows: save it, or end a notebook cell with
        it.

        Raises
        ------
        MissingPackageError
            If matplotlib is not installed.

        Examples
        --------
        >>> from batchcorr.bridge import claims
        >>> figure = claims.dropout().figure()
        >>> float(figure.get_figwidth())
        3.35
        """
        from batchcorr.bridge.claims._figures import drawn

        title = self.title if self.holds else f"Not confirmed: {self.title}"
        return drawn(title, lambda figure: self.draw(figure, self.series))
