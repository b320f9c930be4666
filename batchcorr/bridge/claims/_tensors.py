"""What the claims are measured on: noise that is always the same, and small networks."""

from __future__ import annotations

from functools import wraps
from itertools import pairwise
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from torch import nn
from torch.nn.functional import batch_norm, cross_entropy

from batchcorr.bridge._running import seeded as random_numbers
from batchcorr.bridge._torch import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

__all__ = [
    "NO_EPS",
    "classify",
    "largest",
    "mlp",
    "normal",
    "normalized",
    "relative",
    "seeded",
    "train_step",
]

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
            with random_numbers():
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


def train_step(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    """One step of an optimizer down a loss."""
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()


def largest(values: Tensor) -> float:
    """The largest absolute value."""
    return float(values.detach().abs().max())


def relative(found: Tensor, wanted: Tensor) -> float:
    """The distance of two tensors over the length of the second."""
    return float((found - wanted).detach().norm() / wanted.detach().norm())
