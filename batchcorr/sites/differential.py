"""The one-step test on the sums of all sites, as if their samples were pooled."""

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
    "weights": "the weight of each sample",
    "voom": "the counts of each sample",
    "subject": "the subject of each sample",
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
    """Test for differences over all sites, from their sums.

    The test of `batchcorr.tl.differential`, computed from the moments of the sites.

    Parameters
    ----------
    sites
        The `SiteMoments` of every site, or their files.
    test
        What is tested: a covariate of the schema; two of its levels,
        ``"column:level-reference"`` or ``(column, level, reference)``; or
        ``(column, {level: weight, …})`` with weights that sum to 0.
    trend
        Let the prior variance depend on the mean of the feature (limma-trend).
    robust
        Robust empirical Bayes: limit the influence of features with outlying variances.
    equal_variances
        False: every batch has its own variance.
    **others
        Refused: options of `batchcorr.tl.differential` that need the samples.

    Returns
    -------
    A DataFrame, one row per feature, with the columns of `batchcorr.tl.differential`.
    All batches and covariates of the schema are in the model.

    Raises
    ------
    DesignError
        If schemas of sites differ, samples are given twice, no site has samples of a
        batch or level, or the tested column is confounded with batch.
    InputError
        If the column or level is not in the schema, or an option needs the samples.
    FileError
        If a file is damaged.

    Warns
    -----
    BatchSizeWarning
        If a batch is small.
    CovariateWarning
        If covariates are nearly collinear, so that results are less precise.

    Notes
    -----
    Equal to the test on the pooled samples: to 1e-10 if all sites gave exact sums, to
    about 1e-5 for rounded sums, and less precisely if batches have few samples. A
    feature that a site left out of a batch is tested on the other samples. Sites need
    to agree on the schema only; any covariate of the schema can be tested with the same
    sums.

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
            f"The tested column {contrast.column!r} is not a covariate of the schema "
            f"of the sites. {did_you_mean(contrast.column, schema.covariates)}"
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
                f"{name} needs {OF_SAMPLES[name]}, which moments do not contain: leave "
                f"{name} out, or test the pooled samples."
            )
        elif name in OF_SCHEMA:
            msg = (
                f"{name} cannot be given here: all batches and covariates of the "
                "schema are in the model."
            )
        else:
            known = ("trend", "robust", "equal_variances")
            msg = f"There is no option {name!r}. {did_you_mean(name, known)}"
        raise InputError(msg)
