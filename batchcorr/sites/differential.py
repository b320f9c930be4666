"""The one-step test from the sums of all sites, as if their rows were together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from batchcorr.errors import InputError, did_you_mean
from batchcorr.estimators.contrasts import read_contrast
from batchcorr.estimators.differential import differential_table
from batchcorr.estimators.least_squares import LeastSquares
from batchcorr.estimators.problem import Problem
from batchcorr.sites.adding import add, read_sites

if TYPE_CHECKING:
    from collections.abc import Iterable
    from os import PathLike

    import pandas as pd

    from batchcorr.sites.moments_file import SiteMoments

__all__ = ["differential"]

OF_SAMPLES = {
    "weights": "a weight of each sample",
    "voom": "the counts of each sample",
    "subject": "who each sample is of",
}
"""Options of `tl.differential` that sums by batch cannot tell."""
OF_SCHEMA = ("batch_key", "covariates", "nuisance", "formula", "layer")
"""Options of `tl.differential` that are settled when the sums are gathered."""


def differential(
    sites: Iterable[SiteMoments | str | PathLike[str]],
    test: object,
    *,
    trend: bool = False,
    robust: bool = False,
    equal_variances: bool = True,
    **others: object,
) -> pd.DataFrame:
    """Test for differences over the samples of all sites, which share no rows.

    The test of `batchcorr.tl.differential`, from the sums that a correction is fitted to.

    Parameters
    ----------
    sites
        The moments of every site, or their files.
    test
        What is tested: a covariate of the schema; two levels of it,
        ``"column:level-reference"`` or ``(column, level, reference)``; or ``(column,
        {level: weight, …})`` with weights that sum to 0.
    trend
        Let the prior variance follow the mean of the feature (limma-trend).
    robust
        Keep a few features of outlying variance from deciding for all.
    equal_variances
        False: every batch has a variance of its own.
    **others
        None: options of `batchcorr.tl.differential` that need the samples are refused.

    Returns
    -------
    A table, a row a feature, with the columns of `batchcorr.tl.differential`. All batches
    and covariates of the schema are in the model.

    Raises
    ------
    DesignError
        If sites were gathered by different schemas or given twice, a batch or level is
        at no site, or the tested column cannot be told from batch.
    InputError
        If there is no such column or level in the schema, or an option needs the samples.
    FileError
        If a file is damaged.

    Warns
    -----
    BatchSizeWarning
        If a batch is small.
    CovariateWarning
        If covariates nearly repeat each other, so that sums keep few digits of them.

    Notes
    -----
    Equal to the test on all rows: to 1e-10 if all sites gave exact sums, to about 1e-5
    for rounded ones, and less where batches have few samples. A feature that a site left
    out of a batch is tested on the other samples. Nothing needs to be agreed on but the
    schema; a test of another covariate of it needs no new sums.

    References
    ----------
    Smyth (2004), Stat. Appl. Genet. Mol. Biol. 3:3.

    Examples
    --------
    >>> import anndata, numpy as np, batchcorr as bc
    >>> adata = anndata.AnnData(np.random.default_rng(0).normal(size=(40, 3)))
    >>> adata.obs["batch"] = ["oslo"] * 20 + ["lyon"] * 20
    >>> adata.obs["group"] = ["ill", "well"] * 20
    >>> schema = bc.sites.make_schema(
    ...     adata, "batch", covariates=["group"], units="log2 CPM"
    ... )
    >>> sites = [bc.sites.moments(site, schema) for site in (adata[:20], adata[20:])]
    >>> table = bc.sites.differential(sites, ("group", "ill", "well"))
    >>> table.index.tolist(), "p_adjusted" in table
    (['0', '1', '2'], True)
    """
    _refuse(others)
    sums, schema = add(read_sites(sites))
    levels = {
        name: () if isinstance(found, str) else found
        for name, found in schema.covariates.items()
    }
    pair = isinstance(test, str) and ":" in test
    contrast = read_contrast(test, levels if pair else None)
    if contrast.column not in schema.covariates:
        msg = (
            f"The tested column {contrast.column!r} is not a covariate of the schema that "
            f"the sites gathered by. {did_you_mean(contrast.column, schema.covariates)}"
        )
        raise InputError(msg)
    return differential_table(
        Problem.of_moments(sums, schema.metadata),
        contrast,
        schema.features,
        trend=trend,
        robust=robust,
        method=LeastSquares(equal_variances=equal_variances),
    )


def _refuse(others: dict[str, Any]) -> None:
    """Refuse the options that sums cannot serve, and say why."""
    for name in others:
        if name in OF_SAMPLES:
            msg = (
                f"{name} needs {OF_SAMPLES[name]}, and sums by batch do not have it: "
                "test without, or the pooled samples."
            )
        elif name in OF_SCHEMA:
            msg = (
                f"{name} is settled by the schema that the sites gathered by: all of its "
                "batches and covariates are in the model."
            )
        else:
            known = ("trend", "robust", "equal_variances")
            msg = f"There is no option {name!r}. {did_you_mean(name, known)}"
        raise InputError(msg)
