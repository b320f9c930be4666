"""What an estimator keeps of the features of `fit`, which new samples must have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

import numpy as np

from batchcorr.errors import InputError, some

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from batchcorr.estimators.inputs import Samples
    from batchcorr.estimators.record import MethodRecord

__all__ = ["Features", "default_names", "require_as_many"]


class Features:
    """Number and names of features; an estimator is fitted once it knows them.

    Attributes
    ----------
    feature_names_ : tuple of str or None
        Names of the features; None: they are known by their places.
    n_features_, n_features_in_ : int
        Number of features, without and with columns that hold labels.
    """

    record: ClassVar[MethodRecord]

    feature_names_: tuple[str, ...] | None = None
    n_features_: int
    n_features_in_: int

    @property
    def feature_names_out_(self) -> NDArray[np.object_]:
        """Names of the features of the corrected matrix."""
        self._require_fitted()
        if self.feature_names_ is None:
            return default_names(self.n_features_)
        return np.asarray(self.feature_names_, dtype=object)

    def get_feature_names_out(self, input_features: object = None) -> NDArray[Any]:
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
        return given if seen is None and self.feature_names_ is None else names

    def __sklearn_is_fitted__(self) -> bool:
        """Tell scikit-learn whether the estimator was fitted."""
        return hasattr(self, "n_features_")

    def _require_fitted(self) -> None:
        if not hasattr(self, "n_features_"):
            from batchcorr.estimators.scikit_learn import UnfittedError

            example = "fit(X)" if self.record.normalizes else "fit(X, batch=…)"
            msg = f"This {type(self).__name__} is not fitted yet: call {example} first."
            raise UnfittedError(msg)

    def _check_features(self, samples: Samples, n_features: int) -> None:
        """Refuse data whose features are not those of `fit`."""
        given, names = samples.names, self.feature_names_
        if names is not None and given is not None and given != names:
            order = "in" if hasattr(self, "feature_names_in_") else "out"
            _refuse_features(given, names, f"X[estimator.feature_names_{order}_]")
        require_as_many(n_features, self.n_features_, type(self).__name__)

    def _remember_features(self, samples: Samples, n_features: int) -> None:
        """Keep the names and number of the features, with and without columns of labels."""
        named, given = samples.names, samples.given
        fresh = not hasattr(self, "n_features_in_")
        known = self.feature_names_ if fresh else None
        if named is None and known is not None and len(known) == n_features:
            named = known  # by whoever fits a matrix whose features have names
        self.feature_names_ = named
        self.n_features_ = int(n_features)
        self.n_features_in_ = (
            int(given.shape[1]) if hasattr(given, "shape") else n_features
        )
        self.__dict__.pop("feature_names_in_", None)
        if hasattr(given, "columns"):
            columns = list(map(str, given.columns))
            self.feature_names_in_ = np.asarray(columns, dtype=object)


def require_as_many(n_given: int, n_features: int, method: str) -> None:
    """Refuse another number of features than `fit` of the method had."""
    if n_given != n_features:
        msg = (
            f"X has {n_given} features, but {method} is expecting {n_features} "
            "features as input, as many as fit had. Samples must be rows: check "
            "whether X is transposed or columns are missing."
        )
        raise InputError(msg)


def _refuse_features(
    given: tuple[str, ...], names: tuple[str, ...], ordered: str
) -> NoReturn:
    """Say how the features given differ from those of fit, and what orders them so."""
    if set(given) == set(names):
        msg = (
            "The features are in another order than in fit: reorder them, for example "
            f"{ordered}."
        )
        raise InputError(msg)
    unknown = sorted(set(given) - set(names))
    missing = sorted(set(names) - set(given))
    parts = [
        f"{len(differing)} {what} ({some(differing)})"
        for differing, what in ((missing, "missing"), (unknown, "never seen"))
        if differing
    ]
    msg = f"The features are not those of fit: {' and '.join(parts)}."
    raise InputError(msg)


def default_names(n_features: int) -> NDArray[np.object_]:
    """x0, x1, …: scikit-learn's names for features without names."""
    return np.asarray([f"x{k}" for k in range(n_features)], dtype=object)
