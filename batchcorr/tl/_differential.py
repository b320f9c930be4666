"""The test of uncorrected values, batch in the model, on AnnData."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from batchcorr._anndata import matrices, records
from batchcorr._anndata.columns import column_of
from batchcorr._anndata.labels import read_labels
from batchcorr._anndata.origins import copied_from
from batchcorr.errors import InputError
from batchcorr.estimators.contrast_weights import compared
from batchcorr.estimators.contrasts import read_contrast, with_tested
from batchcorr.estimators.differential import differential_table
from batchcorr.estimators.least_squares import LeastSquares
from batchcorr.estimators.matrix import as_matrix
from batchcorr.estimators.metadata import Labels
from batchcorr.estimators.problem import Problem
from batchcorr.estimators.voom import Voom
from batchcorr.estimators.within_subjects import Subjects
from batchcorr.tl._ranked import as_ranked
from batchcorr.tl._test_input import (
    expressed,
    read_weights,
    refuse_corrected,
    warn_of_counts,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from anndata import AnnData
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

__all__ = ["differential"]


def differential(
    adata: AnnData,
    batch_key: str | Sequence[str] | None,
    test: object,
    *,
    covariates: object = None,
    nuisance: object = None,
    layer: str | None = None,
    trend: bool = False,
    robust: bool = False,
    weights: object = None,
    equal_variances: bool = True,
    subject: str | None = None,
    voom: bool | str = False,
    min_count: float | None = None,
    key_added: str | None = None,
) -> pd.DataFrame:
    r"""Test uncorrected values for differences between groups, with batch in the model.

    .. math::
        x_{ig} = α_{b(i),g} + z_i β_g + ε_{ig}, \qquad
        t = \frac{c\,β_g}{\sqrt{\tilde s_g^2 \; c V c^\top}}, \qquad
        \tilde s_g^2 = \frac{d_0 s_0^2 + d s_g^2}{d_0 + d}

    One linear model has batch and group, so that the uncertainty of the batch effects
    enters the test, unlike in a test of corrected values. Variances are moderated over
    features (moderated t).

    Parameters
    ----------
    adata
        Samples × features, on a log scale and not corrected; dense, sparse, Dask or GPU
        arrays.
    batch_key
        Column of `obs` with the batch, or several columns; None: there are no batches.
    test
        What is tested. A column of `obs`: two levels are compared by a t test, more
        levels by an F test and by t tests of each level against the first; for numbers
        the slope is tested. Or two levels, ``"column:level-reference"`` or
        ``(column, level, reference)``; or ``(column, {level: weight, …})`` with weights
        that sum to 0.
    covariates, nuisance
        Other variables in the model: columns of `obs`, DataFrames, or for `covariates`
        a formula. The test treats both in the same way.
    layer
        Layer to test; None: X.
    trend
        Let the prior variance depend on the mean of the feature (limma-trend); for
        logarithms of counts.
    robust
        Robust empirical Bayes: limit the influence of features with outlying variances.
    weights
        Weights of samples, (n,), or the column of `obs` with them; or of single values,
        (n, G), or the layer with them. Weight 0 leaves a sample or value out.
    equal_variances
        False: every batch has its own variance, estimated by restricted maximum
        likelihood (REML) over all features.
    subject
        Column of `obs` with the subject (person) of each sample: the correlation of
        samples of one subject, the same for all features, enters the model
        (duplicateCorrelation).
    voom
        The values are raw counts of bulk samples: take log2 counts per million, and
        weight every value by its precision. True: use total counts as library sizes;
        ``"tmm"`` or another method of `normalization_factors`: multiply them by these
        factors.
    min_count
        With `voom`: test only features with this many counts (scaled to the median
        library size) in as many samples as the smallest level of the tested column has,
        and 1.5 times as many in total (10: edgeR's filterByExpr). Others are NaN; they
        are not used for the trend or the adjustment of p-values.
    key_added
        Also write the result to ``adata.uns[key_added]`` in the layout of scanpy's
        `rank_genes_groups`, for ``sc.get.rank_genes_groups_df``: groups are levels; a
        slope is named by its column.

    Returns
    -------
    A DataFrame, one row per feature, in the order of `adata`. With one contrast:
    ``coefficient`` (in units of X; also ``log2_fold_change`` if the base of the
    logarithms is recorded), ``mean``, ``standard_error``, ``ci_low`` and ``ci_high``
    (95 %), ``t``, ``p_value`` and ``p_adjusted`` (Benjamini & Hochberg). With more
    levels ``f`` with its ``p_value`` and ``p_adjusted``, and the other columns by
    level, ``coefficient[level]``. NaN: a feature with too few values for the contrast,
    without variation within batches, without counts, or with fewer than `min_count`;
    p-values are not adjusted for these. The ``columns.name``, printed above the
    features, says what a positive coefficient means: ``treated − control`` (also in
    ``attrs["contrast"]``). With `subject`, ``attrs["subject_correlation"]`` is the
    correlation within subjects.

    Raises
    ------
    InputError
        If the values were corrected according to their record: p-values would be too
        small.
    DesignError
        If the tested column is confounded with batch, or every subject has only one
        sample.
    TooLargeError
        If the sums of all subjects would not fit into memory.
    MissingKeyError
        If a column or layer does not exist.

    Warns
    -----
    CountsWarning
        If the values look like counts: take logarithms, or use `voom` or PyDESeq2.
    RepeatWarning
        If the values look corrected, without a record of it: in nearly every feature
        batch explains less variance than expected by chance.
    BatchSizeWarning
        If a batch is small.

    Notes
    -----
    One read of the matrix (two with weights, missing values, `subject` or `voom`), O(B
    p G) memory; `subject` adds O(subjects G). Equal to limma's `lmFit` and `eBayes`
    with batch in the design. Options can be combined: `voom` with
    `equal_variances=False` gives quality weights by batch (voomWithQualityWeights, by
    REML), `voom` with `subject` runs both twice, and `weights` are multiplied with
    other weights; `subject` with weights of single values fits feature by feature (2 s
    per thousand features, with `voom` 4 s). Samples must be independent except within
    `subject`. Cells of one person are not: sum counts per person first (pseudobulk).

    References
    ----------
    Smyth (2004), Stat. Appl. Genet. Mol. Biol. 3:3; Phipson et al. (2016), Ann. Appl.
    Stat. 10:946; Law et al. (2014), Genome Biol. 15:R29. Nygaard, Rødland & Hovig
    (2016), Biostatistics 17:29, on tests of corrected values.

    Examples
    --------
    >>> import warnings, batchcorr as bc
    >>> adata = bc.datasets.bladder()
    >>> with warnings.catch_warnings(action="ignore"):  # cancer differs by batch
    ...     table = bc.tl.differential(adata, "batch", ("cancer", "Cancer", "Normal"))
    >>> int((table["p_adjusted"] < 0.05).sum()) > 500
    True
    """
    matrices.require_adata(adata)
    records.require_name(key_added, in_uns=True)
    contrast = read_contrast(test, adata.obs)
    given = matrices.get_matrix(adata, layer)
    if 0 in given.shape:
        msg = f"There is nothing to test: {given.shape[0]} samples × {given.shape[1]} features."
        raise InputError(msg)
    steps = records.steps_of(adata, layer, given) or copied_from(adata, given)
    refuse_corrected(steps, layer)
    labels = read_labels(adata, batch_key, covariates, nuisance, needed=False)
    table, formula = with_tested(
        adata.obs, labels.given.covariates, labels.formula, contrast.column
    )
    precise = Voom.of(given, "total" if voom is True else str(voom)) if voom else None
    known = read_weights(adata, weights)
    tested = None
    if min_count is not None:
        precise, tested = expressed(precise, min_count, adata.obs[contrast.column])
        known = known[:, tested] if known is not None and known.ndim == 2 else known
    x = precise.x if precise else as_matrix(given)
    if precise is None:
        warn_of_counts(x)
    used = None if known is None or (known > 0).all() else (known > 0) * 1.0
    who = None
    if subject is not None:
        who = Subjects.of(column_of(adata, subject, "subject"), x.shape)
    problem = Problem.of(
        x,
        Labels(labels.given.batch, table, labels.given.nuisance),
        formula=formula,
        weights=used,
    )
    result = differential_table(
        problem,
        contrast,
        list(map(str, adata.var_names[slice(None) if tested is None else tested])),
        method=LeastSquares(x, known, equal_variances, precise, who),
        trend=trend,
        robust=robust,
    )
    if tested is not None:
        result = _among(result, tested, adata.var_names)
    base = 2.0 if voom else steps[-1].get("log_base") if steps else None
    _add_fold_changes(result, base)
    if key_added is not None:
        groups, reference = compared(problem.metadata, contrast)
        about = {
            "groupby": contrast.column,
            "reference": reference or "rest",
            "layer": layer,
            "batch": batch_key,
            **{str(name): value for name, value in result.attrs.items()},
        }
        adata.uns[key_added] = as_ranked(result, groups, about)
    return result


def _among(
    result: pd.DataFrame, tested: NDArray[np.intp], names: pd.Index
) -> pd.DataFrame:
    """The table with a row for each feature: NaN for those that were not tested."""
    places = result.set_axis(tested, axis=0).reindex(range(len(names)))
    table = places.set_axis(list(map(str, names)), axis=0)
    table.attrs = result.attrs
    return table


def _add_fold_changes(table: pd.DataFrame, base: float | None) -> None:
    """Put log2 fold changes behind the coefficients, where the base is known."""
    if base is None:
        return
    for place, name in reversed([*enumerate(map(str, table.columns), start=1)]):
        if name.startswith("coefficient"):
            fold = name.replace("coefficient", "log2_fold_change", 1)
            table.insert(place, fold, table[name] * np.log2(base))
