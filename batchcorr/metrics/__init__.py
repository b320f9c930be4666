"""How much batch is left and how much biology is kept: one score a file."""

from __future__ import annotations

from batchcorr.metrics._variance_explained import VarianceShare, variance_explained

__all__ = ["VarianceShare", "variance_explained"]
