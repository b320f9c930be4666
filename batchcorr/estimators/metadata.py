"""How the labels of samples were read at `fit`, frozen to be read so again.

One object holds the batch levels, further batch factors, and the encodings of kept
covariates and of nuisances, and makes the `Design` of any rows.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np

from batchcorr.design.covariates import CovariateEncoding
from batchcorr.design.design import Design
from batchcorr.design.labels import BatchLabels
from batchcorr.design.numerals import refuse_measurements
from batchcorr.errors import DesignError, InputError, some

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

__all__ = ["Labels", "Metadata"]


class Labels(NamedTuple):
    """What is known of samples, as it is given: tables, columns or arrays of n rows.

    Attributes
    ----------
    batch
        Batch of each sample, or several batch factors.
    covariates
        What is to be kept.
    nuisance
        What is to be removed with batch.
    design
        The design these were read into by the estimator that is given them; None: not
        read yet.
    """

    batch: Any = None
    covariates: Any = None
    nuisance: Any = None
    design: Design | None = None


@dataclass(frozen=True)
class Metadata:
    """Batch levels and encodings, as learned from the rows of `fit`.

    Attributes
    ----------
    batch
        Levels of the batches; None where there are only nuisances to remove.
    factors
        Further batch factors: removed like nuisances, by sum-to-zero contrasts.
    covariates, nuisance
        Encodings of what is kept and of what is removed.
    binary
        Which design columns were zeros and ones; None: not known yet.
    """

    batch: BatchLabels | None
    factors: tuple[BatchLabels, ...]
    covariates: CovariateEncoding
    nuisance: CovariateEncoding
    binary: tuple[bool, ...] | None = None

    @classmethod
    def fit(
        cls,
        n_rows: int,
        labels: Labels,
        *,
        formula: str | None = None,
        batches: Iterable[Any] | None = None,
        levels: Mapping[str, Iterable[Any]] | None = None,
    ) -> Self:
        """Find levels and encodings; `batches` and `levels` declare them instead."""
        if labels.covariates is None and formula is not None:
            msg = (
                f"The formula {formula!r} needs the table its names are columns of: "
                "give it as covariates=."
            )
            raise InputError(msg)
        factors = [
            BatchLabels.fit(
                given,
                n_rows=n_rows,
                name=f"batch factor {k}" if k > 1 else "batch",
                levels=batches if k == 1 else None,
            )
            for k, given in enumerate(_factors(labels.batch), start=1)
        ]
        for factor in factors if batches is None else ():
            refuse_measurements(factor.levels, n_rows, factor.name)
        return cls(
            batch=factors[0] if factors else None,
            factors=tuple(factors[1:]),
            covariates=CovariateEncoding.fit(
                labels.covariates, n_rows, formula=formula, levels=levels
            ),
            nuisance=CovariateEncoding.fit(
                labels.nuisance,
                n_rows,
                role="nuisance",
                levels=None if levels is None else {},
            ),
        )

    @property
    def n_batches(self) -> int:
        """Number of batches: 1 where there is no batch factor."""
        return 1 if self.batch is None else len(self.batch.levels)

    @property
    def levels(self) -> tuple[Any, ...]:
        """Labels of the batches, in the order of every array by batch."""
        return ("all",) if self.batch is None else self.batch.levels

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all design columns, kept ones first."""
        return (*self.covariates.names, *self._contrast_names(), *self.nuisance.names)

    @property
    def terms(self) -> tuple[str, ...]:
        """The covariate each design column belongs to."""
        factors = [f.name for f in self.factors for _ in f.levels[1:]]
        return (*self.covariates.terms, *factors, *self.nuisance.terms)

    @property
    def centred(self) -> range:
        """The columns that are removed from their mean on: all nuisances."""
        return range(len(self.names) - len(self.nuisance.names), len(self.names))

    @property
    def kept(self) -> int:
        """Number of kept columns."""
        return len(self.covariates.names)

    def design(self, n_rows: int, labels: Labels, *, keep: bool = True) -> Design:
        """Batch codes and columns of some rows.

        Parameters
        ----------
        n_rows
            Number of rows.
        labels
            Of the kind that was fitted to.
        keep
            Whether the kept columns are wanted.
        """
        given = _factors(labels.batch)
        expected = len(self.factors) + (self.batch is not None)
        if len(given) != expected:
            msg = (
                f"The correction was learned from {expected} batch factor(s), and "
                f"{len(given)} are given: batch= must have the same factors."
            )
            raise DesignError(msg)
        codes = np.zeros(n_rows, dtype=np.int32)
        if self.batch is not None:
            codes = self.batch.codes(given[0], n_rows=n_rows)
        removed = [
            _contrasts(factor, of_factor, n_rows)
            for factor, of_factor in zip(self.factors, given[1:], strict=True)
        ]
        if self.nuisance.names and labels.nuisance is None:
            msg = (
                "This correction removes nuisances, so their values are needed: give "
                "nuisance= with the columns "
                f"{some(map(repr, self.nuisance.required or self.nuisance.names))}"
                "."
            )
            raise InputError(msg)
        removed.append(self.nuisance.columns(labels.nuisance, n_rows))
        kept = self.covariates.columns(labels.covariates, n_rows) if keep else None
        binary = self.binary
        if binary is not None and not keep:
            binary = binary[self.kept :]
        return Design.of(codes, self.n_batches, kept, np.hstack(removed), binary)

    def settle(self, design: Design) -> Self:
        """The metadata with what the design of `fit` tells of its columns."""
        return replace(self, binary=tuple(design.binary.tolist()))

    def extend(self, other: Self) -> Self:
        """The metadata with the batches of `other` after its own."""
        if self.batch is None or other.batch is None:
            msg = "This correction has no batches, so none can be added."
            raise DesignError(msg)
        levels = (*self.batch.levels, *other.batch.levels)
        return replace(self, batch=replace(self.batch, levels=levels))

    def read_as(self) -> dict[str, str | list[str]]:
        """What columns were read as, by name: "numeric", or the levels of a category."""
        variables = (*self.covariates.variables, *self.nuisance.variables)
        return {
            variable.column: "numeric"
            if variable.levels is None
            else [str(level) for level in variable.levels]
            for variable in variables
        }

    def to_json(self) -> dict[str, Any]:
        """Plain values that `from_json` reads."""
        return {
            "batch": self.batch and self.batch.to_json(),
            "factors": [factor.to_json() for factor in self.factors],
            "covariates": self.covariates.to_json(),
            "nuisance": self.nuisance.to_json(),
            "binary": None if self.binary is None else list(self.binary),
        }

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> Self:
        """Read what `to_json` wrote."""
        batch, factors, binary = saved["batch"], saved["factors"], saved["binary"]
        if not isinstance(factors, list) or not isinstance(binary, list | None):
            msg = "factors and binary must be lists."
            raise InputError(msg)
        metadata = cls(
            batch=None if batch is None else BatchLabels.from_json(batch),
            factors=tuple(map(BatchLabels.from_json, factors)),
            covariates=CovariateEncoding.from_json(saved["covariates"]),
            nuisance=CovariateEncoding.from_json(saved["nuisance"]),
            binary=None if binary is None else tuple(binary),
        )
        if binary is not None and (
            len(binary) != len(metadata.names)
            or not all(isinstance(each, bool) for each in binary)
        ):
            msg = f"binary must be true or false for {len(metadata.names)} columns."
            raise InputError(msg)
        return metadata

    def _contrast_names(self) -> list[str]:
        return [
            f"{factor.name}[{level}]"
            for factor in self.factors
            for level in factor.levels[:-1]
        ]


def _factors(batch: Any) -> list[Any]:
    """The batch factors one by one: a table or 2-D array may hold several."""
    if batch is None:
        return []
    if hasattr(batch, "columns"):
        return [batch.iloc[:, k] for k in range(batch.shape[1])]
    if getattr(batch, "ndim", 1) == 2:
        return list(np.asarray(batch).T)
    return [batch]


def _contrasts(factor: BatchLabels, labels: Any, n_rows: int) -> NDArray[np.float64]:
    """Sum-to-zero contrasts: a column per level but the last, which has -1 in all."""
    codes = factor.codes(labels, n_rows=n_rows)
    last = len(factor.levels) - 1
    columns = np.zeros((n_rows, last))
    rows = np.flatnonzero(codes < last)
    columns[rows, codes[rows]] = 1.0
    columns[codes == last] = -1.0
    return columns
