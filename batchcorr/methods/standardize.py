r"""Per-batch standardization: all batches get the same mean and standard deviation.

    y = σ (x - α_b - z β) / σ_b + α + z β        r = σ / σ_b,   s = α - r α_b

with σ_b² = RSS_b / (n_b - 1). Pooled: α = Σ (n_b/n) α_b and σ² = Σ RSS_b / (n - B - p);
with a reference, α and σ are its own; "unit": α = 0, σ = 1. With one batch of unit
target and the variance divided by n this is batch normalization.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from batchcorr.errors import InputError
from batchcorr.estimators.checks import check_variance
from batchcorr.estimators.estimate import Adjustment, Aim, Fitted
from batchcorr.estimators.fit_warnings import warn_of_explained
from batchcorr.estimators.location_scale import LocationScaleMethod
from batchcorr.estimators.record import MethodRecord
from batchcorr.estimators.reference import check_reference, reference_code

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from batchcorr.estimators.metadata import Labels, Metadata
    from batchcorr.models.linear_model import LinearFit

__all__ = ["Standardize"]

TARGETS = ("pooled", "unit")

NOTHING_KEPT = (
    "target='unit' gives every batch mean 0 and standard deviation 1, so that effects "
    "of covariates or subjects cannot be kept: give none, or use target='pooled'."
)


class Standardize(LocationScaleMethod):
    r"""Give all batches the same mean and standard deviation, feature by feature.

    .. math:: y = σ \frac{x - α_b - zβ}{σ_b} + α + zβ

    Parameters
    ----------
    target
        ``"pooled"``: the mean of the batches, weighted by their numbers of samples, and
        the pooled residual standard deviation. ``"unit"``: mean 0 and standard
        deviation 1 (divisor n - 1) in every batch.
    center
        Correct the means.
    scale
        Correct the standard deviations.
    reference
        Reference batch: the other batches get its mean and standard deviation.
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
    correction_ : LocationScale
        The frozen affine maps, (B, G).
    aim_ : Aim
        α and σ.
    details_ : dict
        ``mean`` (with all covariates 0) and ``sd`` of each batch: (B, G).
    batches_ : tuple
        Labels of the batches.

    Raises
    ------
    DesignError
        Confounded covariates, missing labels, or too few samples to estimate variances.
    InputError
        Options that contradict each other.

    Notes
    -----
    There is no shrinkage: in small batches, random differences are removed as if they
    were batch effects; `ComBat` shrinks instead. Batches are assumed to have the same
    composition except for the covariates given. Features without variance in a batch
    are not scaled there; if the covariates fit every sample of a batch exactly, none
    is. With a single batch and the pooled target, values do not change.

    With ``subject=`` in `fit` residuals are deviations from each subject's predicted
    intercept. They are smaller in batches of subjects measured once; if only some
    batches are such, use ``scale=False``.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.array([[1.0], [2.0], [3.0], [10.0], [14.0], [18.0]])
    >>> Standardize(target="unit").fit_transform(x, batch=[1, 1, 1, 2, 2, 2]).T
    array([[-1.,  0.,  1., -1.,  0.,  1.]])
    """

    record: ClassVar = MethodRecord(
        "standardize", takes=frozenset({"batch", "covariates", "subject"}), streams=True
    )
    fewest_batches: ClassVar[int] = 1

    def __init__(
        self,
        *,
        target: str = "pooled",
        center: bool = True,
        scale: bool = True,
        reference: object = None,
        formula: str | None = None,
        batch_column: str | None = None,
        covariate_columns: list[str] | None = None,
        copy: bool = True,
    ) -> None:
        self.target = target
        self.center = center
        self.scale = scale
        self.reference = reference
        self.formula = formula
        self.batch_column = batch_column
        self.covariate_columns = covariate_columns
        self.copy = copy

    def _check_parameters(self) -> None:
        if self.target not in TARGETS:
            msg = f"target must be one of {TARGETS}, not {self.target!r}."
            raise InputError(msg)
        if self.target == "unit" and self.reference is not None:
            msg = (
                "target='unit' and reference= cannot be combined: leave one of them "
                "out."
            )
            raise InputError(msg)
        if not (self.center or self.scale):
            msg = "With center=False and scale=False there is nothing to do."
            raise InputError(msg)

    def _fit_labels(self, X: object, labels: Labels, weights: object) -> Labels:
        if labels.subject is not None and self.target == "unit":
            raise InputError(NOTHING_KEPT)
        return super()._fit_labels(X, labels, weights)

    def _aim(self, fit: LinearFit, metadata: Metadata) -> Aim:
        n_features = fit.n_features
        everywhere = np.ones(n_features, dtype=bool)
        if self.target == "unit":
            if metadata.kept:
                raise InputError(NOTHING_KEPT)
            return Aim(np.zeros(n_features), np.ones(n_features), everywhere)
        if self.reference is not None:
            b = reference_code(self.reference, metadata)
            if self.scale:
                check_reference(b, fit, metadata)
            return Aim(fit.intercepts[b], self._deviations(fit)[b], everywhere)
        weights = fit.rows / fit.rows.sum()
        spare = fit.n.sum(axis=0) - metadata.n_batches - fit.n_columns
        if self.scale:
            check_variance(fit)
        variance = fit.residual_squares.sum(axis=0) / np.maximum(spare, 1)
        location = (weights * fit.intercepts).sum(axis=0)
        return Aim(location, np.sqrt(variance), everywhere)

    def _adjust(
        self, fit: LinearFit, aim: Aim, metadata: Metadata, before: Fitted | None
    ) -> Adjustment:
        mean, sd = fit.intercepts, self._deviations(fit)
        scale = np.ones_like(mean)
        if self.scale:
            warn_of_explained(fit, metadata)
            known = (sd > 0) & (aim.scale > 0)
            scale = np.where(known, aim.scale / np.where(known, sd, 1.0), 1.0)
        location = aim.location if self.center else mean
        shift = location - scale * mean
        alone = self.target == "pooled" and metadata.n_batches == 1 and before is None
        if alone or (self.reference is not None and before is None):
            b = 0 if alone else reference_code(self.reference, metadata)
            scale[b], shift[b] = 1.0, 0.0
        return Adjustment(scale, shift, {"mean": mean, "sd": sd})

    @staticmethod
    def _deviations(fit: LinearFit) -> NDArray[np.float64]:
        """Return σ_b, 0 where a batch has one value: (B, G)."""
        variance = fit.residual_squares / np.maximum(fit.n - 1, 1)
        deviations: NDArray[np.float64] = np.sqrt(variance)
        return deviations
