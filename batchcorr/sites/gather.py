"""The moments of one site: sums over its samples that may be shared.

A site shares sums over its samples and no samples. Sums over few samples disclose them:
small batches or levels raise an error before anything is written.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from batchcorr import arrays
from batchcorr._anndata import matrices
from batchcorr._anndata.features import positions_of
from batchcorr._anndata.labels import read_labels
from batchcorr.arrays.differing import differing
from batchcorr.errors import FeatureWarning, InputError, some, warn
from batchcorr.estimators.matrix import as_matrix
from batchcorr.estimators.scale import warn_if_unlogged
from batchcorr.sites.disclosure import FEWEST, check_design
from batchcorr.sites.left_out import leave_out
from batchcorr.sites.make_schema import feature_names
from batchcorr.sites.moments_file import SiteMoments
from batchcorr.sites.rounding import COARSEST, digits_of, rounded
from batchcorr.sites.schema import Schema

if TYPE_CHECKING:
    from os import PathLike

    from anndata import AnnData
    from numpy.typing import NDArray

    from batchcorr.models.moments import Moments

__all__ = ["gather", "moments"]

COARSE = 1e-3
"""Standard deviations up to which nobody need be told of rounding."""


def moments(
    adata: AnnData,
    schema: Schema | str | PathLike[str],
    *,
    batch_key: str | None = None,
    layer: str | None = None,
    exact: bool = False,
) -> SiteMoments:
    """Compute the moments of one site, the sums that a correction is fitted to.

    Parameters
    ----------
    adata
        Samples × features of the site, in the units of the schema.
    schema
        The `Schema` that all sites use, or its file.
    batch_key
        Column of `obs` with the batch; None: that of the schema.
    layer
        Layer to read; None: X.
    exact
        Do not round the sums. Only for sites that trust each other: with exact sums and
        known covariates, the values of every sample may be computed.

    Returns
    -------
    A `SiteMoments`: for each batch the number of samples, and the means, squares and
    cross-products of features and covariates. Its `save` writes it to a file.

    Raises
    ------
    DesignError
        If fewer than 5 samples share a batch and the levels of all covariates, a batch
        with numeric covariates has fewer than 5 samples per design column, numeric
        covariates single out fewer than 5 samples, no feature of a batch can be shared,
        or labels are not in the schema.
    MissingKeyError
        If features or columns of the schema are missing.

    Warns
    -----
    CountsWarning, FeatureWarning

    Notes
    -----
    Two reads of the matrix, sparse or dense. O(B p G) numbers are shared, rounded to
    1e-6 of a standard deviation and more coarsely in batches of few samples, so that
    single values cannot be computed from them. A feature is left out of a batch, with a
    warning, if fewer than 5 samples there differ from the most common value, one sample
    dominates its variance, values are missing while there are covariates, or its values
    have too few digits. Send one file only: two that differ by one sample disclose it.

    Examples
    --------
    >>> import anndata, numpy as np, batchcorr as bc
    >>> adata = anndata.AnnData(np.random.default_rng(0).normal(size=(20, 3)))
    >>> adata.obs["batch"] = ["monday", "tuesday"] * 10
    >>> schema = bc.sites.make_schema(adata, "batch", units="log2 CPM")
    >>> bc.sites.moments(adata, schema).samples
    {'monday': 10, 'tuesday': 10}
    """
    matrices.require_adata(adata)
    if not isinstance(schema, Schema):
        schema = Schema.load(schema)
    key = schema.batch_key if batch_key is None else batch_key
    labels = read_labels(adata, key, list(schema.covariates), None)
    x = matrices.get_matrix(adata, layer)
    if feature_names(adata) != schema.features:
        positions = positions_of(adata, schema.features, "the schema", "out")
        x = x[:, positions]
    return gather(x, schema, labels.given.batch, labels.given.covariates, exact=exact)


def gather(
    x: Any, schema: Schema, batch: Any, covariates: Any = None, *, exact: bool = False
) -> SiteMoments:
    """Compute the moments of samples × features, in the order of the schema.

    Batch and covariates are given as to an estimator; the rest is as in `moments`.
    """
    x = as_matrix(x)
    if x.shape[1] != len(schema.features) or not x.shape[0]:
        msg = (
            f"The data have {x.shape[1]} features ({x.shape[0]} samples), but the "
            f"schema has {len(schema.features)} features."
        )
        raise InputError(msg)
    design, table = schema.design(x.shape[0], batch, covariates)
    check_design(design, schema, table)
    warn_if_unlogged(x, "A location-scale method")
    sums = arrays.moments(x, design)
    values = differing(x, design.codes, len(schema.batches), FEWEST - 1)
    if exact:
        return SiteMoments(schema, leave_out(sums, values, schema))
    digits = digits_of(x, sums, values, design)
    given = rounded(leave_out(sums, values, schema, digits < COARSEST), digits, design)
    _warn_of_coarse(given, schema, digits)
    return SiteMoments(schema, given)


def _warn_of_coarse(sums: Moments, schema: Schema, digits: NDArray[np.int64]) -> None:
    """Say where means are told to less than a thousandth of a standard deviation."""
    n = np.broadcast_to(sums.n, digits.shape)
    error = np.exp2(1.0 - digits) / np.sqrt(np.maximum(n, 1))
    coarse = (error > COARSE) & (n > 0)
    found = [
        f"batch {schema.batches[batch]!r}: {int(coarse[batch].sum()):,} of "
        f"{coarse.shape[1]:,} features to {error[batch, coarse[batch]].max():.1g} SD"
        for batch in np.flatnonzero(coarse.any(axis=1))
    ]
    if found:
        msg = (
            "Sums over few values are rounded more coarsely, so that values cannot be "
            f"computed from them: {some(found)}. Results differ from those of pooled "
            "samples by as much."
        )
        warn(msg, FeatureWarning)
