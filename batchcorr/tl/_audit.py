"""What a design allows: checks before a correction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from batchcorr._anndata import matrices
from batchcorr._anndata.labels import check_batch_key, read_labels
from batchcorr.design.column_products import ColumnProducts
from batchcorr.design.confounding import associations
from batchcorr.design.findings import LEVELS, Finding, apart
from batchcorr.errors import InputError
from batchcorr.estimators.audit import (
    ANALYSES,
    Prediction,
    design_findings,
    design_sums,
    predict,
    prediction_findings,
)
from batchcorr.estimators.contrasts import read_contrast, with_tested
from batchcorr.estimators.metadata import Labels, Metadata
from batchcorr.estimators.options import check_rate
from batchcorr.tl._audit_data import audit_values
from batchcorr.tl._audited import Audit

if TYPE_CHECKING:
    import numpy as np
    from anndata import AnnData

    from batchcorr.models.naive_test import DesignSums

__all__ = ["audit"]


def audit(
    adata: AnnData,
    batch_key: str,
    *,
    covariates: object = None,
    test: object = None,
    alpha: float = 0.05,
    layer: str | None = None,
) -> Audit:
    r"""Check what a design allows before correcting anything.

    A test of corrected values treats the estimated batch effects as if they were known.
    How much this inflates the false positive rate follows from the design and one
    variance per batch,

    .. math:: u = \frac{w}{w^\top w} + \frac{M D z}{z^\top z},
        \qquad \mathrm{Var} = u^\top Σ u

    with z the residuals of the tested column from the other covariates, w from these
    and batch, M the residual projection of the model, and D the scales that the
    correction divides batches by.

    Parameters
    ----------
    adata
        Samples × features; without X only the design is checked.
    batch_key
        Column of `obs` with the batch.
    covariates
        Covariates to keep: columns of `obs`, a formula, or a DataFrame.
    test
        What will be tested, as in `differential`: a column of `obs`, or a contrast of
        its levels such as ``"group:ill-well"``.
    alpha
        Significance level: the nominal false positive rate.
    layer
        Layer to read; None: X.

    Returns
    -------
    An `Audit` with ``findings``, ``tables``, ``association``, ``predicted``,
    ``batches`` and ``to_dict()``. It prints as text and displays in notebooks.

    Raises
    ------
    MissingKeyError
        If a column or layer does not exist.
    DesignError
        If labels are missing, or a column has a different label for each sample.

    Notes
    -----
    One read of the matrix. The predicted rates hold under the null hypothesis and are
    the same for all features; on most of 50 random designs they were within 0.01 of
    simulation.

    References
    ----------
    Nygaard, Rødland & Hovig (2016), Biostatistics 17:29-39.

    Examples
    --------
    >>> import batchcorr as bc
    >>> audit = bc.tl.audit(bc.datasets.bladder(), "batch", test="cancer")
    >>> [finding.code for finding in audit.findings if finding.level == "warns"]
    ['associated', 'inflated']
    """
    adata = matrices.require_adata(adata)
    check_rate(alpha)
    check_batch_key(batch_key)
    if adata.n_obs == 0:
        msg = "There is nothing to audit: adata has no samples."
        raise InputError(msg)
    labels = read_labels(adata, batch_key, covariates, None)
    table, formula = labels.given.covariates, labels.formula
    contrast = None if test is None else read_contrast(test, adata.obs)
    if contrast is not None:
        table, formula = with_tested(adata.obs, table, formula, contrast.column)
    given = Labels(labels.given.batch, table)
    metadata, design = Metadata.fit_transform(adata.n_obs, given, formula=formula)
    sums = design_sums(design)
    found = design_findings(sums, metadata)
    tables, ranges = _tables(design.codes, table, metadata)
    found += ranges
    batches = pd.DataFrame({"samples": sums.n.astype(int)}, index=_names(metadata))
    variance = None
    if adata.X is not None or layer is not None:
        x = matrices.get_matrix(adata, layer)
        data = audit_values(x, design, adata.var_names)
        variance = data.variance
        found += data.findings
        for name, values in data.by_batch.items():
            batches[name] = values
    predicted: list[Prediction] = []
    if contrast is not None and not any(f.level == "blocks" for f in found):
        predicted = predict(sums, metadata, contrast, variance=variance, alpha=alpha)
        found += prediction_findings(predicted, contrast.column, alpha)
    return Audit(
        tuple(sorted(found, key=lambda f: LEVELS.index(f.level))),
        tables,
        _associations(sums, metadata),
        _worst(predicted),
        batches,
        alpha,
    )


def _names(metadata: Metadata) -> pd.Index:
    return pd.Index([str(level) for level in metadata.levels], name="batch")


def _associations(sums: DesignSums, metadata: Metadata) -> pd.Series:
    """The association of every covariate with batch."""
    products = ColumnProducts.of(sums.n, sums.columns, sums.gram)
    strengths = associations(products, metadata.terms[: metadata.kept])
    return pd.Series(strengths, name="association", dtype=float)


def _tables(
    codes: np.ndarray[Any, np.dtype[np.int32]], table: object, metadata: Metadata
) -> tuple[dict[str, pd.DataFrame], list[Finding]]:
    """Each covariate by batch, and the numbers whose ranges lie apart."""
    tables: dict[str, pd.DataFrame] = {}
    found: list[Finding] = []
    if not isinstance(table, pd.DataFrame):
        return tables, found
    names = _names(metadata)
    batch = pd.Series(pd.Categorical.from_codes(codes, names), name="batch")
    numbers = {v.column for v in metadata.covariates.variables if v.levels is None}
    for variable in metadata.covariates.variables:
        values = pd.Series(table[variable.column].to_numpy())
        if variable.column not in numbers:
            counts = pd.crosstab(batch, values.astype(str)).set_axis(names)
            tables[variable.column] = counts.rename_axis(columns=variable.column)
            continue
        ranges = (
            values.astype(float)
            .groupby(batch, observed=True)
            .agg(["min", "median", "max"])
        )
        ranges = ranges.set_axis(names)
        tables[variable.column] = ranges
        lonely = _apart(ranges)
        if lonely:
            found.append(apart(variable.column, lonely))
    return tables, found


def _apart(ranges: pd.DataFrame) -> list[str]:
    """Batches whose range does not touch that of any other."""
    low, high = ranges["min"].to_numpy(), ranges["max"].to_numpy()
    touching = (low[:, None] <= high) & (low <= high[:, None])
    alone = touching.sum(axis=1) == 1
    return [repr(name) for name in ranges.index[alone]] if len(ranges) > 1 else []


def _worst(predicted: list[Prediction]) -> pd.DataFrame:
    """One row per analysis: of several levels the one with the highest rates."""
    columns = ["false_positive_rate", "effect_kept"]
    if not predicted:
        return pd.DataFrame(columns=columns, index=pd.Index([], name="analysis"))
    levels = list(dict.fromkeys(p.level for p in predicted))
    worst = max(
        levels,
        key=lambda level: max(
            p.false_positive_rate for p in predicted if p.level == level
        ),
    )
    rows = {p.analysis: p for p in predicted if p.level == worst}
    found = pd.DataFrame(
        {
            name: [getattr(rows[analysis], name) for analysis in ANALYSES]
            for name in columns
        },
        index=pd.Index(ANALYSES, name="analysis"),
    )
    if len(levels) > 1:
        found["level"] = worst
    return found
