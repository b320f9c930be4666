"""The false positive rate of a correction followed by a test, on permuted data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy.special import stdtrit

from batchcorr._anndata import matrices, records
from batchcorr._anndata.fit import make_estimator
from batchcorr._anndata.labels import check_batch_key, read_labels
from batchcorr.errors import silenced
from batchcorr.estimators import checks
from batchcorr.estimators.contrast_weights import weights_of
from batchcorr.estimators.contrasts import read_contrast, with_tested
from batchcorr.estimators.location_scale import fits_moments
from batchcorr.estimators.matrix import as_matrix
from batchcorr.estimators.metadata import Labels
from batchcorr.estimators.null_calibration import affine, null_rates
from batchcorr.estimators.null_corrections import whole_run
from batchcorr.estimators.options import check_rate, check_whole
from batchcorr.estimators.problem import Problem
from batchcorr.estimators.raw_counts import raw_counts
from batchcorr.estimators.scale import warn_if_unlogged
from batchcorr.estimators.voom import Voom
from batchcorr.methods import get
from batchcorr.tl._audit import audit
from batchcorr.tl._calibration import ONE_STEP, NullCalibration

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["null_calibration"]


def null_calibration(
    adata: AnnData,
    batch_key: str,
    test: object,
    *,
    method: str = "combat",
    covariates: object = None,
    layer: str | None = None,
    n_permutations: int = 50,
    alpha: float = 0.05,
    equal_variances: bool = True,
    random_state: int = 0,
    **parameters: object,
) -> NullCalibration:
    r"""Measure the false positive rate of correcting and then testing, by permutation.

    The effects of the tested column and of the covariates are removed from the data,
    and their rows are permuted within batches,

    .. math:: x_i - z_i β = α_{b(i)} + ε_i, \qquad z'_i = z_{π(i)},

    so that batches and their variances are those of the data, and z' has no effect. For
    each permutation the method corrects with z' kept, and z' is tested by an ordinary t
    test (several levels also by an F test) without batch; for comparison, the one-step
    test with batch in the model is made as well.

    Parameters
    ----------
    adata
        Samples × features, on a log scale and not corrected.
    batch_key
        Column of `obs` with the batch.
    test
        What will be tested, as in `differential`: a column of `obs`, or a contrast of
        its levels such as ``"group:ill-well"``.
    method
        Name of the correction method: see ``batchcorr methods``. For combat_seq the
        values are counts, and their logarithms are tested. ``"one_step"``: no
        correction, only the one-step test.
    covariates
        Other covariates, kept and in the test: columns of `obs`, a formula, or a
        DataFrame. They are permuted together with the tested column.
    layer
        Layer to read; None: X.
    n_permutations
        Number of permutations; fewer if there are not so many.
    alpha
        Significance level: the nominal false positive rate.
    equal_variances
        False: in the one-step test every batch has its own variance.
    random_state
        Seed of the permutations.
    **parameters
        Parameters of the method's estimator.

    Returns
    -------
    A `NullCalibration` with ``rates``, ``flagged``, ``by_permutation`` and
    ``to_dict()``. It prints as text and displays in notebooks.

    Raises
    ------
    InputError
        If the method has no such parameter, or `test` is not a column or contrast.
    DesignError
        If the tested column is confounded with batch, or there are fewer than 21
        different permutations within batches.
    MissingKeyError
        If a column, layer or method does not exist.

    Warns
    -----
    CountsWarning
        If the values are not on a log scale.
    RepeatWarning
        If the values were corrected before.

    Notes
    -----
    One read of the matrix per permutation. For location-scale methods (combat,
    standardize, remove_batch_effect) corrected values are never formed, so that memory
    is O(B p G). Other methods run once per permutation, and make dense copies. Counts
    are permuted without removing the effects of the tested column, which are then part
    of their noise. The interval is that of the mean over permutations of these samples;
    correlated features make it wider. Samples must be independent: cells of one person
    are not.

    References
    ----------
    Nygaard, Rødland & Hovig (2016), Biostatistics 17:29-39. Freedman & Lane (1983),
    J. Bus. Econ. Stat. 1:292-298.

    Examples
    --------
    >>> import batchcorr as bc
    >>> adata = bc.datasets.bladder()[:, :500].copy()
    >>> result = bc.tl.null_calibration(adata, "batch", "cancer", n_permutations=20)
    >>> result.flagged
    True
    >>> bool(result.rates.loc["one_step", "false_positive_rate"] < 0.07)
    True
    """
    matrices.require_adata(adata)
    _check(batch_key, n_permutations, alpha, random_state)
    contrast = read_contrast(test, adata.obs)
    labels = read_labels(adata, batch_key, covariates, None)
    table, formula = with_tested(
        adata.obs, labels.given.covariates, labels.formula, contrast.column
    )
    known = Labels(labels.given.batch, table)
    estimator = None
    if method == "quantile_normalize":
        estimator = get(method)(**parameters)
    elif method != ONE_STEP:
        estimator = make_estimator(method, parameters, formula)
    of_counts = estimator is not None and estimator.record.scale == "counts"
    given = matrices.get_matrix(adata, layer)
    records.warn_if_repeated(records.steps_of(adata, layer, given), layer, kept=True)
    counts = raw_counts(given) if of_counts else None
    x = as_matrix(given) if counts is None else Voom.of(counts).x
    if counts is None:
        warn_if_unlogged(x, method)
    problem = Problem.of(x, known, formula=formula)
    checks.drop_redundant(problem)
    names, contrasts = weights_of(problem.metadata, contrast)
    correct = None
    if estimator is not None and fits_moments(estimator):
        correct = affine(estimator, problem)
    elif estimator is not None:
        values = x if counts is None else counts
        correct = whole_run(estimator, values, known, problem)
    rates = null_rates(
        x,
        problem,
        contrasts,
        correct,
        n_permutations=n_permutations,
        alpha=alpha,
        equal_variances=equal_variances,
        random=np.random.default_rng(random_state),
        effects=not of_counts,
    )
    with silenced():
        looked_at = AnnData(obs=adata.obs) if of_counts else adata
        predicted = audit(
            looked_at,
            batch_key,
            covariates=covariates,
            test=test,
            alpha=alpha,
            layer=None if of_counts else layer,
        ).predicted
    told = rates.one_step if rates.corrected is None else rates.corrected
    worst = int(told.mean(axis=0).argmax())
    ways = {ONE_STEP: rates.one_step}
    if rates.corrected is not None:
        ways = {method: rates.corrected} | ways
    each = {way: values[:, worst] for way, values in ways.items()}
    found = pd.DataFrame(
        [_interval(values) for values in each.values()],
        columns=["false_positive_rate", "low", "high"],
        index=pd.Index(each, name="analysis"),
    )
    found["predicted"] = predicted["false_positive_rate"].reindex(found.index)
    levels = pd.DataFrame(
        {way: values.mean(axis=0) for way, values in ways.items()},
        index=[*names, "any"][: told.shape[1]],
    )
    return NullCalibration(
        method,
        test,
        found,
        pd.DataFrame(each),
        float(alpha),
        levels if len(names) > 1 else pd.DataFrame(),
    )


def _check(batch_key: Any, n_permutations: Any, alpha: Any, random_state: Any) -> None:
    """Refuse what is not of the right kind."""
    check_batch_key(batch_key)
    check_whole("n_permutations", n_permutations, 2)
    check_whole("random_state", random_state, 0, np.inf)
    check_rate(alpha)


def _interval(rates: NDArray[np.float64]) -> tuple[float, float, float]:
    """The mean over permutations and its 95 % interval."""
    mean, n = rates.mean(), len(rates)
    reach = stdtrit(n - 1, 0.975) * rates.std(ddof=1) / np.sqrt(n)
    return float(mean), float(max(mean - reach, 0)), float(min(mean + reach, 1))
