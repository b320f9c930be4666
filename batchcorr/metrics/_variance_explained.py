r"""How much of the variance batch explains, and how much the biology: before and after.

Three linear models of each feature, by their residual squares about

    T   one mean             B   a mean for each batch
    C   covariates           F   both: x = α_b + z β

and each share is an adjusted R², 1 - (RSS_full / df_full) / (RSS_part / df_part), the
mean over features: B against T, F against B, and F against C.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from batchcorr._anndata import matrices
from batchcorr._anndata.labels import read_labels
from batchcorr.errors import DesignError, InputError
from batchcorr.estimators.checks import drop_redundant
from batchcorr.estimators.inputs import check_order
from batchcorr.estimators.matrix import as_matrix
from batchcorr.estimators.metadata import Labels
from batchcorr.estimators.problem import Problem
from batchcorr.models.linear_model import LinearFit

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from batchcorr.models.moments import Moments

    Floats = NDArray[np.float64]

__all__ = [
    "FeatureShares",
    "VarianceShare",
    "feature_shares",
    "shares_of",
    "variance_explained",
]

CONSTANT = 1e-12
"""Share of a feature's squares under which what is left of it is rounding error."""


@dataclass(frozen=True)
class VarianceShare:
    """Shares of variance explained: means over features of adjusted R².

    R² is adjusted for the number of levels: without an effect the expected share is 0,
    and shares can be negative; they are not clipped.

    Parameters
    ----------
    batch
        Share explained by batch alone.
    covariates
        Share of the variance within batches explained by the covariates; 0 without
        covariates.
    batch_beyond_covariates
        Share of the variance left by the covariates that batch explains; the same as
        `batch` without covariates.
    n_features
        Number of features that vary; the means are over these.

    Examples
    --------
    >>> VarianceShare(0.3, 0.1, 0.25, 2000).covariates
    0.1
    """

    batch: float
    covariates: float
    batch_beyond_covariates: float
    n_features: int


def variance_explained(
    data: object, batch: object, *, covariates: object = None, layer: str | None = None
) -> VarianceShare:
    r"""Return the shares of variance that batch and covariates explain.

    .. math:: R^2 = 1 - \frac{RSS_{full} / df_{full}}{RSS_{part} / df_{part}}

    Parameters
    ----------
    data
        AnnData, or a matrix of samples × features with NaN for missing values.
    batch
        Column of `obs` with the batch; for a matrix, the batch of each sample: (n,).
    covariates
        What explains variance besides batch, as in `pp.combat`: columns of `obs`, a
        formula, a DataFrame, or a 2-D array of design columns. For a matrix: a
        DataFrame or array.
    layer
        Layer of the AnnData; None: X.

    Returns
    -------
    A `VarianceShare`: of batch alone, covariates within batches, batch beyond
    covariates.

    Raises
    ------
    MissingKeyError
        If a column or layer does not exist.
    DesignError
        If covariates are confounded with batch, there is only one batch, or too few
        samples to estimate variances.
    InputError
        If no feature varies, or values are infinite or not numbers.

    Notes
    -----
    One read of the matrix and no copy. All features have the same weight, however much
    they vary; constant features are left out. After a correction the share of batch is
    often slightly negative: batch means then agree better than expected by chance.

    Examples
    --------
    >>> import batchcorr as bc
    >>> adata = bc.datasets.bladder()
    >>> bc.pp.remove_batch_effect(adata, "batch", key_added="centred")
    >>> for layer in (None, "centred"):
    ...     share = bc.metrics.variance_explained(
    ...         adata, "batch", covariates="cancer", layer=layer
    ...     )
    ...     round(share.batch, 2), round(share.batch_beyond_covariates, 2)
    (0.15, 0.16)
    (-0.08, 0.08)

    The batch means agree now, but they should not: the batches differ in cancer.
    """
    return feature_shares(data, batch, covariates=covariates, layer=layer).mean()


class FeatureShares(NamedTuple):
    """The shares of each feature: (G,), NaN where there is nothing to explain."""

    batch: Floats
    covariates: Floats
    batch_beyond_covariates: Floats

    def mean(self) -> VarianceShare:
        """The means over features."""
        return VarianceShare(
            batch=_mean(self.batch),
            covariates=_mean(self.covariates),
            batch_beyond_covariates=_mean(self.batch_beyond_covariates),
            n_features=int(np.isfinite(self.batch).sum()),
        )


def feature_shares(
    data: object, batch: object, *, covariates: object = None, layer: str | None = None
) -> FeatureShares:
    """The shares of variance of each feature, from what `variance_explained` takes."""
    formula = None
    if hasattr(data, "obs"):
        adata = matrices.require_adata(data)
        if not isinstance(batch, str):
            msg = (
                f"batch must be the name of one column of adata.obs, not {batch!r:.60}."
            )
            raise InputError(msg)
        data = matrices.get_matrix(adata, layer)
        labels = read_labels(adata, batch, covariates, None)
        batch, covariates, formula = (
            labels.given.batch,
            labels.given.covariates,
            labels.formula,
        )
    elif layer is not None:
        msg = f"A {type(data).__name__} has no layers: layer= is for an AnnData."
        raise InputError(msg)
    check_order(data, batch=batch, covariates=covariates)
    x = as_matrix(data)
    problem = Problem.of(x, Labels(batch, covariates), formula=formula)
    if problem.metadata.n_batches < 2:
        msg = (
            f"There is only one batch, {problem.metadata.levels[0]!r}, so that it "
            "explains no variance. Check that this is the right column."
        )
        raise DesignError(msg)
    drop_redundant(problem)
    return shares_of(problem.moments)


def _mean(shares: Floats) -> float:
    """The mean of what is known, NaN where nothing is."""
    known = shares[np.isfinite(shares)]
    return float(np.mean(known)) if known.size else float("nan")


def shares_of(sums: Moments) -> FeatureShares:
    """Compare the four models by their residual squares, feature by feature.

    Raises
    ------
    DesignError, InputError
        If there is nothing to explain, or nothing to estimate variance from.
    """
    whole = sums.collapse([0] * sums.n_batches, 1)
    total = whole.squares[0]
    models = {"T": (whole, False), "B": (sums, False)}
    models |= {"C": (whole, True), "F": (sums, True)}
    squares, spare, usable = {}, {}, total > 0
    for name, (part, full) in models.items():
        columns = list(range(part.n_columns)) if full else []
        squares[name], spare[name], solved = _residuals(part.select(columns))
        usable &= solved & (spare[name] > 0)
    if not usable.any():
        msg = (
            "No feature varies, or there are too few samples to estimate variances "
            f"with {sums.n_batches} batches and {sums.n_columns} covariate columns."
        )
        raise DesignError(msg) if (total > 0).any() else InputError(msg)

    def share(full: str, part: str) -> Floats:
        pick = usable & (squares[part] > CONSTANT * total)
        ratio = np.full(len(total), np.nan)
        np.divide(squares[full], squares[part], where=pick, out=ratio)
        return 1 - ratio * (spare[part] / np.where(pick, spare[full], 1))

    return FeatureShares(share("B", "T"), share("F", "B"), share("F", "C"))


def _residuals(sums: Moments) -> tuple[Floats, Floats, NDArray[np.bool_]]:
    """RSS and its degrees of freedom, and whether the feature is estimable."""
    fit = LinearFit.of(sums)
    spare = np.broadcast_to(fit.df, (sums.n_features,))
    return fit.residual_squares.sum(axis=0), spare, fit.solved
