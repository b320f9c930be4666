"""Numbers beside those that theory gives, and what they are measured on.

A number that theory gives is judged: it holds within its tolerance. One without an
expected value is only reported: the speed of a machine, or the outcome of one draw.
Networks are small, and noise is always the same.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import wraps
from itertools import pairwise
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from torch import nn
from torch.nn.functional import batch_norm, cross_entropy

from batchcorr.bridge._torch import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

__all__ = [
    "NO_EPS",
    "Measured",
    "classify",
    "largest",
    "mlp",
    "near",
    "normal",
    "normalized",
    "relative",
    "reported",
    "seeded",
    "zero",
]


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


# -- networks and noise ----------------------------------------------------------------

P = ParamSpec("P")
R = TypeVar("R")

NO_EPS = 1e-300
"""As good as none: torch refuses 0 in training."""


def seeded(measure: Callable[P, R]) -> Callable[P, R]:
    """Run a measurement on one thread and its own random numbers, and restore both."""

    @wraps(measure)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(0)
                return measure(*args, **kwargs)
        finally:
            torch.set_num_threads(threads)

    return run


def normal(*shape: int) -> Tensor:
    """Standard normal noise in float64."""
    return torch.randn(*shape, dtype=torch.float64)


def normalized(x: Tensor, eps: float = NO_EPS) -> Tensor:
    """The output of a BatchNorm in training, without γ and β."""
    out: Tensor = batch_norm(x, None, None, training=True, eps=eps)
    return out


def mlp(*sizes: int, norm: Callable[[int], nn.Module] = nn.BatchNorm1d) -> nn.Module:
    """Linear → norm → ReLU for each size but the last, and a Linear head."""
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(sizes[:-1]):
        layers += [nn.Linear(fan_in, fan_out), norm(fan_out), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(sizes[-2], sizes[-1])).double()


def classify(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """The cross entropy of a batch of inputs and labels."""
    x, y = batch
    return cross_entropy(model(x), y)


def largest(values: Tensor) -> float:
    """The largest absolute value."""
    return float(values.detach().abs().max())


def relative(found: Tensor, wanted: Tensor) -> float:
    """The distance of two tensors over the length of the second."""
    return float((found - wanted).detach().norm() / wanted.detach().norm())
