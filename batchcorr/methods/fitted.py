"""What a fitted estimator shows of itself, to users and to scikit-learn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np
from sklearn.exceptions import NotFittedError

from batchcorr.methods import inputs
from batchcorr.methods.estimate import LocationScaleSteps, estimate

if TYPE_CHECKING:
    from os import PathLike

    from numpy.typing import NDArray

    from batchcorr.methods.base import LocationScaleMethod
    from batchcorr.methods.estimate import Aim, Fitted
    from batchcorr.methods.metadata import Metadata
    from batchcorr.models.location_scale import LocationScale
    from batchcorr.models.moments import Moments

__all__ = ["FittedState"]


class FittedState(LocationScaleSteps):
    """The state of a location-scale estimator: moments gathered, correction frozen.

    `partial_fit` leaves moments only; the correction is estimated when first needed.
    """

    _metadata: Metadata | None = None
    _fitted: Fitted | None = None
    moments_: Moments | None = None
    _names: tuple[str, ...] | None = None
    _n_features: int
    obs_columns_: dict[str, Any] | None = None

    def _ready(self) -> Fitted:
        """Return the frozen state, estimating it if only moments were gathered."""
        fitted = self._fitted
        if fitted is None:
            if self.moments_ is None or self._metadata is None:
                msg = (
                    f"This {type(self).__name__} is not fitted yet: call "
                    "fit(X, batch=…) first."
                )
                raise NotFittedError(msg)
            fitted = self._fitted = estimate(self, self.moments_, self._metadata)
        return fitted

    @property
    def correction_(self) -> LocationScale:
        """The frozen correction."""
        return self._ready().correction

    @property
    def batches_(self) -> tuple[Any, ...]:
        """Labels of the batches, in the order of every array by batch."""
        return self._ready().metadata.levels

    @property
    def details_(self) -> dict[str, NDArray[Any]]:
        """What the correction was found from, by name: arrays by batch."""
        return self._ready().details

    @property
    def aim_(self) -> Aim:
        """What every batch is brought to."""
        return self._ready().aim

    @property
    def feature_names_out_(self) -> NDArray[Any]:
        """Names of the features of the corrected matrix."""
        self._ready()
        if self._names is None:
            return inputs.default_names(self._n_features)
        return np.asarray(self._names, dtype=object)

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[Any]:
        """Return the names of the features of the corrected matrix."""
        return self.feature_names_out_

    def save(self, path: str | PathLike[str]) -> None:
        """Write the frozen correction to a file: plain arrays and JSON, no pickle."""
        from batchcorr.methods.saving import save

        save(cast("LocationScaleMethod", self), path)

    def __sklearn_is_fitted__(self) -> bool:
        """Tell scikit-learn whether `fit` or `partial_fit` was called."""
        return self._metadata is not None
