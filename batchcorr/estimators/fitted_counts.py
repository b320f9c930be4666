"""The state of ComBat-seq: what it shows, saves and is made from, and how it is applied."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from batchcorr._files.expected import Expected
from batchcorr._files.npz import take
from batchcorr.arrays.feature_counts import FeatureCounts
from batchcorr.errors import CappedWarning, InputError, some, warn
from batchcorr.estimators import checks, count_checks, inputs
from batchcorr.estimators.base import Corrector
from batchcorr.estimators.count_mapping import BOUND, map_counts
from batchcorr.estimators.count_model import CountModel, total_counts
from batchcorr.estimators.matrix import is_sparse
from batchcorr.estimators.metadata import Labels, Metadata
from batchcorr.estimators.raw_counts import as_counts
from batchcorr.estimators.summary import summary_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from batchcorr.design.levels import Level
    from batchcorr.models.namespace import Matrix

__all__ = ["FittedCounts"]


class FittedCounts(Corrector):
    """A fitted count model, and how labels were read."""

    model_: CountModel
    _metadata: Metadata | None = None

    @property
    def batches_(self) -> tuple[Level, ...]:
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

    def _apply(
        self, x: object, labels: Labels, out: object, *, dense: bool | None
    ) -> Matrix:
        assert self._metadata is not None
        samples = self._samples(x, labels.batch, labels.covariates)
        counts = as_counts(samples.features)
        self._check_features(samples, counts.shape[1])
        if samples.batch is None:
            raise inputs.no_batch(type(self).__name__)
        if self._metadata.kept and samples.covariates is None and not labels.design:
            checks.refuse_without_covariates(
                self._metadata,
                "Covariates were kept, and they are part of the count that is expected "
                "of a sample",
                "without them",
            )
        labels = labels._replace(batch=samples.batch, covariates=samples.covariates)
        design = labels.design or self._metadata.design(counts.shape[0], labels)
        if counts.shape[0] == 0:
            return counts.copy()
        by_feature = FeatureCounts.of(counts)
        library = total_counts(by_feature, self.model_.adjusted)
        count_checks.require_counts(
            library, inputs.SampleNames(x, labels.batch, labels.covariates)
        )
        corrected, capped = map_counts(by_feature, self.model_, design, np.log(library))
        self._report(capped)
        return corrected.asformat(counts.format) if is_sparse(counts) else corrected

    def _report(self, capped: NDArray[np.float64]) -> None:
        """Name the features with the most values that were kept down, and only those."""
        n = int((capped > 0).sum())
        if not n:
            return
        names = self.feature_names_out_[np.argsort(-capped, kind="stable")[:n]]
        msg = (
            f"{int(capped.sum())} corrected counts of {n} features ({some(names, 3)}) "
            f"were limited to their upper bound, {BOUND:g} times the highest rate of "
            "the feature in fit: do not trust their batch effects. Look for features "
            "that are nearly absent from a batch."
        )
        warn(msg, CappedWarning)

    def _state(self) -> tuple[dict[str, object], Mapping[str, NDArray[np.generic]]]:
        assert self._metadata is not None
        plain: dict[str, object] = {
            "metadata": self._metadata.to_json(),
            "reference_code": self.model_.reference,
        }
        return plain, self.model_.to_arrays()

    def _set_state(
        self, plain: Mapping[str, Any], arrays: Mapping[str, NDArray[np.generic]]
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
        removed = len(metadata.names) - metadata.kept
        if removed:
            expected["nuisance_mean"] = Expected((removed,))
        reference = plain.get("reference_code")
        if reference is not None:
            if type(reference) is not int or not 0 <= reference < b:
                msg = f"reference_code is {reference!r:.40}, not one of {b} batches."
                raise InputError(msg)
            expected["reference_mean"] = Expected((g,), least=0.0)
        self.model_ = CountModel(**take(arrays, expected), reference=reference)
        self._metadata = metadata

    def _summary(self) -> dict[str, object]:
        assert self._metadata is not None
        left = self.feature_names_out_[~self.model_.adjusted]
        reference = self.model_.reference
        return summary_of(self._metadata, left) | {
            "reference": None if reference is None else str(self.batches_[reference])
        }
