"""Covariates as design columns: learned once, encoded the same way ever after.

Labels become one column for every level but the first, the reference; numbers stay as
they are. There is no intercept: the model has one for every batch, so that a column
that never varies says nothing and is dropped.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd

from batchcorr.design.formula import Formula, Input
from batchcorr.design.formula_encoding import FormulaEncoding
from batchcorr.design.main_effects import main_effect_names, main_effects
from batchcorr.design.tables import Table, is_array, read_array, read_table, require
from batchcorr.design.variables import Variable
from batchcorr.errors import CovariateWarning, DesignError, InputError, warn

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = ["CovariateEncoding"]

Floats: TypeAlias = npt.NDArray[np.float64]

HUGE = 1e100
"""Numbers above it, or that differ by less than 1 / it, are refused: squares and products
with data must not leave the range of float64, which ends at 1e308."""


@dataclass(frozen=True)
class CovariateEncoding:
    """How covariates become the columns of a design.

    Attributes
    ----------
    names
        The name of each column, such as ``cancer[Normal]``: p of them.
    terms
        The term that each column belongs to, such as ``cancer``: p of them.
    required
        The columns that a table must have.
    variables
        What the columns of the table hold.
    formula
        The formula; None where each variable is a main effect.
    width
        The number of columns of a plain array of numbers; None for a table.
    kept
        The positions of the columns that vary, among all that the covariates give.
    role
        What covariates are called in messages.

    Examples
    --------
    >>> obs = pd.DataFrame({"sex": ["m", "f", "f"], "age": [30.5, 41.0, 52.5]})
    >>> encoding, columns = CovariateEncoding.fit_transform(obs, 3)
    >>> encoding.names
    ('sex[m]', 'age')
    >>> columns
    array([[ 1. , 30.5],
           [ 0. , 41. ],
           [ 0. , 52.5]])
    """

    names: tuple[str, ...] = ()
    terms: tuple[str, ...] = ()
    required: tuple[str, ...] = ()
    variables: tuple[Variable, ...] = ()
    formula: FormulaEncoding | None = None
    width: int | None = None
    kept: tuple[int, ...] = ()
    role: str = "covariate"

    @classmethod
    def fit_transform(
        cls,
        covariates: object,
        n_rows: int,
        *,
        formula: str | None = None,
        levels: Mapping[str, Iterable[object]] | None = None,
        role: str = "covariate",
    ) -> tuple[CovariateEncoding, Floats]:
        """The encoding found in some rows, and the design columns of these: (n, p).

        Parameters
        ----------
        covariates
            A DataFrame, a Series or 1-D array (one covariate), a 2-D array of numbers
            (design columns), or None.
        n_rows
            n, the number of rows.
        formula
            Which columns of the table to use and how, such as ``"~ sex + age"``;
            without one every column is a main effect.
        levels
            The levels of some columns, by name. Giving them, even as ``{}``, says that
            these rows are the first of several parts: columns that do not vary here
            are then kept.
        role
            What covariates are called in messages.

        Raises
        ------
        DesignError
            If values are missing or infinite, or text looks like an identifier.
        InputError
            If these are not n rows, or hold what is neither label nor number, or if
            the formula holds what is not allowed.
        MissingKeyError
            If a column that the formula names does not exist.

        Warns
        -----
        CovariateWarning
            If a column does not vary, or numbers look like labels.
        """
        parsed = None if formula is None else Formula.parse(formula)
        if parsed is not None and not isinstance(covariates, pd.DataFrame | pd.Series):
            msg = (
                f"The formula {formula!r} needs the columns of a DataFrame: give "
                f"{role}s as a DataFrame, not as {type(covariates).__name__}."
            )
            raise InputError(msg)
        if covariates is None:
            return cls(role=role), np.empty((n_rows, 0))
        if is_array(covariates, role):
            design = read_array(covariates, n_rows, role)
            places = [f"{role}[{place}]" for place in range(design.shape[1])]
            encoding = cls(width=design.shape[1], role=role)
            return encoding._keep(design, places, places, everything=levels is not None)
        table = read_table(covariates, n_rows, role)
        declared = {str(name): given for name, given in (levels or {}).items()}
        if declared:
            require(declared, table, f"{role} levels")
        inputs = tuple(map(Input, table))
        if parsed is not None:
            inputs = parsed.inputs
            require([source.column for source in inputs], table, role)
        read = [
            Variable.fit_transform(
                table[source.column],
                source.column,
                role=role,
                levels=source.levels or declared.get(source.column),
                category=source.category,
                quiet=parsed is not None and not parsed.alone(place),
            )
            for place, source in enumerate(inputs)
        ]
        variables = tuple(variable for variable, _ in read)
        values = [value for _, value in read]
        required = tuple(dict.fromkeys(variable.column for variable in variables))
        encoding = cls(required=required, variables=variables, role=role)
        if parsed is None:
            design = main_effects(variables, values, n_rows)
        else:
            known = [variable.levels for variable in variables]
            built, design = FormulaEncoding.fit_transform(parsed, values, known)
            encoding = replace(encoding, formula=built)
            design = design if variables else np.empty((n_rows, 0))
        for variable in variables:
            if variable.levels is not None and len(variable.levels) == 1:
                _warn_constant(f"{role} {variable.column!r}")
        names, terms = encoding.all_names()
        return encoding._keep(design, names, terms, everything=levels is not None)

    @classmethod
    def of_variables(cls, variables: tuple[Variable, ...]) -> CovariateEncoding:
        """The encoding of variables that are known, each a main effect."""
        names, terms = main_effect_names(variables)
        required = tuple(variable.column for variable in variables)
        every = tuple(range(len(names)))
        return cls(tuple(names), tuple(terms), required, variables, kept=every)

    def columns(self, covariates: object, n_rows: int) -> Floats:
        """The design columns of these rows: (n, p), C-ordered.

        Parameters
        ----------
        covariates
            The kind of thing that was learned from; a table may have further columns.
        n_rows
            n, the number of rows.

        Raises
        ------
        DesignError
            If a level was never seen, or values are missing or infinite.
        InputError
            If these are not n rows, or an array of another width.
        MissingKeyError
            If a column is missing.
        """
        if self.width is not None:
            design = read_array(covariates, n_rows, self.role)
            if design.shape[1] != self.width:
                msg = (
                    f"{self.role}s have {design.shape[1]} design columns, but had "
                    f"{self.width} in fit."
                )
                raise InputError(msg)
        elif self.required:
            table = read_table(covariates, n_rows, self.role, self.required)
            design = self._design(table, n_rows)
        else:
            if covariates is not None and not isinstance(covariates, pd.DataFrame):
                msg = (
                    f"The correction was fitted without {self.role}s, so that none can "
                    "be given."
                )
                raise InputError(msg)
            design = np.empty((n_rows, 0))
        return self._kept(design)

    def all_names(self) -> tuple[Sequence[str], Sequence[str]]:
        """Names and terms of all columns that a table gives."""
        if self.formula is not None:
            return self.formula.names, self.formula.terms
        return main_effect_names(self.variables)

    def _design(self, table: Table, n_rows: int) -> Floats:
        """All columns that a table gives."""
        values = [v.encode(table[v.column], self.role) for v in self.variables]
        if self.formula is not None:
            if not values:
                return np.empty((n_rows, 0))
            return self.formula.columns(values)
        return main_effects(self.variables, values, n_rows)

    def _keep(
        self,
        design: Floats,
        names: Sequence[str],
        terms: Sequence[str],
        *,
        everything: bool,
    ) -> tuple[CovariateEncoding, Floats]:
        """The encoding with the columns that vary, and those columns."""
        varies = np.ones(design.shape[1], bool)
        if not everything and design.size:
            varies = design.min(axis=0) < design.max(axis=0)
        if self.width is None:
            for place in np.flatnonzero(~varies).tolist():
                _warn_constant(f"{self.role} {names[place]!r}")
        kept = tuple(np.flatnonzero(varies).tolist())
        encoding = replace(
            self,
            names=tuple(names[place] for place in kept),
            terms=tuple(terms[place] for place in kept),
            kept=kept,
        )
        return encoding, encoding._kept(design)

    def _kept(self, design: Floats) -> Floats:
        """Those of all columns that varied at `fit`: C-ordered."""
        if len(self.kept) < design.shape[1]:
            design = design[:, list(self.kept)]
        if len(design):
            self._refuse_extreme(design)
        return np.ascontiguousarray(design)

    def _refuse_extreme(self, design: Floats) -> None:
        """Refuse columns whose squares float64 cannot hold."""
        size = np.maximum(abs(design.min(axis=0)), abs(design.max(axis=0)))
        differ = np.ptp(design / np.maximum(size, 1), axis=0)
        bad = (size > HUGE) | ((differ > 0) & (differ < 1 / HUGE))
        for place in np.flatnonzero(bad)[:1].tolist():
            msg = (
                f"{self.role} {self.names[place]!r} has values of about "
                f"{size[place]:.0e}, too large or too small to be squared: use other "
                "units, or replace codes for missing values by NaN."
            )
            raise DesignError(msg)


def _warn_constant(name: str) -> None:
    """Warn of a covariate that never varies."""
    msg = f"{name} has the same value in all samples and is left out."
    warn(msg, CovariateWarning)
