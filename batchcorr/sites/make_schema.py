"""Sites that cannot share rows: from an AnnData to moments, from moments to a correction.

schema = make_schema(adata, …)      once, for all sites
site = moments(adata, schema)       at each site; only this leaves it
correction = fit_moments(sites)     anywhere
"""

from __future__ import annotations

from os import PathLike, fspath
from typing import TYPE_CHECKING, Any

from batchcorr._anndata import matrices
from batchcorr._anndata.correct import make_estimator
from batchcorr._anndata.labels import read_labels
from batchcorr.design.labels import BatchLabels
from batchcorr.design.variables import Variable
from batchcorr.errors import (
    FeatureWarning,
    InputError,
    MissingKeyError,
    did_you_mean,
    some,
    warn,
)
from batchcorr.estimators.location_scale import fits_moments
from batchcorr.sites.gather import fit_sites, gather
from batchcorr.sites.schema import NUMERIC, Schema
from batchcorr.sites.moments_file import SiteMoments

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from anndata import AnnData

    from batchcorr.estimators.location_scale import LocationScaleMethod

__all__ = ["fit_moments", "make_schema", "moments"]


def make_schema(
    adata: AnnData,
    batch_key: str,
    *,
    units: str,
    covariates: str | Iterable[str] | None = None,
    batches: Iterable[Any] | None = None,
    levels: Mapping[str, Iterable[Any]] | None = None,
) -> Schema:
    """Write down what all sites must agree on, from the data of one of them.

    Parameters
    ----------
    adata
        Samples × features, of one site; its values are not read.
    batch_key
        Column of `obs` with the batch.
    units
        What the values are, such as ``"log2 CPM"``: free text that sites compare.
    covariates
        Columns of `obs` to keep.
    batches
        All batches of all sites; None: those of this one.
    levels
        All levels of a covariate at all sites, by its name; None: those of this one.

    Returns
    -------
    A `Schema`: `save` writes it, and every site gathers its `moments` by it.

    Raises
    ------
    MissingKeyError
        If a column does not exist.
    DesignError
        If labels are missing, or lie outside the batches or levels given.

    Examples
    --------
    >>> import batchcorr as bc
    >>> adata = bc.datasets.bladder()
    >>> schema = bc.make_schema(
    ...     adata, "batch", units="RMA log2", covariates="cancer", batches=range(1, 8)
    ... )
    >>> schema.batches, schema.covariates
    ((1, 2, 3, 4, 5, 6, 7), {'cancer': ('Biopsy', 'Cancer', 'Normal')})
    """
    matrices.require_adata(adata)
    names = [covariates] if isinstance(covariates, str) else list(covariates or ())
    if not isinstance(batch_key, str) or not all(isinstance(n, str) for n in names):
        msg = "A schema takes names of columns of adata.obs: one batch, and covariates."
        raise InputError(msg)
    if any(name.lstrip().startswith("~") for name in names):
        msg = (
            "A schema takes no formula: name the columns of adata.obs, as main effects."
        )
        raise InputError(msg)
    labels = read_labels(adata, batch_key, names, None)
    for name in levels or {}:
        if name not in names:
            msg = f"levels names no covariate {name!r}. {did_you_mean(name, names)}"
            raise MissingKeyError(msg)
    known: dict[str, Any] = {}
    for name in names:
        variable = Variable.learn(
            adata.obs[name], name, levels=(levels or {}).get(name)
        )
        known[name] = variable.levels or NUMERIC
    return Schema(
        features=_features(adata),
        batches=BatchLabels.learn(labels.batch, levels=batches).levels,
        units=units,
        covariates=known,
        batch_key=batch_key,
    )


