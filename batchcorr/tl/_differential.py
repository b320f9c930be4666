"""The test of uncorrected values, batch in the model, on AnnData."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from batchcorr._anndata import matrices, records
from batchcorr._anndata.labels import read_labels
from batchcorr.arrays import moments
from batchcorr.errors import (
    CountsWarning,
    InputError,
    MissingKeyError,
    did_you_mean,
    warn,
)
from batchcorr.estimators.differential import (
    differential_table,
    read_contrast,
    with_tested,
)
from batchcorr.estimators.matrix import as_matrix
from batchcorr.estimators.metadata import Labels
from batchcorr.estimators.problem import Problem
from batchcorr.estimators.scale import unlogged

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData


__all__ = ["differential"]


def differential(
    adata: AnnData,
    batch_key: str | Sequence[str] | None,
    test: Any,
    *,
    covariates: Any = None,
    nuisance: Any = None,
    layer: str | None = None,
    trend: bool = False,
    robust: bool = False,
    weights: Any = None,
    equal_variances: bool = True,
    key_added: str | None = None,
) -> pd.DataFrame:
    r"""Test for differences between groups on uncorrected values, batch in the model.

    .. math::
        x_{ig} = α_{b(i),g} + z_i β_g + ε_{ig}, \qquad
        t = \frac{c\,β_g}{\sqrt{\tilde s_g^2 \; c V c^\top}}, \qquad
        \tilde s_g^2 = \frac{d_0 s_0^2 + d s_g^2}{d_0 + d}

    What correcting first and testing then gets wrong: one model holds batch and group,
    and the variances of all features lend each other degrees of freedom (moderated t).

    Parameters
    ----------
    adata
        Samples × features, on a log scale and not corrected; sparse, Dask and device
        arrays are read as they are.
    batch_key
        Column of `obs` with the batch, or several; None: there are no batches.
    test
        What is tested. A column of `obs`: two levels are compared by t, more by F and a
        t a level against the first, numbers by their slope. Or ``(column, level,
        reference)``; or ``(column, {level: weight, …})`` with weights that sum to 0.
    covariates, nuisance
        What else the model holds: columns of `obs`, tables, or a formula for
        `covariates`. For the test there is no difference between the two.
    layer
        Layer to test; None: X.
    trend
        Let the prior variance follow the mean of the feature (limma-trend): for
        logarithms of counts.
    robust
        Keep a few features of outlying variance from deciding for all.
    weights
        A weight a sample, (n,), or the column of `obs` that holds it.
    equal_variances
        False: every batch has a variance of its own, found by restricted maximum
        likelihood over all features.
    key_added
        Also write the result to ``adata.uns[key_added]`` in the layout of scanpy's
        `rank_genes_groups`, for ``sc.get.rank_genes_groups_df``.

    Returns
    -------
    A table, a row a feature in the order of the features. With one contrast:
    ``coefficient`` (in units of X; also ``log2_fold_change`` where the record of the
    logarithms knows their base), ``mean``, ``standard_error``, ``ci_low`` and ``ci_high``
    (95 %), ``t``, ``p_value`` and ``p_adjusted`` (Benjamini & Hochberg). With more levels
    ``f`` with its ``p_value`` and ``p_adjusted``, and the others by level,
    ``coefficient[level]``. NaN where a feature's own samples do not determine it.

    Raises
    ------
    InputError
        If the values were corrected, as their record says: the test would believe in
        more samples than there are.
    DesignError
        If the tested column cannot be told from batch.
    MissingKeyError
        If a column or layer does not exist.

    Warns
    -----
    CountsWarning
        If the values look like counts: take logarithms, or test counts by PyDESeq2.
    BatchSizeWarning
        If a batch is small.

    Notes
    -----
    One read of the matrix (two with weights or missing values), O(B p G) memory. Equal to
    limma's `lmFit` and `eBayes` with batch in the design. Samples must be independent:
    cells of one person are not, so sum them by person first.

    References
    ----------
    Smyth (2004), Stat. Appl. Genet. Mol. Biol. 3:3; Phipson et al. (2016), Ann. Appl.
    Stat. 10:946; Law et al. (2014), Genome Biol. 15:R29. Nygaard, Rødland & Hovig (2016),
    Biostatistics 17:29, on what testing corrected values does.

    Examples
    --------
    >>> import warnings, batchcorr as bc
    >>> adata = bc.datasets.bladder()
    >>> with warnings.catch_warnings(action="ignore"):  # cancer goes with batch here
    ...     table = bc.tl.differential(adata, "batch", ("cancer", "Cancer", "Normal"))
    >>> int((table["p_adjusted"] < 0.05).sum()) > 500
    True
    """
    matrices.require_adata(adata)
    contrast = read_contrast(test)
    given = matrices.get_matrix(adata, layer)
    steps = records.steps_of(adata, layer, given)
    _refuse_corrected(steps, layer)
    x = as_matrix(given)
    _warn_of_counts(x)
    labels = read_labels(adata, batch_key, covariates, nuisance, needed=False)
    table, formula = with_tested(
        adata.obs, labels.given.covariates, labels.formula, contrast.column
    )
    sample_weights = _weights(adata, weights)
    problem = Problem.of(
        x,
        Labels(labels.given.batch, table, labels.given.nuisance),
        formula=formula,
        weights=sample_weights,
    )
    observed = None
    if sample_weights is not None:
        design = problem.design_as_read
        assert design is not None
        used = (sample_weights > 0).astype(np.float64)
        observed = moments(x, design, weights=None if used.all() else used)
    result = differential_table(
        problem,
        contrast,
        list(map(str, adata.var_names)),
        observed=observed,
        trend=trend,
        robust=robust,
        equal_variances=equal_variances,
    )
    base = steps[-1].get("log_base") if steps else None
    result = _with_fold_changes(result, base)
    if key_added is not None:
        about = {"groupby": contrast.column, "layer": layer, "batch": batch_key}
        adata.uns[key_added] = _as_ranked(result, contrast.column, about)
    return result


def _refuse_corrected(steps: list[dict[str, Any]], layer: str | None) -> None:
    """Refuse values that a correction made, unless its result may be tested."""
    for step in steps:
        if step["normalizes"] or step["testable"]:
            continue
        what = f"layer {layer!r}" if layer else "X"
        source = step.get("source", "X")
        instead = "" if source == (layer or "X") else f" (here {source!r})"
        msg = (
            f"{what} was corrected by {step.get('method')}, and corrected values are not "
            "for testing: the test would take batch effects that were estimated for "
            f"known. Test the uncorrected values{instead}; batch is in the model anyway."
        )
        raise InputError(msg)


def _warn_of_counts(x: Any) -> None:
    if unlogged(x):
        msg = (
            "The values look like counts, and this test is for logarithms: take them "
            "first (batchcorr.pp.log_normalize), and test with trend=True; or test the "
            "counts themselves by PyDESeq2, with batch in its design."
        )
        warn(msg, CountsWarning)


def _weights(
    adata: AnnData, weights: Any
) -> np.ndarray[Any, np.dtype[np.float64]] | None:
    """Weights of the samples, from a column or an array: (n,)."""
    if weights is None:
        return None
    if isinstance(weights, str):
        if weights not in adata.obs.columns:
            msg = (
                f"The weights {weights!r} are not a column of adata.obs. "
                f"{did_you_mean(weights, adata.obs.columns)}"
            )
            raise MissingKeyError(msg)
        weights = adata.obs[weights]
    values = np.asarray(weights, dtype=np.float64)
    if values.shape != (adata.n_obs,) or not np.isfinite(values).all():
        msg = (
            f"weights must be {adata.n_obs} finite numbers, one a sample, or name a "
            "column of adata.obs that holds them."
        )
        raise InputError(msg)
    if (values < 0).any() or not values.any():
        msg = "weights must not be negative, and not all 0: 0 leaves a sample out."
        raise InputError(msg)
    return values


def _with_fold_changes(table: pd.DataFrame, base: float | None) -> pd.DataFrame:
    """The table with log2 fold changes behind the coefficients, where the base is known."""
    if base is None:
        return table
    columns = {}
    for name in map(str, table.columns):
        columns[name] = table[name]
        if name.startswith("coefficient"):
            fold = name.replace("coefficient", "log2_fold_change", 1)
            columns[fold] = table[name] * np.log2(base)
    return pd.DataFrame(columns)


def _as_ranked(
    table: pd.DataFrame, column: str, about: dict[str, Any]
) -> dict[str, Any]:
    """The table in the layout of `rank_genes_groups`: a field a contrast, by falling t."""
    alone = "t" in table
    names = map(str, table.columns)
    suffixes = [""] if alone else [n[1:] for n in names if n.startswith("t[")]
    fields = {
        "names": None,
        "scores": "t",
        "logfoldchanges": "log2_fold_change",
        "pvals": "p_value",
        "pvals_adj": "p_adjusted",
    }
    ranked: dict[str, list[Any]] = {field: [] for field in fields}
    for suffix in suffixes:
        order = np.argsort(-table[f"t{suffix}"].to_numpy(), kind="stable")
        for field, name in fields.items():
            if name is None:
                values = table.index.to_numpy()[order].astype(str)
            elif f"{name}{suffix}" in table:
                values = table[f"{name}{suffix}"].to_numpy()[order]
            else:  # the base of the logarithms is not known
                values = np.full(len(order), np.nan)
            ranked[field].append(values)
    groups = [column] if alone else [suffix[1:-1] for suffix in suffixes]
    params = {key: value for key, value in about.items() if value is not None}
    params |= {"method": "batchcorr.tl.differential", "reference": "rest"}
    arrays = {
        field: np.rec.fromarrays(
            values, [(group, v.dtype) for group, v in zip(groups, values, strict=True)]
        )
        for field, values in ranked.items()
    }
    return {"params": params, **arrays}
