"""Make the schema for all sites from the data of one of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from batchcorr._anndata import matrices
from batchcorr._anndata.features import require_unique
from batchcorr._anndata.labels import read_labels
from batchcorr.design.labels import BatchLabels
from batchcorr.design.variables import Variable
from batchcorr.errors import InputError, MissingKeyError, did_you_mean
from batchcorr.sites.schema import NUMERIC, Schema

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from anndata import AnnData

__all__ = ["feature_names", "make_schema"]


def make_schema(
    adata: AnnData,
    batch_key: str,
    *,
    units: str,
    covariates: str | Iterable[str] | None = None,
    batches: Iterable[object] | None = None,
    levels: Mapping[str, Iterable[object]] | None = None,
) -> Schema:
    """Make the schema that all sites must use, from the data of one of them.

    Parameters
    ----------
    adata
        Samples × features, of one site; its values are not read.
    batch_key
        Column of `obs` with the batch.
    units
        Units of the values, such as ``"log2 CPM"``: free text, which must be the same
        at all sites.
    covariates
        Columns of `obs` to keep.
    batches
        All batches of all sites; None: those of this site.
    levels
        All levels of a covariate at all sites, by the name of the covariate; None:
        those of this site.

    Returns
    -------
    A `Schema`: its `save` writes it to a file, and every site computes its `moments`
    with it.

    Raises
    ------
    MissingKeyError
        If a column does not exist.
    DesignError
        If labels are missing, or are not among the batches or levels given.

    Examples
    --------
    >>> import batchcorr as bc
    >>> adata = bc.datasets.bladder()
    >>> schema = bc.sites.make_schema(
    ...     adata, "batch", units="RMA log2", covariates="cancer", batches=range(1, 8)
    ... )
    >>> schema.batches, schema.covariates
    ((1, 2, 3, 4, 5, 6, 7), {'cancer': ('Biopsy', 'Cancer', 'Normal')})
    """
    matrices.require_adata(adata)
    names = [covariates] if isinstance(covariates, str) else list(covariates or ())
    if not isinstance(batch_key, str) or not all(isinstance(n, str) for n in names):
        msg = (
            "A schema needs names of columns of adata.obs: one for the batch, and any "
            "number of covariates."
        )
        raise InputError(msg)
    if any(name.lstrip().startswith("~") for name in names):
        msg = (
            "A schema cannot have a formula: name columns of adata.obs, which become "
            "main effects."
        )
        raise InputError(msg)
    labels = read_labels(adata, batch_key, names, None)
    for name in levels or {}:
        if name not in names:
            msg = (
                f"There are levels for {name!r}, which is not a covariate. "
                f"{did_you_mean(name, names)}"
            )
            raise MissingKeyError(msg)
    known: dict[str, Any] = {}
    for name in names:
        variable, _ = Variable.fit_transform(
            adata.obs[name], name, levels=(levels or {}).get(name)
        )
        known[name] = variable.levels or NUMERIC
    return Schema(
        features=feature_names(adata),
        batches=BatchLabels.fit(labels.given.batch, levels=batches).levels,
        units=units,
        covariates=known,
        batch_key=batch_key,
    )


def feature_names(adata: AnnData) -> tuple[str, ...]:
    """The names of the features, refusing names that occur twice."""
    require_unique(adata, "those of other sites")
    return tuple(map(str, adata.var_names))
