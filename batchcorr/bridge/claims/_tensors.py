"""What the claims are measured on: noise, the step of a network, and distances."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch.nn.functional import batch_norm, cross_entropy

from batchcorr.bridge._torch import torch

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = [
    "NO_EPS",
    "classify",
    "largest",
    "normal",
    "normalized",
    "relative",
    "train_step",
]

NO_EPS = 1e-300
"""As good as none: torch refuses 0 in training."""


def normal(*shape: int) -> Tensor:
    """Standard normal noise in float64."""
    return torch.randn(*shape, dtype=torch.float64)


def normalized(x: Tensor, eps: float = NO_EPS) -> Tensor:
    """The output of a BatchNorm in training, without γ and β."""
    out: Tensor = batch_norm(x, None, None, training=True, eps=eps)
    return out


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
