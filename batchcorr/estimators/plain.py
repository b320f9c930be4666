"""The base class of estimators where they go into no pipeline: in the `batchcorr` command.

scikit-learn takes a second to import, as long as all else that a small table needs, and a
command asks an estimator for its parameters and no more.
"""

from __future__ import annotations

from contextvars import ContextVar
from inspect import signature

__all__ = ["PlainEstimator", "in_command"]

in_command: ContextVar[bool] = ContextVar("in_command", default=False)
"""Whether this process is a command; set before any estimator is imported."""


class PlainEstimator:
    """The parameters of an estimator by name, as scikit-learn's `clone` reads them."""

    @classmethod
    def _get_param_names(cls) -> list[str]:
        return sorted(signature(cls).parameters)

    def get_params(self, *, deep: bool = True) -> dict[str, object]:
        """The parameters; none of ours is an estimator, into which `deep` would look."""
        return {name: getattr(self, name) for name in self._get_param_names()}
