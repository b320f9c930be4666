"""One correction from the sums of all sites, as if their samples were pooled."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchcorr._anndata.fit import make_estimator
from batchcorr.errors import InputError
from batchcorr.estimators.location_scale import fits_moments
from batchcorr.sites.adding import add, read_sites

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from os import PathLike

    from batchcorr.estimators.location_scale import LocationScaleMethod
    from batchcorr.sites.moments_file import SiteMoments

__all__ = ["fit"]


def fit(
    sites: Iterable[SiteMoments | str | PathLike[str]],
    *,
    method: str = "combat",
    **parameters: object,
) -> LocationScaleMethod:
    """Fit a correction to the moments of all sites, as if their samples were pooled.

    Parameters
    ----------
    sites
        The `SiteMoments` of every site, or their files.
    method
        Name of a location-scale method.
    **parameters
        Parameters of the method's estimator.

    Returns
    -------
    A fitted estimator: each site corrects its own samples with `pp.apply`.

    Raises
    ------
    DesignError
        If schemas of sites differ, samples are given twice, no site has samples of a
        batch or level, or covariates are confounded with batch.
    InputError
        If the method cannot be fitted to moments.
    FileError
        If a file is damaged.

    Notes
    -----
    Equal to the fit on the pooled samples except for the rounding of the sums: about
    1e-6 of a standard deviation, and more if batches have few samples; to 1e-10 if all
    sites gave exact sums. The covariates are those of the schema.

    Examples
    --------
    >>> import anndata, numpy as np, batchcorr as bc
    >>> adata = anndata.AnnData(np.random.default_rng(0).normal(size=(20, 3)))
    >>> adata.obs["batch"] = ["oslo"] * 10 + ["lyon"] * 10
    >>> schema = bc.sites.make_schema(adata, "batch", units="log2 CPM")
    >>> sites = [bc.sites.moments(site, schema) for site in (adata[:10], adata[10:])]
    >>> correction = bc.sites.fit(sites, method="standardize")
    >>> bc.pp.apply(adata, correction)
    """
    given = read_sites(sites)
    if "formula" in parameters:
        msg = (
            "A formula cannot be given with moments: the schema defines which "
            "covariates are kept."
        )
        raise InputError(msg)
    estimator = make_estimator(method, parameters, None)
    if not fits_moments(estimator):
        msg = (
            f"{method} cannot be fitted to moments, because it needs the samples: use "
            "a location-scale method, such as combat."
        )
        raise InputError(msg)
    return _fitted(estimator, given)


def _fitted(
    estimator: LocationScaleMethod, sites: Mapping[str, SiteMoments]
) -> LocationScaleMethod:
    """Fit an estimator to the moments of all sites together."""
    sums, schema = add(sites)
    estimator.fit_moments(sums, schema.metadata, features=schema.features)
    estimator.obs_columns_ = {
        "batch": schema.batch_key,
        "covariates": list(schema.covariates) or None,
        "nuisance": None,
    }
    return estimator
