"""Analyses of an AnnData: components of corrected values, and the test to make instead."""

from __future__ import annotations

from batchcorr.tl._differential import differential
from batchcorr.tl._pca import pca

__all__ = ["differential", "pca"]
