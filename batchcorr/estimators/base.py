"""What every method's estimator shares: labels in, a corrected matrix out.

A method of any kind is a class here below with a `record`. It fits, transforms, and gives
its frozen state as plain values and arrays, from which an equal one can be made
(`Saved`). Whatever is above this folder uses public verbs and no private member.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

from batchcorr.errors import InputError
from batchcorr.estimators import inputs
from batchcorr.estimators.crossing import check_combinations, crossed
from batchcorr.estimators.saving import Saved

if TYPE_CHECKING:
    from batchcorr.estimators.inputs import Samples
    from batchcorr.estimators.metadata import Labels
    from batchcorr.estimators.record import MethodRecord
    from batchcorr.models.namespace import Matrix

__all__ = ["Corrector"]


class Corrector(Saved):
    """Base of the estimators of all methods.

    A subclass has a `record` and implements `fit`, `transform` and the abstract methods.

    Attributes
    ----------
    record : MethodRecord
        What the method is called, takes and gives.
    """

    record: ClassVar[MethodRecord]

    batch_column: str | None = None
    covariate_columns: list[str] | None = None
    cross: bool = False

    def _fit_labels(self, x: object, labels: Labels, weights: object) -> Labels:
        """Fit to samples; see `fit_labels`."""
        fit: Any = self.fit
        taken = {name: getattr(labels, name) for name in ("batch", "covariates")}
        fit(x, **{name: taken[name] for name in taken if name in self.record.takes})
        return labels

    @abstractmethod
    def _apply(
        self, x: object, labels: Labels, out: object, *, dense: bool | None
    ) -> Matrix:
        """Correct samples; see `apply`."""

    @abstractmethod
    def _summary(self) -> dict[str, object]:
        """Sum the fit up; see `summary`."""

    @property
    def keeps_sparse_(self) -> bool:
        """Whether a sparse matrix comes back sparse."""
        return False

    @property
    def log_base_(self) -> float | None:
        """Base of the logarithms that are taken; None: none are."""
        return None

    @property
    def needs_covariates_(self) -> bool:
        """Whether covariates must be given to correct samples."""
        return False

    def fit_labels(self, x: object, labels: Labels, weights: object = None) -> Labels:
        """Fit to samples whose labels were read: `fit` for faces.

        Parameters
        ----------
        x
            Samples × features.
        labels
            Batch, covariates and nuisances of the samples.
        weights
            Of each sample or value, where the method takes them.

        Returns
        -------
        The labels, for `apply` to these same samples: with the design they were read
        into, so that nothing is read twice.

        Raises
        ------
        InputError
            If the method does not take what is given.
        """
        given = {
            "covariates": (labels.covariates, "combat, standardize or another"),
            "nuisance": (labels.nuisance, "combat, combat_seq or remove_batch_effect"),
            "subject": (labels.subject, "combat, standardize or remove_batch_effect"),
            "weights": (weights, "remove_batch_effect"),
        }
        for name, (value, methods) in given.items():
            if value is not None and name not in self.record.takes:
                msg = f"{self.record.name} has no {name}: use {methods}."
                raise InputError(msg)
        others = {name: value for name, (value, _) in given.items()}
        inputs.check_order(x, batch=labels.batch, **others)
        return self._fit_labels(x, labels, weights)

    def apply(
        self,
        x: object,
        labels: Labels,
        *,
        out: object = None,
        dense: bool | None = None,
    ) -> Matrix:
        """Correct samples whose labels were read: `transform` for faces.

        Parameters
        ----------
        x
            Samples × features, the features of `fit`.
        labels
            Batch, covariates and nuisances of the samples, as far as they are needed.
        out
            Matrix to write to, which may be `x`; None: a new one.
        dense
            Whether a sparse matrix may become a large dense one; None: if memory allows.

        Returns
        -------
        The corrected matrix.
        """
        self._require_fitted()
        if labels.design is None:  # else they were read
            labelled = {name: getattr(labels, name) for name in ("nuisance", "subject")}
            inputs.check_order(x, batch=labels.batch, **labelled)
        return self._apply(x, labels, out, dense=dense)

    def summary(self) -> dict[str, object]:
        """Sum the fit up, for the record of a correction.

        Returns
        -------
        Values that JSON can hold, by name.
        """
        self._require_fitted()
        return self._summary()

    def __sklearn_tags__(self) -> Any:
        """Tell scikit-learn that missing values and sparse matrices are welcome."""
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.sparse = True
        return tags

    def _check_parameters(self) -> None:
        """Refuse options that contradict each other."""

    def _samples(
        self, X: object, batch: object = None, covariates: object = None
    ) -> Samples:
        """Features and labels, told apart by the columns that the estimator names."""
        samples = inputs.read_samples(
            X,
            batch,
            covariates,
            batch_column=self.batch_column,
            covariate_columns=self.covariate_columns,
        )
        if not isinstance(self.cross, bool):
            msg = (
                f"cross must be True or False, not {self.cross!r:.60}: give the batch "
                "columns themselves as the batch."
            )
            raise InputError(msg)
        factors = _factor_count(samples.batch)
        if factors == 1 or "batches" in self.record.takes:
            return samples
        if self.cross:
            return samples._replace(batch=crossed(samples.batch))
        known = "cross" in self._get_param_names()
        instead = "cross=True takes their combinations as batches, " if known else ""
        msg = (
            f"{type(self).__name__} takes one batch factor, not {factors}: {instead}"
            "remove_batch_effect takes several one by one, or combine them into one column."
        )
        raise InputError(msg)

    def _samples_to_fit(self, X: object, batch: object, covariates: object) -> Samples:
        """The samples to fit to: every combination of batch factors has some."""
        samples = self._samples(X, batch, covariates)
        if self.cross and _factor_count(batch) > 1:
            check_combinations(samples.batch)
        return samples


def _factor_count(batch: object) -> int:
    """How many batch factors there are in what was given as batch."""
    shape: tuple[int, ...] = getattr(batch, "shape", ())
    return shape[1] if len(shape) == 2 else 1
