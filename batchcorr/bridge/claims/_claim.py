"""A claim: the numbers it rests on, a verdict, and a figure.

A number that theory gives is judged: it holds within its tolerance. One without an
expected value is only reported: the speed of a machine, or the outcome of one draw.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec, SupportsFloat, TypeAlias

from batchcorr.bridge._running import seeded
from batchcorr.bridge._torch import torch
from batchcorr.bridge.claims._figure import draw

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from matplotlib.figure import Figure

__all__ = ["Claim", "Measured", "Numbers", "claim", "near", "reported", "zero"]

P = ParamSpec("P")


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
        What is claimed, in full: the docstring of the file that measures it.
    measured
        Every number, by a short name.
    axes
        Labels of the two axes of the curves.

    Examples
    --------
    >>> from batchcorr.bridge import claims
    >>> claims.dropout().verdict.partition(":")[0]
    'holds'
    """

    name: str
    title: str
    statement: str
    measured: Mapping[str, Measured]
    axes: tuple[str, str] = ("", "")

    @property
    def holds(self) -> bool:
        """Whether every number is as expected."""
        return all(number.holds for number in self.measured.values())

    @property
    def verdict(self) -> str:
        """The outcome in words, with the numbers that are not as expected."""
        judged = [n for n in self.measured.values() if n.expected is not None]
        if self.holds:
            return f"holds: {len(judged)} of {len(judged)} numbers as expected"
        return "does not hold: " + "; ".join(
            f"{number.what}: {number.value:.3g}, expected {number.expected:.3g}"
            for number in judged
            if not number.holds
        )

    def figure(self) -> Figure:
        """Draw the evidence, at the width of one column.

        Returns
        -------
        matplotlib.figure.Figure
            Shown in no window: save it, or end a notebook cell with it.

        Raises
        ------
        MissingPackageError
            If matplotlib is not installed.

        Examples
        --------
        >>> from batchcorr.bridge import claims
        >>> float(claims.dropout().figure().get_figwidth())
        3.35
        """
        title = self.title if self.holds else f"Not confirmed: {self.title}"
        return draw(title, list(self.measured.values()), self.axes)


def claim(
    title: str, statement: str | None, axes: tuple[str, str] = ("", "")
) -> Callable[[Callable[P, Numbers]], Callable[P, Claim]]:
    """Make a claim of a function that measures numbers.

    It runs on one thread and its own random numbers, and both are restored.
    """

    def claiming(measure: Callable[P, Numbers]) -> Callable[P, Claim]:
        @wraps(measure)
        def run(*args: P.args, **kwargs: P.kwargs) -> Claim:
            threads = torch.get_num_threads()
            torch.set_num_threads(1)
            try:
                with seeded():
                    measured = dict(measure(*args, **kwargs))
            finally:
                torch.set_num_threads(threads)
            return Claim(measure.__name__, title, statement or "", measured, axes)

        return run

    return claiming
