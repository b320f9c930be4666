"""Batch-effect correction for RNA-seq, arrays and single cells.

Estimate what is specific to a batch, and remove it: two passes over the matrix and one
frozen correction between them.

>>> import batchcorr as bc
>>> adata = bc.datasets.bladder()
>>> bc.pp.standardize(adata, "batch", key_added="standardized")
"""

from __future__ import annotations

import logging
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from batchcorr import bridge, datasets, errors, metrics, pl, pp, sites, tl
    from batchcorr._anndata.corrected import corrected
    from batchcorr._anndata.fit import fit
    from batchcorr._report.report import report
    from batchcorr.estimators.normalization_factors import normalization_factors
    from batchcorr.methods import load
    from batchcorr.methods.combat import ComBat
    from batchcorr.methods.combat_seq import ComBatSeq
    from batchcorr.methods.covbat import CovBat
    from batchcorr.methods.log_normalize import LogNormalize
    from batchcorr.methods.quantile_normalize import QuantileNormalize
    from batchcorr.methods.remove_batch_effect import RemoveBatchEffect
    from batchcorr.methods.standardize import Standardize
    from batchcorr.methods.surrogate_variables import SurrogateVariables
    from batchcorr.sites.fit import fit as fit_moments
    from batchcorr.sites.gather import moments
    from batchcorr.sites.make_schema import make_schema
    from batchcorr.sites.moments_file import SiteMoments
    from batchcorr.sites.schema import Schema

__version__ = "0.2.0"

__all__ = [
    "ComBat",
    "ComBatSeq",
    "CovBat",
    "LogNormalize",
    "QuantileNormalize",
    "RemoveBatchEffect",
    "Schema",
    "SiteMoments",
    "Standardize",
    "SurrogateVariables",
    "__version__",
    "bridge",
    "corrected",
    "datasets",
    "errors",
    "fit",
    "fit_moments",
    "load",
    "make_schema",
    "metrics",
    "moments",
    "normalization_factors",
    "pl",
    "pp",
    "report",
    "sites",
    "tl",
]

logging.getLogger(__name__).addHandler(logging.NullHandler())

_HOMES = {
    "ComBat": "batchcorr.methods.combat",
    "ComBatSeq": "batchcorr.methods.combat_seq",
    "CovBat": "batchcorr.methods.covbat",
    "LogNormalize": "batchcorr.methods.log_normalize",
    "QuantileNormalize": "batchcorr.methods.quantile_normalize",
    "RemoveBatchEffect": "batchcorr.methods.remove_batch_effect",
    "Schema": "batchcorr.sites.schema",
    "SiteMoments": "batchcorr.sites.moments_file",
    "Standardize": "batchcorr.methods.standardize",
    "SurrogateVariables": "batchcorr.methods.surrogate_variables",
    "corrected": "batchcorr._anndata.corrected",
    "fit": "batchcorr._anndata.fit",
    "fit_moments": "batchcorr.sites.fit:fit",
    "load": "batchcorr.methods",
    "make_schema": "batchcorr.sites.make_schema",
    "moments": "batchcorr.sites.gather",
    "normalization_factors": "batchcorr.estimators.normalization_factors",
    "report": "batchcorr._report.report",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is first asked for: `import batchcorr` is quick."""
    if name not in __all__:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    home = _HOMES.get(name)
    if home is None:
        value = import_module(f"{__name__}.{name}")
    else:
        module, _, known_as = home.partition(":")
        value = getattr(import_module(module), known_as or name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
