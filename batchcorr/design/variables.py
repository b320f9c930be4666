"""One column of a table: numbers, or labels with known levels."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd

from batchcorr.design.distinct import named
from batchcorr.design.labels import BatchLabels, Level
from batchcorr.design.numerals import numbers_as_text
from batchcorr.errors import CovariateWarning, DesignError, InputError, warn

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Variable", "refuse_non_finite"]

Floats: TypeAlias = npt.NDArray[np.float64]
FEW_VALUES = 5


@dataclass(frozen=True)
class Variable:
    """One column of a table, as learned: numbers, or labels with known levels.

    Attributes
    ----------
    column
        The name of the column.
    labels
        Its labels; None if the column holds numbers.
    levels
        Their levels; None if the column holds numbers.
    """

    column: str
    labels: BatchLabels | None = None
    levels: tuple[Level, ...] | None = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        levels = None if self.labels is None else self.labels.levels
        object.__setattr__(self, "levels", levels)

    @classmethod
    def fit_transform(
        cls,
        values: pd.Series,
        column: str,
        *,
        role: str = "covariate",
        levels: Iterable[object] | None = None,
        category: bool = False,
        quiet: bool = False,
    ) -> tuple[Variable, npt.NDArray[Any]]:
        """Decide what a column holds, and encode it; refuse what cannot be a covariate.

        Parameters
        ----------
        values
            The column.
        column
            Its name.
        role
            What the column is called in messages.
        levels
            Levels declared in advance: the column then holds labels.
        category
            Whether numbers are meant as labels.
        quiet
            Whether to say nothing of numbers that look like labels.

        Warns
        -----
        CovariateWarning
            If numbers look like labels (few different values, all of them integers), or
            labels like numbers.

        Examples
        --------
        >>> sex, codes = Variable.fit_transform(pd.Series(["b", "a", "b"]), "sex")
        >>> sex.levels, codes
        (('a', 'b'), array([1, 0, 1], dtype=int32))
        """
        name = f"{role} {column!r}"
        if levels is None and not category and not _holds_labels(values, name):
            numbers = _numbers(values, name)
            if not quiet:
                _warn_few_values(numbers, name)
            return cls(column), numbers
        labels, codes = BatchLabels.factorize(values, name=name, levels=levels)
        if levels is None and not category:
            _check_labels(values, labels, codes)
        return cls(column, labels), codes

    def encode(self, values: pd.Series, role: str = "covariate") -> npt.NDArray[Any]:
        """Return the values as float64, or the codes of the labels as int32.

        Examples
        --------
        >>> Variable("sex", BatchLabels(("a", "b"))).encode(pd.Series(["b", "a"]))
        array([1, 0], dtype=int32)
        """
        if self.labels is not None:
            return self.labels.codes(values, unknown=DesignError)
        name = f"{role} {self.column!r}"
        if _holds_labels(values, name):
            labels = BatchLabels.fit(values, name=name).levels
            msg = (
                f"{name} had numbers in fit but now has labels, such as {labels[0]!r}."
            )
            raise DesignError(msg)
        return _numbers(values, name)


def refuse_non_finite(numbers: Floats, name: str, index: pd.Index) -> None:
    """Refuse missing and infinite numbers, by the names of the samples in the index."""
    bad = np.flatnonzero(~np.isfinite(numbers))
    if bad.size:
        what = "missing" if np.isnan(numbers[bad]).all() else "missing or infinite"
        msg = (
            f"{name} is {what} in {bad.size} of {len(numbers)} samples "
            f"({named(index, bad)}). Fill in these values or drop the samples."
        )
        raise DesignError(msg)


def _holds_labels(values: pd.Series, name: str) -> bool:
    """Return whether a column holds labels, False if numbers; refuse the rest."""
    dtype, types = values.dtype, pd.api.types
    if isinstance(dtype, pd.CategoricalDtype) or types.is_bool_dtype(dtype):
        return True
    kind = str(dtype)
    if types.is_object_dtype(dtype) or types.is_string_dtype(dtype):
        kind = types.infer_dtype(values, skipna=True)
        if kind in {"integer", "floating", "mixed-integer-float", "decimal"}:
            return False
        if kind in {"string", "boolean", "bytes", "mixed", "mixed-integer", "empty"}:
            return True
    elif types.is_numeric_dtype(dtype) and not types.is_complex_dtype(dtype):
        return False
    msg = (
        f"{name} contains {kind} values; only text, categories, booleans and numbers "
        "are possible. Convert dates to numbers of days or to categories."
    )
    raise InputError(msg)


def _numbers(values: pd.Series, name: str) -> Floats:
    """A column of numbers as float64, none of them missing or infinite."""
    numbers = values.to_numpy(dtype=np.float64, na_value=np.nan)
    refuse_non_finite(numbers, name, values.index)
    return numbers


def _check_labels(
    values: pd.Series, labels: BatchLabels, codes: npt.NDArray[np.int32]
) -> None:
    """Refuse text with about as many levels as samples; warn of numbers as text."""
    n_rows, n_levels = len(values), len(labels.levels)
    category = isinstance(values.dtype, pd.CategoricalDtype)
    number = numbers_as_text(labels.levels, category=category)
    where = ""
    if number is not None:
        rows = np.flatnonzero(codes == labels.levels.index(number))
        where = f"({number!r}: {named(values.index, rows[:1])})"
    if n_levels > 2 and n_levels > (n_rows - 1 if category else n_rows / 2):
        guess = "an identifier of samples: leave it out"
        if number is not None:
            guess = f"numbers stored as text {where}: convert it with pandas.to_numeric"
        msg = f"{labels.name} has {n_levels} levels in {n_rows} samples, like {guess}."
        raise DesignError(msg)
    if number is not None:
        msg = (
            f"{labels.name} contains numbers stored as text {where} and is read as "
            f"{n_levels} categories. If they are numbers, convert it with "
            "pandas.to_numeric; if they are labels, write C(column) in a formula."
        )
        warn(msg, CovariateWarning)


def _warn_few_values(numbers: Floats, name: str) -> None:
    """Warn of integers with so few values that they may be labels.

    Two values are no matter: as numbers and as labels they give the same model.
    """
    values = np.sort(pd.unique(numbers))
    few = 2 < len(values) <= FEW_VALUES and len(numbers) > 2 * len(values)
    if few and (values == np.round(values)).all():
        shown = ", ".join(f"{value:g}" for value in values)
        msg = (
            f"{name} has only the values {shown} and is read as a number, with one "
            "slope. If these are labels, make it a category: "
            'table[column].astype("category"), or C(column) in a formula.'
        )
        warn(msg, CovariateWarning)
