"""Layers for torch models: BatchNorm by domain, and BatchNorm with empirical Bayes."""

from __future__ import annotations

from batchcorr.bridge.nn._combat_norm import ComBatNorm1d, ComBatNorm2d, ComBatNorm3d
from batchcorr.bridge.nn._convert import at_domain, convert_domain_batchnorm
from batchcorr.bridge.nn._domain_layers import (
    DomainBatchNorm1d,
    DomainBatchNorm2d,
    DomainBatchNorm3d,
)
from batchcorr.bridge.nn._labels import domains

__all__ = [
    "ComBatNorm1d",
    "ComBatNorm2d",
    "ComBatNorm3d",
    "DomainBatchNorm1d",
    "DomainBatchNorm2d",
    "DomainBatchNorm3d",
    "at_domain",
    "convert_domain_batchnorm",
    "domains",
]
