"""Use corrected values without making them: analyses that write into an AnnData."""

from __future__ import annotations

from batchcorr.tl._pca import pca

__all__ = ["pca"]
