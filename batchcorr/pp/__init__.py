"""Preprocessing steps that change an AnnData in place, as in `scanpy.pp`.

Every function reads X or a `layer`, overwrites it or writes the layer `key_added`, and
records the step in ``adata.uns["batchcorr"]``. If a function fails, `adata` is
unchanged.
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
