"""Correct an AnnData in place, in scanpy's manner: a step of a pipeline.

Every function reads X or a `layer`, writes back or into the layer `key_added`, and
keeps a record in ``adata.uns["batchcorr"]``. Nothing is changed if anything fails.
"""

from __future__ import annotations

from batchcorr.pp._apply import apply
from batchcorr.pp._combat import combat
from batchcorr.pp._combat_seq import combat_seq
from batchcorr.pp._correct import correct
from batchcorr.pp._covbat import covbat
from batchcorr.pp._log_normalize import log_normalize
from batchcorr.pp._quantile_normalize import quantile_normalize
from batchcorr.pp._remove_batch_effect import remove_batch_effect
from batchcorr.pp._standardize import standardize

__all__ = [
    "apply",
    "combat",
    "combat_seq",
    "correct",
    "covbat",
    "log_normalize",
    "quantile_normalize",
    "remove_batch_effect",
    "standardize",
]
