"""What a formula makes of columns: built by formulaic, and frozen with its state.

The model has an intercept for every batch. Columns are therefore always built beside an
intercept, so that labels have a reference level, and the intercept is left out of the
result; ``0``, ``1`` and ``- 1`` in a formula change nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from batchcorr.errors import DesignError, InputError

if TYPE_CHECKING:
    from batchcorr.design.formula import Formula
    from batchcorr.design.labels import Level

__all__ = ["FormulaEncoding"]

MAX_COLUMNS = 5000
# A column of formulaic's: a factor, and the level or the place within it.
PART = re.compile(r"(.+?)(?:\[(?:T\.)?(\w+)\])?")


@dataclass(frozen=True)
class FormulaEncoding:
    """A formula with the state that its functions keep of the rows of `fit`.

    Attributes
    ----------
    formula
        The formula.
    levels
        The levels of each input that holds labels; None for numbers.
    names
        The name of each column it gives, such as ``sex[f]:age``.
    terms
        The term that each column belongs to, such as ``sex:age``.
    state
        What each function keeps, in plain values.

    Examples
    --------
    >>> from batchcorr.design.formula import Formula
    >>> formula = Formula.parse("~ sex + center(age)")
    >>> sex, age = np.array([0, 1, 1]), np.array([30.0, 40.0, 50.0])
    >>> encoding, columns = FormulaEncoding.fit_transform(
    ...     formula, [sex, age], [("m", "f"), None]
    ... )
    >>> encoding.names
    ('sex[f]', 'center(age)')
    >>> columns
    array([[  0., -10.],
           [  1.,   0.],
           [  1.,  10.]])
    """

    formula: Formula
    levels: tuple[tuple[Level, ...] | None, ...]
    names: tuple[str, ...] = ()
    terms: tuple[str, ...] = ()
    state: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def fit_transform(
        cls,
        formula: Formula,
        values: Sequence[npt.NDArray[np.generic]],
        levels: Sequence[tuple[Level, ...] | None],
    ) -> tuple[FormulaEncoding, npt.NDArray[np.float64]]:
        """The encoding of a formula, found in some rows, and the columns of these.

        Parameters
        ----------
        formula
            The formula.
        values
            The values of each input: numbers, or codes of labels.
        levels
            The levels of each input that holds labels; None for numbers.

        Raises
        ------
        InputError
            If a function of numbers is given labels, or cannot be computed.
        DesignError
            If a function has no finite value for some of the rows.
        """
        for factor in formula.factors.values():
            column = formula.inputs[factor.source].column
            if factor.function and levels[factor.source] is not None:
                msg = f"{factor.written} needs numbers, but {column!r} contains labels."
                raise InputError(msg)
            distinct = len(pd.unique(values[factor.source])) if factor.degree else 1
            if distinct <= factor.degree:
                msg = (
                    f"{factor.written} needs more than {factor.degree} different values, "
                    f"but {column!r} has {distinct}."
                )
                raise InputError(msg)
        width = {
            f"v{place}": 1 if level is None else max(len(level) - 1, 1)
            for place, level in enumerate(levels)
        }
        total = sum(prod(width.get(f, 1) for f in term) for term in formula.terms)
        if total > MAX_COLUMNS:
            msg = (
                f"The formula {formula.text!r} gives {total} or more design columns, "
                "which is too many."
            )
            raise DesignError(msg)
        empty = cls(formula, tuple(levels))
        matrix, structure, state = empty._materialize(values)
        named = [
            (empty._show(name), ":".join(formula.factors[f].written for f in factors))
            for factors, columns in structure
            for name in columns
        ]
        encoding = cls(
            formula,
            tuple(levels),
            tuple(name for name, _ in named),
            tuple(term for _, term in named),
            _plain(state),
        )
        encoding._refuse_non_finite(matrix)
        return encoding, matrix

    def columns(
        self, values: Sequence[npt.NDArray[np.generic]]
    ) -> npt.NDArray[np.float64]:
        """Return the columns for the values of each input: (n, p).

        Raises
        ------
        DesignError
            If a function has no finite value for some of them.
        """
        matrix, _, _ = self._materialize(values)
        if matrix.shape[1] != len(self.names):
            msg = f"{self.formula.text!r} gives {matrix.shape[1]}, not {self.names}."
            raise InputError(msg)
        self._refuse_non_finite(matrix)
        return matrix

    def _refuse_non_finite(self, matrix: npt.NDArray[np.float64]) -> None:
        for name, column in zip(self.names, matrix.T, strict=True):
            bad = np.flatnonzero(~np.isfinite(column))
            if bad.size:
                msg = (
                    f"{name} has no finite value in {bad.size} of {len(column)} samples "
                    f"(first in row {bad[0]})."
                )
                raise DesignError(msg)

    def _materialize(
        self, values: Sequence[npt.NDArray[np.generic]]
    ) -> tuple[npt.NDArray[np.float64], list[tuple[list[str], list[str]]], Any]:
        """Have formulaic build the columns; return their terms and names, and state."""
        if not self.formula.terms:
            return np.empty((len(values[0]) if values else 0, 0)), [], {}
        from formulaic import ModelSpec
        from formulaic.errors import FormulaicError

        table = {}
        for place, levels in enumerate(self.levels):
            codes: Any = values[place]
            if levels is not None:
                known = pd.RangeIndex(len(levels))
                codes = pd.Categorical.from_codes(codes, categories=known)
            table[f"v{place}"] = codes
        spec = ModelSpec(
            formula=" + ".join(["1", *map(":".join, self.formula.terms)]),
            na_action="ignore",
            output="numpy",
            transform_state=_restored(self.state),
        )
        try:
            with np.errstate(all="ignore"):
                built = spec.get_model_matrix(pd.DataFrame(table), context={})
        except (FormulaicError, ValueError, ArithmeticError) as error:
            why = str(error)
            for name in sorted(self.formula.factors, key=len, reverse=True):
                why = why.replace(name, self.formula.factors[name].written)
            msg = f"The formula {self.formula.text!r} cannot be computed: {why}"
            raise DesignError(msg) from error
        structure = [
            ([factor.expr for factor in row.term.factors], list(row.columns))
            for row in built.model_spec.structure[1:]
        ]
        matrix = np.asarray(built, dtype=np.float64)[:, 1:]
        return matrix, structure, built.model_spec.transform_state

    def _show(self, column: str) -> str:
        """Return formulaic's name of a column in the user's words."""
        parts = []
        for part in column.split(":"):
            match = PART.fullmatch(part)
            name, place = match.groups() if match else (part, None)
            factor = self.formula.factors[name]
            levels = None if factor.function else self.levels[factor.source]
            if place is None:
                parts.append(factor.written)
            else:
                level = place if levels is None else levels[int(place)]
                parts.append(f"{factor.written}[{level}]")
        return ":".join(parts)


def _plain(state: object) -> Any:
    """Return what functions keep as plain values, the keys of mappings as text."""
    if isinstance(state, Mapping):
        return {str(key): _plain(value) for key, value in state.items()}
    return np.asarray(state).tolist()


def _restored(state: Mapping[str, Mapping[str, object]]) -> dict[str, dict[str, Any]]:
    """Return what functions keep as formulaic has it: mappings have whole keys."""
    return {
        name: {
            key: {int(k): v for k, v in value.items()} if type(value) is dict else value
            for key, value in kept.items()
        }
        for name, kept in state.items()
    }
