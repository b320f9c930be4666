"""Corrections and tests over sites that share no samples, only sums."""

from __future__ import annotations

from batchcorr.sites.differential import differential
from batchcorr.sites.fit import fit
from batchcorr.sites.gather import moments
from batchcorr.sites.make_schema import make_schema
from batchcorr.sites.moments_file import SiteMoments
from batchcorr.sites.schema import Schema

__all__ = ["Schema", "SiteMoments", "differential", "fit", "make_schema", "moments"]
