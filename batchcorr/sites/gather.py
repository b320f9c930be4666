"""The sums of one site: from its AnnData to the moments that may leave it.

A site sends sums over its samples and no sample. Sums over few are samples in disguise,
so that a site whose batches or levels are small is refused before anything is written.
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
    exact
        Give the sums to all digits, for sites that trust each other: whoever has them
        and knows the covariates may compute the values of every sample.

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
    Two reads of the matrix, sparse or dense; O(B p G) numbers leave the site, rounded to
    1e-6 of a standard deviation, and coarser in batches of few samples, so that the
    values cannot be computed back. A feature is left out of a batch, with a warning, if
    fewer than 5 samples there differ from the rest, one outweighs the rest, values are
    missing beside covariates, or its values hold too few digits. Send one file: two that
    differ by a sample reveal it.

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
    """The moments of samples × features of the schema, in its order.

    Batch and covariates are given as to an estimator; the rest is as in `moments`.
    """
    x = as_matrix(x)
    if x.shape[1] != len(schema.features) or not x.shape[0]:
        msg = (
            f"The data are {x.shape[0]} samples × {x.shape[1]} features, and the schema "
            f"has {len(schema.features)} features."
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
            "Sums of few values leave rounded, so that values cannot be computed from "
            f"them: {some(found)}. The fit differs from that of pooled rows by as much."
        )
        warn(msg, FeatureWarning)
