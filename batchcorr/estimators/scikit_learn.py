"""What estimators are in scikit-learn's terms; the command does without: `plain`."""

from __future__ import annotations

from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.exceptions import NotFittedError as SklearnNotFittedError

from batchcorr.errors import NotFittedError

__all__ = ["Estimator", "UnfittedError"]


class Estimator(TransformerMixin, BaseEstimator):
    """A transformer that pipelines and searches know."""


class UnfittedError(NotFittedError, SklearnNotFittedError):
    """Not fitted, in the terms of both packages."""
