"""The state of a location-scale estimator: what it shows, saves and is made from."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from batchcorr._files.expected import Expected
from batchcorr._files.npz import shape_of, take
from batchcorr.arrays import apply
from batchcorr.errors import InputError
from batchcorr.estimators import checks, inputs, matrix
from batchcorr.estimators.base import Corrector
from batchcorr.estimators.densify import allow_dense
from batchcorr.estimators.estimate import Aim, Fitted, LocationScaleSteps, estimate
from batchcorr.estimators.fit_warnings import warn_of_features
from batchcorr.estimators.metadata import Labels, Metadata
from batchcorr.estimators.problem import Problem
from batchcorr.estimators.subjects import with_subject
from batchcorr.estimators.summary import summary_of
from batchcorr.models.location_scale import LocationScale

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from batchcorr.design.design import Design
    from batchcorr.design.levels import Level
    from batchcorr.models.moments import Moments
    from batchcorr.models.namespace import Matrix

__all__ = ["FittedState", "part_of"]


class FittedState(Corrector, LocationScaleSteps):
    """The state of a location-scale estimator: moments gathered, correction frozen.

    `partial_fit` leaves moments only; the correction is estimated when first needed.
    """

    copy: bool
    _metadata: Metadata | None = None
    _fitted: Fitted | None = None
    moments_: Moments | None = None

    def _ready(self) -> Fitted:
        """The frozen state, estimated now if only moments were gathered."""
        if self._fitted is None:
            self._require_fitted()
            assert self.moments_ is not None
            assert self._metadata is not None
            problem = Problem.of_moments(self.moments_, self._metadata)
            found = self._fitted = estimate(self, problem)
            adjustable = found.aim.adjustable
            warn_of_features(self.moments_, adjustable, found.details, self)
        return self._fitted

    @property
    def correction_(self) -> LocationScale:
        """The frozen correction."""
        return self._ready().correction

    @property
    def batches_(self) -> tuple[Level, ...]:
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
    def needs_covariates_(self) -> bool:
        """Whether covariates must be given to correct samples."""
        return self._ready().correction.needs_covariates

    def fit_moments(
        self,
        moments: Moments,
        metadata: Metadata,
        *,
        features: tuple[str, ...] | None = None,
    ) -> Self:
        """Fit to moments that were gathered elsewhere, as from sites.

        Parameters
        ----------
        moments
            Moments per batch and feature.
        metadata
            How labels were read, and are to be read.
        features
            Names of the features, where they have any.

        Returns
        -------
        The estimator itself.
        """
        self._require_streams("fit_moments")
        self._check_parameters()
        fitted = self._estimate(Problem.of_moments(moments, metadata))
        self.feature_names_ = features
        self.n_features_ = self.n_features_in_ = moments.n_features
        warn_of_features(moments, fitted.aim.adjustable, fitted.details, self)
        return self

    def _require_streams(self, verb: str) -> None:
        """Refuse what takes moments alone to estimate, where they are not enough."""
        if not self.record.streams:
            msg = (
                f"{type(self).__name__} has no {verb}: it also needs covariances of "
                "features, which moments do not contain. Fit all samples at once."
            )
            raise InputError(msg)

    def design_of(self, n: int, labels: Labels) -> Design:
        """Batch and columns of samples that are to be corrected.

        Parameters
        ----------
        n
            Number of samples.
        labels
            What is known of them.

        Returns
        -------
        The design, without the columns of covariates where the correction needs none.
        """
        fitted = self._ready()
        keep = self.needs_covariates_
        if labels.design is not None:
            return labels.design if keep else labels.design.without_kept()
        if fitted.metadata.batch is not None and labels.batch is None:
            raise inputs.no_batch(type(self).__name__)
        if keep and labels.covariates is None:
            checks.refuse_without_covariates(
                fitted.metadata,
                f"{type(self).__name__} kept covariates and scales, so that a sample's "
                "covariates are needed to correct it",
                "without them, or with mean_only=True or RemoveBatchEffect",
            )
        return fitted.metadata.design(n, labels, keep=keep)

    def _estimate(self, problem: Problem) -> Fitted:
        fitted = self._fitted = estimate(self, problem)
        self._metadata, self.moments_ = problem.metadata, problem.moments
        return fitted

    def _apply(
        self, x: object, labels: Labels, out: object, *, dense: bool | None
    ) -> Matrix:
        state, copy = self.correction_, self.copy
        return self._map(state, x, labels, out, dense=dense, copy=copy)

    def _invert(self, x: object, labels: Labels) -> Matrix:
        inputs.check_order(x, batch=labels.batch, nuisance=labels.nuisance)
        return self._map(self.correction_.inverse(), x, labels, copy=self.copy)

    def _map(
        self,
        correction: LocationScale,
        X: object,
        labels: Labels,
        out: object = None,
        *,
        dense: bool | None = None,
        copy: bool = True,
    ) -> Matrix:
        samples = self._samples(X, labels.batch, labels.covariates)
        x = matrix.as_matrix(samples.features)
        self._check_features(samples, x.shape[1])
        labels = labels._replace(batch=samples.batch, covariates=samples.covariates)
        if labels.design is None:
            labels = with_subject(labels)
        design = self.design_of(x.shape[0], labels)
        sparse = matrix.is_sparse(x)
        if sparse:
            device = matrix.on_device(x)
            allow_dense(x.shape, x.dtype.itemsize, dense=dense, device=device)
        elif out is None and not copy and isinstance(X, type(x)):
            out = x if matrix.is_writable(x) else None
        if x.shape[0] == 0:
            return x.toarray() if sparse else x
        return apply(x, design, correction, out=out)

    def _state(self) -> tuple[dict[str, object], Mapping[str, NDArray[np.generic]]]:
        fitted = self._ready()
        arrays = {f"aim.{f.name}": getattr(fitted.aim, f.name) for f in fields(Aim)}
        arrays |= {
            f"correction.{f.name}": getattr(fitted.correction, f.name)
            for f in fields(LocationScale)
        }
        arrays |= {f"details.{name}": value for name, value in fitted.details.items()}
        return {"metadata": fitted.metadata.to_json()}, arrays

    def _set_state(
        self, plain: Mapping[str, Any], arrays: Mapping[str, NDArray[np.generic]]
    ) -> None:
        metadata = Metadata.from_json(plain["metadata"])
        b, g = metadata.n_batches, self.n_features_
        removed = len(metadata.names) - metadata.kept
        expected = {
            "aim.location": Expected((g,), finite=False),
            "aim.scale": Expected((g,), finite=False),
            "aim.adjustable": Expected((g,), "b"),
            "correction.scale": Expected((b, g), positive=True),
            "correction.shift": Expected((b, g)),
            "correction.coefficients": Expected((metadata.kept, g)),
            "correction.nuisance": Expected((removed, g)),
        }
        for name in arrays:
            if name.startswith("details."):  # for people to read, by batch or value
                axes = shape_of(arrays, name)
                expected[name] = Expected(
                    (b, g)[: max(len(axes), 1)], "fib", finite=False
                )
        found = take(arrays, expected)
        aim = Aim(**part_of(found, "aim"))
        used = np.stack([aim.location, aim.scale])[:, aim.adjustable]
        if not np.isfinite(used).all() or (used[1] < 0).any():
            msg = "its target contains missing, infinite or negative values."
            raise InputError(msg)
        correction = LocationScale(**part_of(found, "correction"))
        details = part_of(found, "details")
        self._fitted = Fitted(metadata, aim, correction, details)
        self._metadata, self.moments_ = metadata, None

    def _summary(self) -> dict[str, object]:
        fitted = self._ready()
        left = self.feature_names_out_[~fitted.aim.adjustable]
        return summary_of(fitted.metadata, left)


def part_of(
    arrays: Mapping[str, NDArray[np.generic]], name: str
) -> dict[str, NDArray[Any]]:
    """The arrays under a name, by the rest of their names."""
    prefix = f"{name}."
    return {
        key.removeprefix(prefix): value
        for key, value in arrays.items()
        if key.startswith(prefix)
    }
