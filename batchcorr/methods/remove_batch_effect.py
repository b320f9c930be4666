r"""Linear removal of batch effects and nuisances, as limma's removeBatchEffect.

    x = μ + z β + c_b + w η + ε,   Σ_b c_b = 0        y = x - c_b - (w - w̄) η

Kept and removed columns are fitted together by least squares, and only the removed
part is subtracted: r = 1, s = w̄ η - c_b = w̄ η + mean_b(α_b) - α_b. Nuisances are measured
from their mean over the fitted samples, so that no feature changes its level; further batch
factors have contrasts that sum to zero.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from batchcorr.errors import InputError
from batchcorr.estimators.estimate import Adjustment, Aim, Fitted
from batchcorr.estimators.location_scale import LocationScaleMethod
from batchcorr.estimators.record import MethodRecord

if TYPE_CHECKING:
    from batchcorr.estimators.metadata import Metadata
    from batchcorr.models.linear_model import LinearFit

__all__ = ["RemoveBatchEffect"]


class RemoveBatchEffect(LocationScaleMethod):
    r"""Subtract the batch effects of a linear model that also has the covariates to keep.

    .. math:: y = x - c_b - (w - \bar w) η, \qquad x = μ + zβ + c_b + wη + ε, \quad Σ_b c_b = 0

    Parameters
    ----------
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
        The frozen map: scale 1, shift w̄ η - c (B, G), and η of the nuisance variables
        (q, G).
    aim_ : Aim
        The unweighted mean of the batches, at the mean of the nuisance variables.
    details_ : dict
        ``effect``: c, (B, G).
    batches_ : tuple
        Labels of the batches; of the first of several batch factors.

    Raises
    ------
    DesignError
        Confounded covariates or missing labels.

    Warns
    -----
    CovariateWarning
        If nuisance variables are collinear with each other or with batch; these are
        dropped.

    Notes
    -----
    Agrees with ``limma::removeBatchEffect`` to rounding, with one difference: limma
    3.54 does not centre nuisance variables, which shifts each feature by a constant. If
    covariates are confounded with batch, this raises an error, while limma silently
    drops batch columns. Only means are corrected; if variances differ between batches,
    see `ComBat` or `Standardize`. For plots and clustering, not before a test: put
    batch into the model of the test instead.

    References
    ----------
    Ritchie et al. (2015), Nucleic Acids Research 43:e47; R package limma,
    `removeBatchEffect`.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.array([[1.0], [2.0], [3.0], [10.0], [12.0], [14.0]])
    >>> RemoveBatchEffect().fit_transform(x, batch=[1, 1, 1, 2, 2, 2]).T
    array([[6., 7., 8., 5., 7., 9.]])
    """

    record: ClassVar = MethodRecord(
        "remove_batch_effect",
        takes=frozenset(
            {"batch", "batches", "covariates", "nuisance", "weights", "subject"}
        ),
        streams=True,
    )
    fewest_batches: ClassVar[int] = 1

    __metadata_request__fit: ClassVar = {"nuisance": True, "weights": True}
    __metadata_request__transform: ClassVar = {"nuisance": True}
    __metadata_request__inverse_transform: ClassVar = {"nuisance": True}

    def __init__(
        self,
        *,
        formula: str | None = None,
        batch_column: str | None = None,
        covariate_columns: list[str] | None = None,
        copy: bool = True,
    ) -> None:
        self.formula = formula
        self.batch_column = batch_column
        self.covariate_columns = covariate_columns
        self.copy = copy

    def _aim(self, fit: LinearFit, metadata: Metadata) -> Aim:
        if metadata.n_batches < 2 and len(metadata.names) == metadata.kept:
            msg = (
                f"There is only one batch, {metadata.levels[0]!r}, and no nuisance, so "
                "there is nothing to remove."
            )
            raise InputError(msg)
        everywhere = np.ones(fit.n_features, dtype=bool)
        return Aim(fit.intercepts.mean(axis=0), np.ones(len(everywhere)), everywhere)

    def _adjust(
        self, fit: LinearFit, aim: Aim, metadata: Metadata, before: Fitted | None
    ) -> Adjustment:
        shift = aim.location - fit.intercepts
        if before is None:
            level = aim.location - fit.intercepts.mean(axis=0)
        else:
            level = before.correction.shift[0] + before.details["effect"][0]
        return Adjustment(np.ones_like(shift), shift, {"effect": level - shift})
