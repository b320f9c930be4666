"""What every method's estimator shares: features, tables, saving, scikit-learn's marks.

A method of any kind is a class here below with a `method` name. It fits, transforms, and
packs its frozen state into plain values and arrays (`_pack`), from which an equal one
can be made (`_unpack`).
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.exceptions import NotFittedError as SklearnNotFittedError

from batchcorr.errors import InputError, NotFittedError
from batchcorr.estimators import inputs
from batchcorr.estimators.matrix import as_matrix

if TYPE_CHECKING:
    from collections.abc import Mapping
    from os import PathLike

    from numpy.typing import NDArray

__all__ = ["Corrector"]


class _NotFittedError(NotFittedError, SklearnNotFittedError):
    """Not fitted, in the terms of both packages."""


class Corrector(TransformerMixin, BaseEstimator):
    """Base of the estimators of all methods.

    A subclass sets `method`, the name it is known by, and implements `fit`,
    `transform`, `_pack`, `_unpack` and `__sklearn_is_fitted__`. `for_testing` says
    whether corrected values may be tested.
    """

    method: ClassVar[str]
    for_testing: ClassVar[bool] = False
    needs_batch: ClassVar[bool] = True

    batch_column: str | None = None
    covariate_columns: list[str] | None = None

    obs_columns_: dict[str, Any] | None = None
    _names: tuple[str, ...] | None = None
    _n_features: int

    @abstractmethod
    def _pack(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Return the frozen state as values that JSON can hold, and arrays."""

    @abstractmethod
    def _unpack(
        self, plain: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]
    ) -> None:
        """Take the state that `_pack` gave; raise KeyError or InputError if damaged."""

    @abstractmethod
    def _summary(self) -> dict[str, Any]:
        """Return what the record of a correction says of the method's state."""

    @abstractmethod
    def __sklearn_is_fitted__(self) -> bool:
        """Tell scikit-learn whether the estimator has learned anything."""

    @property
    def keeps_sparse_(self) -> bool:
        """Whether a sparse matrix comes back sparse."""
        return False

    @property
    def needs_covariates_(self) -> bool:
        """Whether covariates must be given to correct samples."""
        return False

    @property
    def feature_names_out_(self) -> NDArray[Any]:
        """Names of the features of the corrected matrix."""
        self._require_fitted()
        if self._names is None:
            return inputs.default_names(self._n_features)
        return np.asarray(self._names, dtype=object)

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[Any]:
        """Return the names of the features of the corrected matrix.

        Parameters
        ----------
        input_features
            None, or the features of `fit`.

        Returns
        -------
        Names, (G,).
        """
        names = self.feature_names_out_
        if input_features is None:
            return names
        given = np.asarray(input_features, dtype=object)
        seen = getattr(self, "feature_names_in_", None)
        if seen is not None and not np.array_equal(given, seen):
            msg = "input_features is not equal to feature_names_in_, those of fit."
            raise InputError(msg)
        if len(given) != self.n_features_in_:
            msg = (
                "input_features should have length equal to number of features "
                f"({self.n_features_in_}), not {len(given)}."
            )
            raise InputError(msg)
        return given if seen is None and self._names is None else names

    def save(self, path: str | PathLike[str]) -> None:
        """Write the frozen state to a file: plain arrays and JSON, no pickle.

        Parameters
        ----------
        path
            The file, by custom ``*.npz``; written beside and renamed when complete.
        """
        from batchcorr.estimators.saving import save

        self._require_fitted()
        save(self, path)

    def __sklearn_tags__(self) -> Any:
        """Tell scikit-learn that missing values and sparse matrices are welcome."""
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.sparse = True
        return tags

    def _check_parameters(self) -> None:
        """Refuse options that contradict each other."""

    def _require_fitted(self) -> None:
        if not self.__sklearn_is_fitted__():
            example = "fit(X, batch=…)" if self.needs_batch else "fit(X)"
            msg = f"This {type(self).__name__} is not fitted yet: call {example} first."
            raise _NotFittedError(msg)

    def _take(self, X: Any, batch: Any, covariates: Any) -> tuple[Any, Any, Any]:
        inputs.check_order(X, batch=batch, covariates=covariates)
        return inputs.take_columns(
            X, batch, covariates, self.batch_column, self.covariate_columns
        )

    def _matrix(self, table: Any) -> Any:
        """Return the matrix to learn from, refusing an empty one."""
        inputs.feature_names(table)
        x = as_matrix(table)
        if 0 in x.shape:
            msg = (
                f"There is nothing to learn from: the data are {x.shape[0]} samples × "
                f"{x.shape[1]} features."
            )
            raise InputError(msg)
        return x

    def _require_batch(self, batch: Any) -> None:
        if batch is None:
            msg = (
                f"{type(self).__name__} needs the batch of each sample: give batch=, or"
                " name its column with batch_column= where X is a DataFrame. In a "
                "Pipeline, enable metadata routing "
                "(sklearn.set_config(enable_metadata_routing=True)) and give batch= "
                "there."
            )
            raise InputError(msg)

    def _check_features(self, table: Any, n_features: int) -> None:
        """Refuse data whose features are not those of `fit`."""
        inputs.check_features(
            table if hasattr(table, "columns") else None,
            n_features,
            self._n_features,
            self._names,
            type(self).__name__,
        )

    def _remember_features(self, X: Any, table: Any, x: Any) -> None:
        """Keep the names and number of the features, before and after `_take`."""
        self._names = inputs.feature_names(table)
        self._n_features = int(x.shape[1])
        self.n_features_in_ = int(X.shape[1]) if hasattr(X, "shape") else x.shape[1]
        self.__dict__.pop("feature_names_in_", None)
        if hasattr(X, "columns"):
            self.feature_names_in_ = np.asarray(list(map(str, X.columns)), dtype=object)
