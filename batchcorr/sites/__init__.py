"""Sites that share no rows: sums leave each of them, and one correction comes back."""

from __future__ import annotations

from batchcorr.sites.faces import fit_moments, make_schema, moments
from batchcorr.sites.schema import Schema
from batchcorr.sites.site_moments import SiteMoments

__all__ = ["Schema", "SiteMoments", "fit_moments", "make_schema", "moments"]
