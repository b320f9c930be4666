"""What holds in the limit: shrinkage that fades with n, products that logs make sums."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from batchcorr.arrays.generic import tensor_affine, tensor_moments
from batchcorr.bridge._torch import torch
from batchcorr.bridge.claims._identities import unshrunken
from batchcorr.bridge.claims._networks import largest, normal
from batchcorr.methods.combat import ComBat
from batchcorr.methods.remove_batch_effect import RemoveBatchEffect

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["log1p_error", "log_residual", "shrinkage", "variance_ratio"]

BATCHES, FEATURES = 3, 100
LOCATION_SD, LOG_SCALE_SD = 0.1, 0.3


def shrinkage(n: int) -> float:
    """Return the rms difference that ComBat's shrinkage makes, n samples in a batch.

    Three batches × 100 features; γ ~ N(0, 0.1²), log δ ~ N(0, 0.3²), noise of sd 1.
    """
    torch.manual_seed(0)
    location = LOCATION_SD * normal(BATCHES, 1, FEATURES)
    scale = torch.exp(LOG_SCALE_SD * normal(BATCHES, 1, FEATURES))
    x = (location + scale * normal(BATCHES, n, FEATURES)).reshape(-1, FEATURES)
    codes = np.repeat(np.arange(BATCHES), n)
    fitted = ComBat().fit(x, batch=codes)
    shrunken = fitted.transform(x, batch=codes)
    plain = tensor_affine(x, unshrunken(fitted), codes)
    return float((shrunken - plain).square().mean().sqrt())


def log_residual(x: Tensor) -> float:
    """Return what a linear model leaves of a multiplicative effect, after logs.

    The positive x is one batch, and x times an effect of each feature another: once
    linear removal has taken the batch away, the two must be the same.
    """
    effect = torch.exp(0.7 * normal(1, x.shape[1]))
    both = torch.log(torch.cat([x, x * effect]))
    codes = np.repeat([0, 1], len(x))
    out = RemoveBatchEffect().fit_transform(both, batch=codes)
    return largest(out[: len(x)] - out[len(x) :]) / largest(both)


def log1p_error(effect: float = 4.0) -> float:
    """Return how far log1p of a product is from a sum, at worst for means of 1 … 20."""
    mean = torch.linspace(1, 20, 200, dtype=torch.float64)
    seen = torch.log1p(effect * mean) - torch.log1p(mean)
    return largest(seen - np.log(effect))


def variance_ratio(*, log: bool) -> float:
    """Return the ratio of a feature's larger batch variance to its smaller, the median.

    Two batches of 20 samples with lognormal noise, the second twice the first; linear
    removal takes the shift.
    """
    torch.manual_seed(0)
    x = torch.exp(normal(1, 4000) + 0.3 * normal(40, 4000))
    x[20:] *= 2
    codes = np.repeat([0, 1], 20)
    out = RemoveBatchEffect().fit_transform(torch.log(x) if log else x, batch=codes)
    squares = tensor_moments(out, codes, 2).squares
    larger, smaller = squares.max(dim=0).values, squares.min(dim=0).values
    return float((larger / smaller).median())
