"""A claim: the numbers it rests on, a verdict, and a figure."""

from __future__ import annotations

from dataclasses import dataclass
from functools import wraps
from inspect import signature
from typing import TYPE_CHECKING, ParamSpec

from batchcorr.bridge._running import seeded
from batchcorr.bridge._torch import torch
from batchcorr.bridge.claims._figure import draw

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from matplotlib.figure import Figure

    from batchcorr.bridge.claims._measured import Measured, Numbers

__all__ = ["Claim", "claim"]

P = ParamSpec("P")


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

    It runs on one thread of the CPU, in float32 unless it says so, with gradients and its
    own random numbers, whatever is set around it, and all is restored.
    """

    def claiming(measure: Callable[P, Numbers]) -> Callable[P, Claim]:
        @wraps(measure)
        def run(*args: P.args, **kwargs: P.kwargs) -> Claim:
            threads, dtype = torch.get_num_threads(), torch.get_default_dtype()
            torch.set_num_threads(1)
            torch.set_default_dtype(torch.float32)
            try:
                with seeded(), torch.inference_mode(mode=False), torch.device("cpu"):
                    measured = dict(measure(*args, **kwargs))
            finally:
                torch.set_num_threads(threads)
                torch.set_default_dtype(dtype)
            return Claim(measure.__name__, title, statement or "", measured, axes)

        shown = signature(measure).replace(return_annotation=Claim)
        run.__signature__ = shown  # type: ignore[attr-defined]
        del run.__wrapped__  # which gives numbers, and no claim
        return run

    return claiming
