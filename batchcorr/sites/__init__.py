"""Sites that share no rows: sums leave each of them, and one correction comes back."""

from __future__ import annotations

from batchcorr.sites.make_schema import fit_moments, make_schema, moments
from batchcorr.sites.schema import Schema
from batchcorr.sites.moments_file import SiteMoments

__all__ = ["Schema", "SiteMoments", "fit_moments", "make_schema", "moments"]