def moments(
    adata: AnnData,
    schema: Schema | str | PathLike[str],
    *,
    batch_key: str | None = None,
    layer: str | None = None,
) -> SiteMoments:
    """Gather the sums of one site: what a correction is fitted to, and no sample.

    Parameters
    ----------
    adata
        Samples × features of the site, in the schema's units.
    schema
        What the sites agreed on, or its file.
    batch_key
        Column of `obs` with the batch; None: that of the schema.
    layer
        Layer to read; None: X.

    Returns
    -------
    A `SiteMoments`: per batch the number of samples, and the means, squares and
    cross-products of features and covariates. `save` writes it.

    Raises
    ------
    DesignError
        If fewer than 5 samples share a batch and the levels of all covariates, a
        batch with numeric covariates has fewer than 5 samples for each design column,
        numbers single fewer than 5 samples out, no feature of a batch can be given, or
        labels are not in the schema.
    MissingKeyError
        If features or columns of the schema are missing.

    Warns
    -----
    CountsWarning, FeatureWarning

    Notes
    -----
    Two reads of the matrix, sparse or dense; O(B p G) numbers leave the site. A feature
    is left out of a batch, with a warning, if fewer than 5 samples there differ from the
    rest, one outweighs the rest, or values are missing beside covariates. Send one file:
    two that differ by a sample reveal it.

    Examples
    --------
    >>> import anndata, numpy as np, batchcorr as bc
    >>> adata = anndata.AnnData(np.random.default_rng(0).normal(size=(20, 3)))
    >>> adata.obs["batch"] = ["monday", "tuesday"] * 10
    >>> schema = bc.make_schema(adata, "batch", units="log2 CPM")
    >>> bc.moments(adata, schema).samples
    {'monday': 10, 'tuesday': 10}
    """
    matrices.require_adata(adata)
    if not isinstance(schema, Schema):
        schema = Schema.load(schema)
    key = schema.batch_key if batch_key is None else batch_key
    labels = read_labels(adata, key, list(schema.covariates), None)
    x = matrices.get_matrix(adata, layer)
    features = _features(adata)
    if features != schema.features:
        x = x[:, _positions(adata, schema)]
    return gather(x, schema, labels.batch, labels.covariates)


def fit_moments(
    sites: Iterable[SiteMoments | str | PathLike[str]],
    *,
    method: str = "combat",
    **parameters: Any,
) -> LocationScaleMethod:
    """Fit a correction to the moments of sites, as if their rows were together.

    Parameters
    ----------
    sites
        The moments of every site, or their files.
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
        If sites were gathered by different schemas or given twice, a batch or level is
        at no site, or covariates are confounded with batch.
    InputError
        If the method cannot be fitted to moments.
    FileError
        If a file is damaged.

    Notes
    -----
    Equal to the fit on all rows, but for rounding. The covariates are those of the
    schema.

    Examples
    --------
    >>> import anndata, numpy as np, batchcorr as bc
    >>> adata = anndata.AnnData(np.random.default_rng(0).normal(size=(20, 3)))
    >>> adata.obs["batch"] = ["oslo"] * 10 + ["lyon"] * 10
    >>> schema = bc.make_schema(adata, "batch", units="log2 CPM")
    >>> sites = [bc.moments(site, schema) for site in (adata[:10], adata[10:])]
    >>> correction = bc.fit_moments(sites, method="standardize")
    >>> bc.pp.apply(adata, correction)
    """
    if isinstance(sites, SiteMoments | str | PathLike):
        sites = [sites]
    given: dict[str, SiteMoments] = {}
    for place, site in enumerate(sites, start=1):
        name, held = f"site {place}", site
        if isinstance(held, str | PathLike):
            name, held = fspath(held), SiteMoments.load(held)
        if not isinstance(held, SiteMoments):
            msg = (
                "Sites are given as moments, as batchcorr.moments returns them, or as "
                f"their files, not as {type(held).__name__}."
            )
            raise InputError(msg)
        given[name if name not in given else f"{name} ({place})"] = held
    if "formula" in parameters:
        msg = "Moments take no formula: the schema says which covariates are kept."
        raise InputError(msg)
    estimator = make_estimator(method, parameters, None)
    if not fits_moments(estimator):
        msg = (
            f"{method} cannot be fitted to moments, as it needs the samples: use a "
            "location-scale method, such as combat."
        )
        raise InputError(msg)
    return fit_sites(estimator, given)


def _features(adata: AnnData) -> tuple[str, ...]:
    """Return the names of the features, refusing names that occur twice."""
    if not adata.var_names.is_unique:
        msg = (
            "var_names are not unique, so features cannot be matched between sites: "
            "call adata.var_names_make_unique() first."
        )
        raise InputError(msg)
    return tuple(map(str, adata.var_names))


def _positions(adata: AnnData, schema: Schema) -> Any:
    """Return where the features of the schema are."""
    positions = adata.var_names.get_indexer(list(schema.features))
    lacking = [n for n, at in zip(schema.features, positions, strict=True) if at < 0]
    if lacking:
        msg = (
            f"{len(lacking)} of {len(schema.features)} features of the schema are "
            f"missing from adata.var_names: {some(lacking)}. All "
            "are needed at every site."
        )
        raise MissingKeyError(msg)
    extra = adata.n_vars - len(schema.features)
    if extra:
        msg = f"{extra} of {adata.n_vars} features are not in the schema: left out."
        warn(msg, FeatureWarning)
    return positions
