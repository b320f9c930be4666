"""How the labels of samples were read at `fit`, frozen to be read so again.

One object holds the batch levels, further batch factors, and the encodings of kept
covariates and of nuisances, and makes the `Design` of any rows.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np

from batchcorr.design.covariates import CovariateEncoding
from batchcorr.design.design import Design
from batchcorr.design.labels import BatchLabels
from batchcorr.design.numerals import refuse_measurements
from batchcorr.design.saved import read_encoding, to_json
from batchcorr.errors import DesignError, InputError, some

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

    from batchcorr.design.levels import Level

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
    subject
        Who each sample is of, where samples of one subject are alike.
    design
        The design these were read into by the estimator that is given them; None: not
        read yet.
    """

    batch: Any = None
    covariates: Any = None
    nuisance: Any = None
    design: Design | None = None
    subject: Any = None


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
    levels, n_batches
        Labels of the batches, in the order of every array by batch, and their number;
        one where there is no batch factor.
    names, terms
        Name of each design column, kept ones first, and the covariate it belongs to.
    kept
        Number of kept columns.
    """

    batch: BatchLabels | None
    factors: tuple[BatchLabels, ...]
    covariates: CovariateEncoding
    nuisance: CovariateEncoding
    binary: tuple[bool, ...] | None = None
    levels: tuple[Level, ...] = field(init=False, compare=False, repr=False)
    n_batches: int = field(init=False, compare=False, repr=False)
    names: tuple[str, ...] = field(init=False, compare=False, repr=False)
    terms: tuple[str, ...] = field(init=False, compare=False, repr=False)
    kept: int = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        covariates, nuisance = self.covariates, self.nuisance
        levels = ("all",) if self.batch is None else self.batch.levels
        contrasts = [(f.name, level) for f in self.factors for level in f.levels[:-1]]
        shown = [f"{name}[{level}]" for name, level in contrasts]
        factors = [name for name, _ in contrasts]
        vars(self).update(
            levels=levels,
            n_batches=len(levels),
            names=(*covariates.names, *shown, *nuisance.names),
            terms=(*covariates.terms, *factors, *nuisance.terms),
            kept=len(covariates.names),
        )

    @classmethod
    def fit_transform(
        cls,
        n_rows: int,
        labels: Labels,
        *,
        formula: str | None = None,
        batches: Iterable[object] | None = None,
        levels: Mapping[str, Iterable[object]] | None = None,
    ) -> tuple[Self, Design]:
        """Levels and encodings as found in some rows, and the design of these.

        Parameters
        ----------
        n_rows
            Number of rows.
        labels
            What is known of them.
        formula
            Which covariates to keep, and how.
        batches, levels
            All batches, and all levels of covariates by name: declared, not found.
        """
        if labels.covariates is None and formula is not None:
            msg = (
                f"The formula {formula!r} needs a table with the columns that it "
                "names: give the table as covariates=."
            )
            raise InputError(msg)
        factors, codes = [], []
        for k, given in enumerate(_factors(labels.batch), start=1):
            factor, of_rows = BatchLabels.factorize(
                given,
                n_rows=n_rows,
                name=f"batch factor {k}" if k > 1 else "batch",
                levels=batches if k == 1 else None,
            )
            if batches is None:
                refuse_measurements(factor.levels, n_rows, factor.name)
            factors.append(factor)
            codes.append(of_rows)
        covariates, kept = CovariateEncoding.fit_transform(
            labels.covariates, n_rows, formula=formula, levels=levels
        )
        nuisance, removed = CovariateEncoding(role="nuisance"), None
        if labels.nuisance is not None:
            nuisance, removed = CovariateEncoding.fit_transform(
                labels.nuisance,
                n_rows,
                role="nuisance",
                levels=None if levels is None else {},
            )
        batch = factors[0] if factors else None
        metadata = cls(batch, tuple(factors[1:]), covariates, nuisance)
        design = metadata._design(n_rows, codes, kept, removed)
        return replace(metadata, binary=tuple(design.binary.tolist())), design

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
        factors = self.factors if self.batch is None else (self.batch, *self.factors)
        if len(given) != len(factors):
            msg = (
                f"The correction was fitted with {len(factors)} batch factor(s), but "
                f"{len(given)} are given: batch= must have the same factors as in fit."
            )
            raise DesignError(msg)
        codes = [
            factor.codes(of_factor, n_rows=n_rows)
            for factor, of_factor in zip(factors, given, strict=True)
        ]
        if self.nuisance.names and labels.nuisance is None:
            msg = (
                "This correction removes nuisance effects and needs their values: give "
                "nuisance= with the columns "
                f"{some(map(repr, self.nuisance.required or self.nuisance.names))}."
            )
            raise InputError(msg)
        removed = self.nuisance.columns(labels.nuisance, n_rows)
        kept = self.covariates.columns(labels.covariates, n_rows) if keep else None
        return self._design(n_rows, codes, kept, removed)

    def _design(
        self,
        n_rows: int,
        codes: list[NDArray[np.int32]],
        kept: NDArray[np.float64] | None,
        removed: NDArray[np.float64] | None,
    ) -> Design:
        """The design of rows by their codes in each batch factor, and their columns."""
        if self.batch is None:
            codes = [np.zeros(n_rows, dtype=np.int32)]
        blocks = [
            _contrasts(of_rows, len(factor.levels))
            for factor, of_rows in zip(self.factors, codes[1:], strict=True)
        ]
        if removed is not None:
            blocks.append(removed)
        binary = self.binary
        if binary is not None and kept is None:
            binary = binary[self.kept :]
        nuisance = np.hstack(blocks) if blocks else None
        return Design.of(codes[0], self.n_batches, kept, nuisance, binary)

    def extend(self, other: Self) -> Self:
        """The metadata with the batches of `other` after its own."""
        if self.batch is None or other.batch is None:
            msg = "This correction has no batches, so none can be added."
            raise DesignError(msg)
        levels = (*self.batch.levels, *other.batch.levels)
        return replace(self, batch=replace(self.batch, levels=levels))

    def to_json(self) -> dict[str, object]:
        """Plain values that `from_json` reads."""
        return {
            "batch": self.batch and self.batch.to_json(),
            "factors": [factor.to_json() for factor in self.factors],
            "covariates": to_json(self.covariates),
            "nuisance": to_json(self.nuisance),
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
            covariates=read_encoding(saved["covariates"]),
            nuisance=read_encoding(saved["nuisance"]),
            binary=None if binary is None else tuple(binary),
        )
        if binary is not None and (
            len(binary) != len(metadata.names)
            or not all(isinstance(each, bool) for each in binary)
        ):
            msg = f"binary must be true or false for {len(metadata.names)} columns."
            raise InputError(msg)
        return metadata


def _factors(batch: Any) -> list[Any]:
    """The batch factors one by one: a table or 2-D array may hold several."""
    if batch is None:
        return []
    if hasattr(batch, "columns"):
        return [batch.iloc[:, k] for k in range(batch.shape[1])]
    if getattr(batch, "ndim", 1) == 2:
        return list(np.asarray(batch).T)
    return [batch]


def _contrasts(codes: NDArray[np.int32], n_levels: int) -> NDArray[np.float64]:
    """Sum-to-zero contrasts: a column per level but the last, which has -1 in all."""
    last = n_levels - 1
    columns = np.zeros((len(codes), last))
    rows = np.flatnonzero(codes < last)
    columns[rows, codes[rows]] = 1.0
    columns[codes == last] = -1.0
    return columns
