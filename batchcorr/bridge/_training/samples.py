"""The samples of a batch: see `bridge._batches`."""

from __future__ import annotations

from batchcorr.bridge._batches import leaves, n_samples, take
from batchcorr.bridge._batches import map_tensors as convert

__all__ = ["convert", "leaves", "n_samples", "take"]
