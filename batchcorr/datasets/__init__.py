"""Data for examples and tests: real data, and simulated batch effects.

`bladder` comes with the package, `pbmc` with scanpy, and `add_batch_effect` adds a
known batch effect to any counts.
"""

from __future__ import annotations

from batchcorr.datasets._batch_effect import add_batch_effect
from batchcorr.datasets._bladder import bladder
from batchcorr.datasets._pbmc import pbmc

__all__ = ["add_batch_effect", "bladder", "pbmc"]
