"""Surrogate variables on AnnData."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from batchcorr._anndata import matrices, records
from batchcorr._anndata.columns import aligned, column_of
from batchcorr._anndata.features import by_name
from batchcorr._anndata.labels import read_labels
from batchcorr._anndata.missing import missing_in
from batchcorr.errors import (
    InputError,
    MissingKeyError,
    RepeatWarning,
    collected,
    did_you_mean,
    warn,
)
from batchcorr.methods.surrogate_variables import SurrogateVariables

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

__all__ = ["surrogate_variables"]


def surrogate_variables(
    adata: AnnData,
    *,
    covariates: object = None,
    null: object = None,
    n_variables: int | None = None,
    method: str = "sva",
    controls: object = None,
    replicates: object = None,
    layer: str | None = None,
    key_added: str = "X_sv",
    obs: bool = False,
    random_state: int = 0,
) -> SurrogateVariables:
    r"""Estimate surrogate variables for unrecorded batches (sva, RUV).

    .. math:: x_{ig} = μ_g + z_i β_g + v_i γ_g + ε_{ig}, \qquad v \text{ unknown}

    Parameters
    ----------
    adata
        Samples × features, on a log scale and not corrected.
    covariates
        All known variables, above all those of interest: columns of `obs`, a formula
        over them, or a DataFrame.
    null
        The covariates that are not of interest, such as known batches: columns of `obs`
        or a DataFrame.
    n_variables
        Number of surrogate variables; None: chosen by permutation of residuals (sva
        only).
    method
        ``"sva"``, ``"two_step"`` or ``"supervised"``; ``"ruvg"`` (negative controls),
        ``"ruvs"`` (replicates) or ``"ruvr"`` (residuals): see `SurrogateVariables`.
    controls
        Negative controls, features known not to depend on the variables of interest: a
        column of `var`, a list of names, or one value per feature.
    replicates
        For ``"ruvs"``: column of `obs`; samples with the same label are replicates, and
        samples without a label are not used.
    layer
        Layer to read; None: X.
    key_added
        Name of the result in `obsm`.
    obs
        Also write the surrogate variables to `obs`, as ``X_sv[1]``, ….
    random_state
        Seed of the permutations.

    Returns
    -------
    The fitted estimator; its `transform` gives the surrogate variables of new samples.
    Sets ``obsm["X_sv"]`` (n, k) and the record ``uns["batchcorr"]["obsm X_sv"]``, in
    which ``variables`` is k, ``chosen_by`` how k was chosen, and ``explained_by`` the
    share of each surrogate variable's variance (R²) that each column of `obs` explains.
    The same is logged to the logger ``batchcorr`` (level info).

    Raises
    ------
    MissingKeyError
        If a column, layer or feature does not exist.
    DesignError
        If covariates are collinear, or there are too few samples.
    InputError
        If values are missing, or an argument that the method needs is not given.

    Warns
    -----
    CountsWarning
        If the values look like counts.
    CovariateWarning
        If there are fewer surrogate variables than `n_variables`, or none: the matrix
        in ``obsm`` then has no columns, and later steps ignore it.

    Notes
    -----
    Use the surrogate variables by name:
    ``pp.remove_batch_effect(adata, "batch", nuisance="X_sv")`` for plots,
    ``tl.differential(adata, "batch", "group", covariates="X_sv")`` for tests. sva needs
    n² memory and reads the matrix twice per iteration; RUV also takes sparse matrices
    and Dask arrays.

    References
    ----------
    Leek & Storey (2007), PLoS Genetics 3:e161; Risso et al. (2014), Nature Biotechnology
    32:896.

    Examples
    --------
    >>> import batchcorr as bc
    >>> adata = bc.datasets.bladder()[:, :2000].copy()
    >>> found = bc.tl.surrogate_variables(adata, covariates="cancer", n_variables=2)
    >>> bc.pp.remove_batch_effect(
    ...     adata, None, covariates="cancer", nuisance="X_sv", key_added="cleaned"
    ... )
    >>> adata.obsm["X_sv"].shape
    (57, 2)
    """
    with collected() as texts:
        given = matrices.get_matrix(adata, layer)
        earlier = records.steps_of(adata, layer, given)
        _warn_of_corrected(earlier)
        known = read_labels(adata, None, covariates, None, needed=False)
        of_null = read_labels(adata, None, null, None, needed=False)
        if of_null.formula is not None:
            msg = "null must be columns of adata.obs or a DataFrame, not a formula."
            raise InputError(msg)
        estimator = SurrogateVariables(
            n_variables, method=method, random_state=random_state, formula=known.formula
        )
        if adata.var_names.is_unique:
            estimator.feature_names_ = tuple(map(str, adata.var_names))
        estimator.fit(
            given,
            covariates=known.given.covariates,
            null=of_null.given.covariates,
            controls=_controls(adata, controls),
            replicates=_replicates(adata, replicates),
        )
    others = [name for name in adata.obs if not str(name).startswith(f"{key_added}[")]
    shares = _shares(adata.obs[others], estimator.columns_)
    columns = {"covariates": known.keys["covariates"]}
    estimator.warnings_ = tuple(texts)
    matrices.make_actual(adata)
    record = records.make(adata, estimator, columns, layer, earlier)
    record["explained_by"] = shares
    key = records.key_of(obsm=key_added)
    adata.obsm[key_added] = estimator.columns_
    if obs:
        adata.obs = adata.obs[others]  # without columns of an earlier call
        for k, column in enumerate(estimator.columns_.T):
            adata.obs[f"{key_added}[{k + 1}]"] = column
    records.write(adata, key, record, texts)
    _log(key_added, estimator.summary(), shares)
    return estimator


def _warn_of_corrected(steps: list[records.Record]) -> None:
    by = [str(step["method"]) for step in steps if records.corrects(step)]
    if by:
        msg = (
            f"The values were corrected before, by {by[-1]}, but surrogate variables "
            "must be estimated from uncorrected values: give these, and the known "
            "batch in both covariates= and null=."
        )
        warn(msg, RepeatWarning)


def _shares(
    obs: pd.DataFrame, variables: NDArray[np.float64]
) -> dict[str, list[float]]:
    """R² of each variable on each column: on its levels, or linear on many numbers.

    Of the samples that have a value; columns of text with many values are left out.
    """
    shares: dict[str, list[float]] = {}
    for name, column in obs.items():
        known = ~missing_in(column).to_numpy()
        values, own = column[known], variables[known]
        codes, levels = pd.factorize(values.astype(str))
        number = pd.to_numeric(values, errors="coerce").to_numpy(float)
        if 1 < len(levels) <= len(own) / 4:
            columns = np.eye(len(levels))[codes]
        elif len(levels) > 1 and np.isfinite(number).all():
            columns = (number - number.mean())[:, None]
        else:
            continue
        own = own - own.mean(axis=0)
        left = own - columns @ np.linalg.lstsq(columns, own)[0]
        total = np.maximum((own**2).sum(axis=0), np.finfo(float).tiny)
        explained = 1 - (left**2).sum(axis=0) / total
        shares[str(name)] = [round(float(share), 4) for share in explained]
    return shares


def _log(key: str, summary: dict[str, Any], shares: dict[str, list[float]]) -> None:
    """Say how many variables were found, and what they go with."""
    count, chosen = summary["variables"], summary["chosen_by"]
    parts = [f"obsm[{key!r}]: {count} surrogate variables (chosen by {chosen})"]
    for k in range(count):
        most = sorted(shares, key=lambda name: -shares[name][k])[:3]
        found = ", ".join(f"{name} {shares[name][k]:.2f}" for name in most)
        parts.append(f"{key}[{k + 1}]: R² {found}")
    logging.getLogger("batchcorr").info("; ".join(parts))


def _controls(adata: AnnData, controls: object) -> Any:
    """One value a feature, from a column of `var`, from names, or as it is given."""
    if controls is None:
        return None
    if isinstance(controls, str):
        if controls not in adata.var.columns:
            msg = (
                f"The controls {controls!r} are not a column of adata.var. "
                f"{did_you_mean(controls, adata.var.columns)}"
            )
            raise MissingKeyError(msg)
        return adata.var[controls].to_numpy()
    values = np.asarray(by_name(adata, controls))
    if values.dtype.kind not in "OUST":
        return values
    unknown = [name for name in values if name not in adata.var_names]
    if unknown:
        msg = (
            f"{len(unknown)} of {len(values)} controls are not among the features. "
            f"{did_you_mean(unknown[0], adata.var_names)}"
        )
        raise MissingKeyError(msg)
    return np.asarray(adata.var_names.isin(values))


def _replicates(adata: AnnData, replicates: object) -> Any:
    """A label of each sample, from a column of `obs`, or as it is given."""
    if isinstance(replicates, pd.Series):
        return aligned(adata, replicates, "replicates")
    if not isinstance(replicates, str):
        return replicates
    return column_of(adata, replicates, "replicates key").to_numpy()
