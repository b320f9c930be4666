"""Data for examples, tests and the demo: real ones, and batch effects that are known.

`bladder` comes with the package, `pbmc` with scanpy, and `add_batch_effect` gives any
counts a batch effect whose truth is at hand.
"""

from __future__ import annotations

from batchcorr.datasets._batch_effect import add_batch_effect
from batchcorr.datasets._bladder import bladder
from batchcorr.datasets._pbmc import pbmc

__all__ = ["add_batch_effect", "bladder", "pbmc"]
