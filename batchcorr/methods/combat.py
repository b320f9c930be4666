r"""ComBat: location and scale of each batch, shrunk by empirical Bayes over features.

    x = α + z β + γ_b + δ_b ε        y = (x - α̂ - z β̂ - σ̂ γ*_b) / δ*_b + α̂ + z β̂

with α̂, β̂, σ̂ of the linear model, and γ*, δ* the batch's standardized location and
scale, drawn towards those of the other features. As an affine map: r = 1/δ*,
s = α̂ - r (α̂ + σ̂ γ*).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from batchcorr.errors import BatchSizeWarning, InputError, warn
from batchcorr.estimators.checks import check_several, check_variance
from batchcorr.estimators.estimate import Adjustment, Aim, Fitted
from batchcorr.estimators.fit_warnings import warn_of_explained
from batchcorr.estimators.location_scale import LocationScaleMethod
from batchcorr.estimators.record import MethodRecord
from batchcorr.estimators.reference import check_reference, reference_code
from batchcorr.models.batch_posteriors import Effects, by_name
from batchcorr.models.linear_model import PERFECT

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from batchcorr.estimators.metadata import Metadata
    from batchcorr.models.linear_model import LinearFit

__all__ = ["ComBat"]


class ComBat(LocationScaleMethod):
    r"""Empirical Bayes correction of batch effects on mean and variance (ComBat).

    For sample i of batch b and feature g, with protected covariates z,

    .. math:: x_{ig} = α_g + z_i β_g + γ_{bg} + δ_{bg} ε_{ig}

    The location γ (mean) and scale δ (standard deviation) of each batch are estimated,
    shrunk towards priors fitted to all features of the batch, and removed; z β is kept.
    Agrees with ``sva::ComBat`` to rounding.

    Parameters
    ----------
    parametric
        True: normal and inverse-gamma priors. False: non-parametric priors, the
        empirical distribution of all other features, in O(B G²).
    mean_only
        Correct the location (mean) only, not the scale.
    shrink
        False: use each batch's own location and scale, as neuroCombat does with
        ``eb=False``. The pooled variance then has the divisor n, in `Standardize` n - B
        - p.
    reference
        Reference batch: it stays unchanged, and the other batches are adjusted to it.
    cross
        Use each combination of labels of several batch columns as a batch; each needs
        two samples.
    formula
        Formula over the columns of the covariates to keep, such as
        ``"~ cell_type + age"``; None: all columns, as main effects.
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
        α̂ and σ̂, and the features that are corrected.
    details_ : dict
        Estimates by batch and feature, (B, G): ``gamma_hat``, ``delta_hat``,
        ``gamma_star``, ``delta_star`` (delta are variances; NaN for features not
        corrected); by batch, (B,): ``gamma_bar``, ``t2``, ``a_prior``, ``b_prior``,
        ``rounds``, ``mean_only``. Without parametric priors also ``far``, (B, G):
        whether no other feature has a similar effect.
    batches_ : tuple
        Labels of the batches.

    Raises
    ------
    DesignError
        Fewer than two batches, confounded covariates, missing labels, or fewer than two
        features that can be corrected.

    Warns
    -----
    AssociationWarning, BatchSizeWarning, ConvergenceWarning, CountsWarning
    FeatureWarning
        Features that are constant in a batch; with ``parametric=False`` features whose
        batch effect resembles no other feature's, and is removed only in part
        (``far``).

    Notes
    -----
    Two passes over X, with O(B p G) additional memory. Features that are constant in a
    batch of two or more samples are left out and returned unchanged. If any batch has
    only one sample, the location alone is corrected, in all batches. If the covariates
    fit every sample of a batch exactly, its variances are unknown, and in this batch
    the location alone is corrected.

    With ``subject=`` in `fit` (longitudinal ComBat) residuals are deviations from each
    subject's predicted intercept, and σ̂² is their mean square ("MSR" in longCombat;
    its REML variance is larger and would inflate them). Residuals are smaller in
    batches of subjects measured once; if only some batches are such, use `mean_only`.

    Corrected values are for plots, clustering and prediction. Do not test them for
    differences between groups that are unbalanced over batches: p-values would be too
    small, because the test ignores that batch effects were estimated. Test the
    uncorrected values with batch in the model instead (`tl.differential`).

    References
    ----------
    Johnson, Li & Rabinovic (2007), Biostatistics 8:118-127; R package sva, `ComBat`.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> batch = np.repeat(["monday", "tuesday"], 20)
    >>> x = rng.normal(size=(40, 100))
    >>> x[batch == "tuesday"] += 2
    >>> y = ComBat().fit_transform(x, batch=batch)
    >>> bool(abs(y[:20].mean() - y[20:].mean()) < 0.05)
    True
    """

    record: ClassVar = MethodRecord(
        "combat",
        takes=frozenset({"batch", "covariates", "nuisance", "subject"}),
        streams=True,
    )

    def __init__(
        self,
        *,
        parametric: bool = True,
        mean_only: bool = False,
        shrink: bool = True,
        reference: object = None,
        cross: bool = False,
        formula: str | None = None,
        batch_column: str | None = None,
        covariate_columns: list[str] | None = None,
        copy: bool = True,
    ) -> None:
        self.parametric = parametric
        self.mean_only = mean_only
        self.shrink = shrink
        self.reference = reference
        self.cross = cross
        self.formula = formula
        self.batch_column = batch_column
        self.covariate_columns = covariate_columns
        self.copy = copy

    def _check_parameters(self) -> None:
        if not self.shrink and not self.parametric:
            msg = (
                "parametric=False and shrink=False cannot be combined, as there is no "
                "prior without shrinkage: leave one of them out."
            )
            raise InputError(msg)

    def _summary(self) -> dict[str, object]:
        summary, far = super()._summary(), self.details_.get("far")
        if far is not None:
            summary["features_partly_corrected"] = int(far.any(axis=0).sum())
        return summary

    def _aim(self, fit: LinearFit, metadata: Metadata) -> Aim:
        check_variance(fit)
        squares, observed = fit.residual_squares, fit.n
        location = (fit.rows / fit.rows.sum() * fit.intercepts).sum(axis=0)
        if self.reference is not None:
            reference = reference_code(self.reference, metadata)
            check_reference(reference, fit, metadata)
            location = fit.intercepts[reference]
            squares, observed = squares[[reference]], observed[[reference]]
        adjustable = self._varying(fit)
        missing = bool(np.any((fit.n < fit.rows) & adjustable))
        divisor = observed.sum(axis=0) - missing  # sva's rule once a value is missing
        total = squares.sum(axis=0)
        adjustable &= total > PERFECT * fit.squares.sum(axis=0)
        if not self._by_location(fit):
            adjustable &= (fit.n > 1).all(axis=0)
        scale = np.sqrt(total / np.maximum(divisor, 1))
        return Aim(location, scale, adjustable)

    def _set_state(
        self, plain: Mapping[str, object], arrays: Mapping[str, NDArray[np.generic]]
    ) -> None:
        super()._set_state(plain, arrays)
        aim, details = self.aim_, self.details_
        mean_only = details.get("mean_only", aim.scale)
        if (aim.scale[aim.adjustable] <= 0).any() or mean_only.dtype != bool:
            msg = "aim.scale has values that are not above 0, or mean_only is missing."
            raise InputError(msg)

    def _by_location(self, fit: LinearFit, before: Fitted | None = None) -> bool:
        """Whether only locations are corrected: asked for, or a batch has one sample."""
        if self.mean_only or bool((fit.rows == 1).any()):
            return True
        return before is not None and bool(before.details["mean_only"].any())

    def _varying(
        self, fit: LinearFit, before: Fitted | None = None
    ) -> NDArray[np.bool_]:
        """Features with a variance in every batch; unshrunk, one of 0 serves none."""
        varying = ~fit.constant
        if not (self.shrink or self._by_location(fit, before)):
            varying &= (fit.residual_squares > 0) | fit.explained
        everywhere: NDArray[np.bool_] = np.all(varying, axis=0)
        return everywhere

    def _adjust(
        self, fit: LinearFit, aim: Aim, metadata: Metadata, before: Fitted | None
    ) -> Adjustment:
        pick = aim.adjustable & self._varying(fit, before)
        if self.shrink:
            check_several(pick, fit, metadata)
        by_location = self._by_location(fit, before)
        if by_location and not self.mean_only:
            added = "" if before is None else "that are added "
            msg = (
                "A batch has only one sample, so that its variances are unknown: in "
                f"all batches {added}only the mean is corrected (mean_only), and part "
                "of a large effect remains. Leave that sample out, or use "
                "remove_batch_effect."
            )
            warn(msg, BatchSizeWarning)
        if not by_location:
            warn_of_explained(fit, metadata)
        reference = None
        if self.reference is not None and before is None:
            reference = reference_code(self.reference, metadata)
        details = self._posteriors(
            fit, aim, pick, by_location=by_location, reference=reference
        )
        scale = 1 / np.sqrt(np.where(pick, details["delta_star"], 1.0))
        aimed = aim.location + aim.scale * details["gamma_star"]
        shift = np.where(pick, aim.location - scale * aimed, 0.0)
        if reference is not None:
            scale[reference], shift[reference] = 1.0, 0.0
        return Adjustment(scale, shift, details)

    def _posteriors(
        self,
        fit: LinearFit,
        aim: Aim,
        pick: NDArray[np.bool_],
        *,
        by_location: bool,
        reference: int | None,
    ) -> dict[str, NDArray[Any]]:
        """Each batch's effects on the picked features, and what they are shrunk to."""
        sigma, n = aim.scale[pick], fit.n if fit.n.shape[1] == 1 else fit.n[:, pick]
        explained = np.broadcast_to(fit.explained, fit.intercepts.shape)[:, pick]
        effects = Effects(
            gamma=(fit.intercepts[:, pick] - aim.location[pick]) / sigma,
            squares=fit.residual_squares[:, pick] / sigma**2,
            n=n,
            known=np.zeros_like(explained) if by_location else ~explained & (n > 1),
        )
        details = by_name(
            effects,
            pick,
            shrink=self.shrink,
            parametric=self.parametric,
            reference=reference,
        )
        details["delta_hat"][:, pick] += np.where(explained, np.nan, 0.0)
        details["mean_only"] = np.full(len(n), by_location)
        return details
