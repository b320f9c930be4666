"""The state of fitted surrogate variables: what it shows, saves and is made from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from batchcorr._files.expected import Expected
from batchcorr._files.npz import shape_of, take
from batchcorr.errors import InputError
from batchcorr.estimators.base import Corrector

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from batchcorr.estimators.metadata import Labels
    from batchcorr.models.namespace import Matrix

__all__ = ["FittedSurrogates"]


class FittedSurrogates(Corrector):
    """Columns of the samples of `fit`, and what those of new samples are found with."""

    columns_: NDArray[np.float64]
    weights_: NDArray[np.float64]
    p_values_: NDArray[np.float64] | None = None
    _frozen: dict[str, NDArray[np.float64]] | None = None
    _terms: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())

    def __repr__(self, N_CHAR_MAX: int = 700) -> str:
        """Parameters, and what was found."""
        shown = str(super().__repr__(N_CHAR_MAX))
        if not hasattr(self, "columns_"):
            return shown
        n, k = self.columns_.shape
        return f"{shown}: {k} columns of {n} samples, from {self.n_features_} features"

    def get_feature_names_out(self, input_features: object = None) -> NDArray[Any]:
        """Return the names of the columns.

        Parameters
        ----------
        input_features
            Not looked at.

        Returns
        -------
        ``sv1``, ``sv2``, …: (k,).
        """
        self._require_fitted()
        k = self.columns_.shape[1]
        return np.asarray([f"sv{j + 1}" for j in range(k)], dtype=object)

    def _apply(
        self, x: object, labels: Labels, out: object, *, dense: bool | None
    ) -> Matrix:
        return self.transform(x)

    def _state(self) -> tuple[dict[str, object], Mapping[str, NDArray[np.generic]]]:
        assert self._frozen is not None
        arrays = {"columns": self.columns_, "weights": self.weights_} | self._frozen
        if self.p_values_ is not None:
            arrays["p_values"] = self.p_values_
        return {"terms": [list(each) for each in self._terms]}, arrays

    def _set_state(
        self, plain: Mapping[str, object], arrays: Mapping[str, NDArray[np.generic]]
    ) -> None:
        g = self.n_features_
        terms = plain["terms"]
        if not isinstance(terms, list) or len(terms) != 2:
            msg = "terms must be two lists of names."
            raise InputError(msg)
        n, k = (*shape_of(arrays, "columns"), 0, 0)[:2]
        expected = {"columns": Expected((n, k)), "weights": Expected((g,), least=0.0)}
        optional = {
            "training": Expected((n, g)),
            "loadings": Expected((g, k)),
            "means": Expected((g,)),
        }
        frozen = [name for name in optional if name in arrays]
        expected |= {name: optional[name] for name in frozen}
        if "p_values" in arrays:
            length = shape_of(arrays, "p_values")[:1]
            expected["p_values"] = Expected(length, least=0.0)
        found = take(arrays, expected)
        self.columns_, self.weights_ = found["columns"], found["weights"]
        self.p_values_ = found.get("p_values")
        self._frozen = {name: found[name] for name in frozen}
        self._terms = (tuple(map(str, terms[0])), tuple(map(str, terms[1])))

    def _summary(self) -> dict[str, object]:
        p_values, shuffles = self.p_values_, self.get_params()["permutations"]
        return {
            "variables": int(self.columns_.shape[1]),
            "chosen_by": "n_variables" if p_values is None else f"{shuffles} shuffles",
            "kept": list(self._terms[0]),
            "null": list(self._terms[1]),
            "p_values": None if p_values is None else p_values[:100].tolist(),
        }
