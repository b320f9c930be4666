"""The state of ComBat-seq: what it shows, saves and is made from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from batchcorr._files.expected import Expected
from batchcorr._files.npz import take
from batchcorr.errors import InputError
from batchcorr.estimators.base import Corrector
from batchcorr.estimators.count_model import CountModel
from batchcorr.estimators.metadata import Metadata
from batchcorr.estimators.summary import summary_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

__all__ = ["FittedCounts"]


class FittedCounts(Corrector):
    """A fitted count model, and how labels were read."""

    model_: CountModel
    _metadata: Metadata | None = None

    @property
    def batches_(self) -> tuple[Any, ...]:
        """Labels of the batches, in the order of every array by batch."""
        self._require_fitted()
        assert self._metadata is not None
        return self._metadata.levels

    @property
    def keeps_sparse_(self) -> bool:
        """Counts come back in the storage they came in."""
        return True

    @property
    def needs_covariates_(self) -> bool:
        """Whether covariates must be given to correct samples."""
        return self._metadata is not None and self._metadata.kept > 0

    def _state(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        assert self._metadata is not None
        plain = {
            "metadata": self._metadata.to_json(),
            "reference_code": self.model_.reference,
        }
        return plain, self.model_.to_arrays()

    def _set_state(
        self, plain: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]
    ) -> None:
        metadata = Metadata.from_json(plain["metadata"])
        b, g = metadata.n_batches, self.n_features_
        expected = {
            "adjusted": Expected((g,), "b"),
            "coefficients": Expected((g, b + len(metadata.names))),
            "phi": Expected((g, b), least=0.0),
            "gamma_star": Expected((g, b)),
            "phi_star": Expected((g,), least=0.0),
            "top_rate": Expected((g,), least=0.0),
        }
        reference = plain.get("reference_code")
        if reference is not None:
            if type(reference) is not int or not 0 <= reference < b:
                msg = (
                    f"reference_code is {reference!r:.40}, and not one of {b} batches."
                )
                raise InputError(msg)
            expected["reference_mean"] = Expected((g,), least=0.0)
        self.model_ = CountModel(**take(arrays, expected), reference=reference)
        self._metadata = metadata

    def _summary(self) -> dict[str, Any]:
        assert self._metadata is not None
        left = self.feature_names_out_[~self.model_.adjusted]
        reference = self.model_.reference
        return summary_of(self._metadata, left) | {
            "reference": None if reference is None else str(self.batches_[reference])
        }
