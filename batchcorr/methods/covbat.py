r"""CovBat: ComBat, then a correction of covariances by principal components.

    A = (x - α̂ - z β̂ corrected by ComBat),      s = A / d  V
    y = α̂ + z β̂ + A + (r_b s + t_b - s) (V d)ᵀ

with d the features' deviations, V the first components of A / d, and r, t such that every
score has one mean and one variance in all batches: an affine map and one of low rank.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from batchcorr._files.expected import Expected
from batchcorr._files.npz import shape_of, take
from batchcorr.arrays import moments
from batchcorr.arrays.sample_products import in_memory
from batchcorr.design.design import Design
from batchcorr.errors import InputError
from batchcorr.estimators.fitted import part_of
from batchcorr.estimators.matrix import as_matrix
from batchcorr.estimators.options import check_whole
from batchcorr.estimators.record import MethodRecord
from batchcorr.methods.combat import ComBat
from batchcorr.models.linear_model import PERFECT
from batchcorr.models.low_rank import LowRank, principal_components
from batchcorr.models.namespace import asarray_like, is_foreign

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from batchcorr.estimators.metadata import Labels
    from batchcorr.models.namespace import Matrix

__all__ = ["CovBat"]


class CovBat(ComBat):
    r"""Empirical Bayes correction of means, variances and covariances (CovBat).

    .. math:: y = y^{ComBat} + (r_b s + t_b - s)(V d)^\top, \qquad
        s = (y^{ComBat} - α̂ - z β̂) / d \; V

    After `ComBat`, the scores of the first principal components are given the same mean
    and variance in all batches, so that covariances of features are similar in all
    batches.

    Parameters
    ----------
    n_components
        Number of components; None: as many as explain more than `explained`.
    explained
        Share of the variance that the components must explain.
    scale_features
        Scale features to variance 1 before computing components.
    parametric, mean_only, shrink
        As in `ComBat`, which is the first step.
    formula
        Formula over the columns of the covariates to keep; None: all columns, as main
        effects.
    batch_column, covariate_columns
        Columns of the DataFrame X with batch and covariates, which are then dropped
        from X; for callers that can pass X only.
    copy
        False: `transform` may overwrite X.

    Attributes
    ----------
    low_rank_ : LowRank
        V, a, d, and r and t by batch and score.
    correction_ : LocationScale
        The affine maps of the ComBat step, (B, G).
    aim_, details_, batches_
        As in `ComBat`, which is the first step.

    Raises
    ------
    DesignError
        As `ComBat`.
    InputError
        Missing values, or `n_components` larger than the number of components.

    Warns
    -----
    AssociationWarning, BatchSizeWarning, ConvergenceWarning, CountsWarning

    Notes
    -----
    `fit` keeps the corrected matrix in memory, and n² or G² products, whichever is
    fewer; `transform` corrects each sample by itself, Dask arrays lazily. There is no
    `partial_fit` and no `add_batches`. Scores are not shrunk over components
    (``score.eb`` in R): the result would depend on the signs of components, which are
    arbitrary. In small batches variances of scores are imprecise: use few components.
    Not for tests.

    References
    ----------
    Chen et al. (2022), Human Brain Mapping 43:1179-1195; R package CovBat.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> batch = np.repeat(["a", "b"], 100)
    >>> x = rng.normal(size=(200, 10))
    >>> x[:100] += rng.normal(size=(100, 1))  # features are correlated in one batch
    >>> y = CovBat().fit_transform(x, batch=batch)
    >>> before, after = (
    ...     abs(np.corrcoef(z[:100].T) - np.corrcoef(z[100:].T)).mean() for z in (x, y)
    ... )
    >>> bool(after < before / 2)
    True
    """

    record: ClassVar = MethodRecord("covbat", takes=frozenset({"batch", "covariates"}))

    low_rank_: LowRank | None = None

    def __init__(
        self,
        *,
        n_components: int | None = None,
        explained: float = 0.95,
        scale_features: bool = True,
        parametric: bool = True,
        mean_only: bool = False,
        shrink: bool = True,
        formula: str | None = None,
        batch_column: str | None = None,
        covariate_columns: list[str] | None = None,
        copy: bool = True,
    ) -> None:
        super().__init__(
            parametric=parametric,
            mean_only=mean_only,
            shrink=shrink,
            formula=formula,
            batch_column=batch_column,
            covariate_columns=covariate_columns,
            copy=copy,
        )
        self.n_components = n_components
        self.explained = explained
        self.scale_features = scale_features

    @classmethod
    def _get_param_names(cls) -> list[str]:
        return sorted(set(super()._get_param_names()) - {"reference", "cross"})

    def _check_parameters(self) -> None:
        super()._check_parameters()
        if not 0 < self.explained < 1:
            msg = f"explained must be a share between 0 and 1, not {self.explained!r}."
            raise InputError(msg)
        if self.n_components is not None:
            check_whole("n_components", self.n_components, 1)

    def _fit_labels(self, X: object, labels: Labels, weights: object) -> Labels:
        self.low_rank_ = None
        read = super()._fit_labels(X, labels, weights)
        corrected = in_memory(super()._map(self.correction_, X, read))
        design = self.design_of(len(corrected), read)
        self.low_rank_ = self._fit_scores(corrected, design)
        return read

    def _fit_scores(self, corrected: NDArray[np.float64], design: Design) -> LowRank:
        """Components of the corrected residuals, and how each batch's scores change."""
        if not np.isfinite(corrected).all():
            msg = (
                "Values are missing, but principal components need complete samples: "
                "impute them, leave these features out, or use combat."
            )
            raise InputError(msg)
        aim, beta = self.aim_, self.correction_.coefficients
        left = corrected - aim.location - design.columns[:, : len(beta)] @ beta
        centre = left.mean(axis=0)
        left -= centre
        deviation = left.std(axis=0, ddof=1)
        part = aim.adjustable & (deviation > 0)
        deviation = np.where(part & self.scale_features, deviation, 1.0)
        squares, loadings = principal_components(left[:, part] / deviation[part])
        rotation = np.zeros((len(part), self._number(squares)))
        rotation[part] = loadings[:, : rotation.shape[1]]
        scale, shift = self._equal((left / deviation) @ rotation, design)
        return LowRank(rotation, aim.location + centre, deviation, scale, shift)

    def _equal(
        self, scores: NDArray[np.float64], design: Design
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The r and t, (B, k), that give scores one mean and one variance in all batches.

        As ComBat without shrinkage: batches that covariates explain, whose scores differ
        by rounding alone, are moved only, and all are if one has a single sample.
        """
        sums = moments(scores, Design.of(design.codes, design.n_batches))
        n = sums.n.sum()
        aim, common = (sums.n * sums.mean).sum(axis=0) / n, sums.squares.sum(axis=0) / n
        own = sums.squares / np.maximum(sums.n - 1, 1)
        delta = self.details_["delta_hat"][:, self.aim_.adjustable]
        scaled = ~np.isnan(delta).all(axis=1, keepdims=True) & (sums.n > 1).all()
        scaled = scaled & (own > PERFECT * common)
        scale = np.sqrt(np.divide(common, own, out=np.ones_like(own), where=scaled))
        return scale, aim - scale * sums.mean

    def _number(self, squares: NDArray[np.float64]) -> int:
        """How many components, of those there are."""
        if self.n_components is None:
            share = np.cumsum(squares) / squares.sum()
            return int((share <= self.explained).sum()) + 1
        if self.n_components > len(squares):
            msg = (
                f"n_components={self.n_components} is more than the {len(squares)} "
                "components that exist for these samples."
            )
            raise InputError(msg)
        return self.n_components

    def _labels(self, X: object, labels: Labels) -> Labels:
        samples = self._samples(X, labels.batch, labels.covariates)
        return labels._replace(batch=samples.batch, covariates=samples.covariates)

    def _apply(
        self, x: object, labels: Labels, out: object, *, dense: bool | None
    ) -> Matrix:
        corrected = super()._apply(x, labels, None, dense=dense)
        moved = self._with_scores(self._fitted_low_rank(), corrected, x, labels)
        in_place = corrected is x
        if not in_place:
            return moved
        corrected[:] = moved
        return corrected

    def _invert(self, x: object, labels: Labels) -> Matrix:
        features = self._samples(x, labels.batch, labels.covariates).features
        inverse = self._fitted_low_rank().inverse()
        before = self._with_scores(inverse, as_matrix(features), x, labels)
        return super()._invert(before, self._labels(x, labels))

    def _with_scores(
        self, low_rank: LowRank, corrected: Matrix, x: Matrix, labels: Labels
    ) -> Matrix:
        """Corrected values with their scores changed, of the same kind and dtype."""
        beta = self.correction_.coefficients
        design = self.design_of(corrected.shape[0], self._labels(x, labels))
        values = in_memory(corrected) if is_foreign(corrected) else corrected
        scores = low_rank.scores(values, design.columns[:, : len(beta)], beta)
        moved = low_rank.moved(scores, design.codes)
        if is_foreign(corrected):
            return corrected + asarray_like(corrected, moved, corrected.dtype)
        return corrected + moved.astype(corrected.dtype)

    @property
    def needs_covariates_(self) -> bool:
        """Covariates are needed wherever some were kept: scores are without them."""
        return len(self.correction_.coefficients) > 0

    def _fitted_low_rank(self) -> LowRank:
        self._require_fitted()
        assert self.low_rank_ is not None
        return self.low_rank_

    def _state(self) -> tuple[dict[str, object], Mapping[str, NDArray[np.generic]]]:
        plain, arrays = super()._state()
        own = vars(self._fitted_low_rank())
        return plain, {**arrays, **{f"low_rank.{name}": own[name] for name in own}}

    def _set_state(
        self, plain: Mapping[str, object], arrays: Mapping[str, NDArray[np.generic]]
    ) -> None:
        super()._set_state(plain, arrays)
        b, g = len(self.batches_), self.n_features_
        k = (*shape_of(arrays, "low_rank.rotation"), 0)[1]
        expected = {
            "low_rank.rotation": Expected((g, k)),
            "low_rank.centre": Expected((g,)),
            "low_rank.deviation": Expected((g,), positive=True),
            "low_rank.scale": Expected((b, k), positive=True),
            "low_rank.shift": Expected((b, k)),
        }
        self.low_rank_ = LowRank(**part_of(take(arrays, expected), "low_rank"))

    def _summary(self) -> dict[str, object]:
        count = self._fitted_low_rank().rotation.shape[1]
        return super()._summary() | {"components": int(count)}
