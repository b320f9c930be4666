"""Covariates as design columns: learned once, encoded the same way ever after.

Labels become one column for every level but the first, the reference; numbers stay as
they are. There is no intercept: the model has one for every batch, so that a column
that never varies says nothing and is dropped.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd

from batchcorr.errors import (
    CovariateWarning,
    DesignError,
    InputError,
    MissingKeyError,
    did_you_mean,
)
from batchcorr.models.formula import Formula, FormulaEncoding
from batchcorr.models.labels import BatchLabels, Level

__all__ = ["CovariateEncoding", "Variable"]

Floats: TypeAlias = npt.NDArray[np.float64]
Table: TypeAlias = Mapping[str, "pd.Series[Any]"]
FEW_VALUES = 5


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
    >>> encoding = CovariateEncoding.learn(obs, 3)
    >>> encoding.names
    ('sex[m]', 'age')
    >>> encoding.columns(obs, 3)
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
    def learn(
        cls,
        covariates: Any,
        n_rows: int,
        *,
        formula: str | None = None,
        levels: Mapping[str, Iterable[Any]] | None = None,
        role: str = "covariate",
    ) -> CovariateEncoding:
        """Learn levels and the state of transforms from the rows of `fit`.

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
                f"The formula {formula!r} names columns of a table: give the {role}s "
                f"as a DataFrame, not as {type(covariates).__name__}."
            )
            raise InputError(msg)
        if covariates is None:
            return cls(role=role)
        if _is_array(covariates, role):
            design = _array(covariates, n_rows, role)
            places = [f"{role}[{place}]" for place in range(design.shape[1])]
            encoding = cls(width=design.shape[1], role=role)
            return encoding._keep(design, places, places, everything=levels is not None)
        table = _table(covariates, n_rows, role)
        declared = {str(name): given for name, given in (levels or {}).items()}
        _require(declared, table, f"{role} levels")
        if parsed is None:
            variables = tuple(
                Variable.learn(table[name], name, role=role, levels=declared.get(name))
                for name in table
            )
        else:
            _require((source.column for source in parsed.inputs), table, role)
            variables = tuple(
                Variable.learn(
                    table[source.column],
                    source.column,
                    role=role,
                    levels=source.levels or declared.get(source.column),
                    category=source.category,
                    quiet=not parsed.alone(place),
                )
                for place, source in enumerate(parsed.inputs)
            )
        required = tuple(dict.fromkeys(variable.column for variable in variables))
        encoding = cls(required=required, variables=variables, role=role)
        if parsed is not None:
            values = [v.encode(table[v.column], role) for v in variables]
            known = [v.levels for v in variables]
            encoding = replace(
                encoding, formula=FormulaEncoding.learn(parsed, values, known)
            )
        for variable in variables:
            if variable.levels is not None and len(variable.levels) == 1:
                _warn_constant(f"{role} {variable.column!r}")
        names, terms = encoding._all_names()
        design = encoding._design(table, n_rows)
        return encoding._keep(design, names, terms, everything=levels is not None)

    def columns(self, covariates: Any, n_rows: int) -> Floats:
        """Return the design columns of these rows: (n, p), C-ordered.

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
            design = _array(covariates, n_rows, self.role)
            if design.shape[1] != self.width:
                msg = (
                    f"{self.role}s have {design.shape[1]} design columns; they had "
                    f"{self.width} when they were learned."
                )
                raise InputError(msg)
        elif self.required:
            table = _table(covariates, n_rows, self.role, self.required)
            design = self._design(table, n_rows)
        else:
            if covariates is not None and not isinstance(covariates, pd.DataFrame):
                msg = f"No {self.role}s were learned, so that none can be given."
                raise InputError(msg)
            design = np.empty((n_rows, 0))
        if len(self.kept) < design.shape[1]:
            design = design[:, list(self.kept)]
        return np.ascontiguousarray(design)

    def to_json(self) -> dict[str, Any]:
        """Return plain values that `from_json` reads.

        Examples
        --------
        >>> encoding = CovariateEncoding.learn(pd.DataFrame({"age": [1.5, 2.5]}), 2)
        >>> CovariateEncoding.from_json(encoding.to_json()) == encoding
        True
        """
        return {
            "role": self.role,
            "names": list(self.names),
            "terms": list(self.terms),
            "variables": [variable.to_json() for variable in self.variables],
            "formula": None if self.formula is None else self.formula.to_json(),
            "width": self.width,
            "kept": list(self.kept),
        }

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> CovariateEncoding:
        """Read what `to_json` wrote, and check it.

        Parameters
        ----------
        saved
            The values.

        Raises
        ------
        InputError
            If they are not what `to_json` writes, or the formula is not allowed.
        """
        try:
            variables = tuple(Variable.from_json(each) for each in saved["variables"])
            required = tuple(dict.fromkeys(variable.column for variable in variables))
            formula, width = saved["formula"], saved["width"]
            if formula is not None:
                known = [variable.levels for variable in variables]
                formula = FormulaEncoding.from_json(formula, known)
            names, terms = tuple(saved["names"]), tuple(saved["terms"])
            kept, role = tuple(saved["kept"]), str(saved["role"])
            encoding = cls(
                names, terms, required, variables, formula, width, kept, role
            )
            total = len(encoding._all_names()[0]) if width is None else width
            whole = {len(names), len(terms)} == {len(kept)}
            damage = "" if whole and {*kept} <= {*range(total)} else f"columns {kept}"
        except (AttributeError, KeyError, TypeError) as error:
            damage = f"{type(error).__name__} {error}"
        if damage:
            msg = f"Saved {cls.role}s are damaged: {damage}."
            raise InputError(msg)
        return encoding

    def _all_names(self) -> tuple[Sequence[str], Sequence[str]]:
        """Return the names and terms of all columns that a table gives."""
        if self.formula is not None:
            return self.formula.names, self.formula.terms
        names, terms = [], []
        for variable in self.variables:
            own = [variable.column]
            if variable.levels is not None:
                own = [f"{variable.column}[{level}]" for level in variable.levels[1:]]
            names += own
            terms += [variable.column] * len(own)
        return names, terms

    def _design(self, table: Table, n_rows: int) -> Floats:
        """Return all columns that a table gives."""
        _require(self.required, table, self.role)
        values = [v.encode(table[v.column], self.role) for v in self.variables]
        if self.formula is not None:
            if not values:
                return np.empty((n_rows, 0))
            return self.formula.columns(values)
        design = np.zeros((n_rows, len(self._all_names()[0])))
        place = 0
        for variable, value in zip(self.variables, values, strict=True):
            if variable.levels is None:
                design[:, place] = value
                place += 1
            else:
                rows = np.flatnonzero(value)
                design[rows, place + value[rows] - 1] = 1.0
                place += len(variable.levels) - 1
        return design

    def _keep(
        self,
        design: Floats,
        names: Sequence[str],
        terms: Sequence[str],
        *,
        everything: bool,
    ) -> CovariateEncoding:
        """Return this encoding with the columns that vary."""
        varies = np.ones(design.shape[1], bool)
        if not everything and design.size:
            varies = design.min(axis=0) < design.max(axis=0)
        if self.width is None:
            for place in np.flatnonzero(~varies).tolist():
                _warn_constant(f"{self.role} {names[place]!r}")
        kept = tuple(np.flatnonzero(varies).tolist())
        return replace(
            self,
            names=tuple(names[place] for place in kept),
            terms=tuple(terms[place] for place in kept),
            kept=kept,
        )


@dataclass(frozen=True)
class Variable:
    """One column of a table, as learned: numbers, or labels with known levels.

    Attributes
    ----------
    column
        The name of the column.
    labels
        Its levels; None if the column holds numbers.
    """

    column: str
    labels: BatchLabels | None = None

    @property
    def levels(self) -> tuple[Level, ...] | None:
        """The levels; None if the column holds numbers."""
        return None if self.labels is None else self.labels.levels

    @classmethod
    def learn(
        cls,
        values: pd.Series[Any],
        column: str,
        *,
        role: str = "covariate",
        levels: Iterable[Any] | None = None,
        category: bool = False,
        quiet: bool = False,
    ) -> Variable:
        """Decide what a column holds, and refuse what cannot be a covariate.

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
            If numbers look like labels: few different values, all of them integers.

        Examples
        --------
        >>> Variable.learn(pd.Series(["b", "a", "b"]), "sex").labels.levels
        ('a', 'b')
        """
        name = f"{role} {column!r}"
        if levels is None and not category and not _holds_labels(values, name):
            numbers = _numbers(values, name)
            if not quiet:
                _warn_few_values(numbers, name)
            return cls(column)
        labels = BatchLabels.learn(values, name=name, levels=levels)
        if levels is None and not category:
            _refuse_identifier(values, labels)
        return cls(column, labels)

    def encode(
        self, values: pd.Series[Any], role: str = "covariate"
    ) -> npt.NDArray[Any]:
        """Return the values as float64, or the codes of the labels as int32.

        Parameters
        ----------
        values
            The column.
        role
            What the column is called in messages.

        Examples
        --------
        >>> Variable("sex", BatchLabels(("a", "b"))).encode(pd.Series(["b", "a"]))
        array([1, 0], dtype=int32)
        """
        if self.labels is not None:
            return self.labels.codes(values, unknown=DesignError)
        name = f"{role} {self.column!r}"
        if _holds_labels(values, name):
            msg = f"{name} held numbers when it was learned and now holds labels."
            raise DesignError(msg)
        return _numbers(values, name)

    def to_json(self) -> dict[str, Any]:
        """Return plain values that `from_json` reads."""
        labels = None if self.labels is None else self.labels.to_json()
        return {"column": self.column, "labels": labels}

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> Variable:
        """Read what `to_json` wrote.

        Parameters
        ----------
        saved
            The values.
        """
        labels = saved["labels"]
        known = None if labels is None else BatchLabels.from_json(labels)
        return cls(str(saved["column"]), known)


def _is_array(covariates: Any, role: str) -> bool:
    """Return whether these are design columns; refuse what cannot be covariates."""
    if isinstance(covariates, pd.DataFrame | pd.Series):
        return False
    if isinstance(covariates, str | Mapping) or not np.iterable(covariates):
        msg = (
            f"{role}s must be a DataFrame, a Series or an array with one row per "
            f"sample, not {covariates!r:.60} of type {type(covariates).__name__}."
        )
        raise InputError(msg)
    try:
        return np.ndim(covariates) != 1  # type: ignore[arg-type]
    except ValueError as error:
        msg = f"{role}s given as lists must have rows of the same length."
        raise InputError(msg) from error


def _array(covariates: Any, n_rows: int, role: str) -> Floats:
    """Return design columns given as numbers."""
    if covariates is None or not _is_array(covariates, role):
        msg = f"{role}s were learned from a 2-D array: give one with the same columns."
        raise InputError(msg)
    design = np.asarray(covariates)
    if design.ndim != 2 or design.dtype.kind not in "biuf":
        msg = (
            f"{role}s given as an array must be numbers, rows by columns, not "
            f"{design.dtype} of shape {design.shape}. Give labels in a DataFrame."
        )
        raise InputError(msg)
    _check_length(len(design), n_rows, role)
    design = design.astype(np.float64)
    for place, column in enumerate(design.T):
        _refuse_non_finite(column, f"{role}[{place}]")
    return design


def _table(
    covariates: Any, n_rows: int, role: str, required: Sequence[str] = ()
) -> Table:
    """Return the columns of a table by name; a single one may come without a name."""
    if covariates is None or _is_array(covariates, role):
        msg = (
            f"{role}s were learned from a table: give a DataFrame with the columns "
            f"{', '.join(map(repr, required))}."
        )
        raise InputError(msg)
    if not isinstance(covariates, pd.DataFrame):
        series = pd.Series(covariates)
        only = required[0] if len(required) == 1 else role
        nameless = series.name is None or tuple(required) == (role,)
        covariates = series.to_frame(only if nameless else series.name)
    _check_length(len(covariates), n_rows, role)
    names = [str(name) for name in covariates.columns]
    if len({*names}) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        msg = (
            f"The table of {role}s has columns of the same name, {twice}: rename them."
        )
        raise InputError(msg)
    columns = (covariates.iloc[:, place] for place in range(len(names)))
    return dict(zip(names, columns, strict=True))


def _require(needed: Iterable[str], table: Table, role: str) -> None:
    """Refuse a table that lacks a column."""
    for name in needed:
        if name not in table:
            msg = f"There is no column {name!r} ({role}). {did_you_mean(name, table)}"
            raise MissingKeyError(msg)


def _check_length(length: int, n_rows: int, role: str) -> None:
    """Refuse covariates of another number of rows."""
    if length != n_rows:
        msg = (
            f"{role}s have {length} rows for {n_rows} rows of data. Rows are samples: "
            "transpose the matrix if its samples are columns."
        )
        raise InputError(msg)


def _holds_labels(values: pd.Series[Any], name: str) -> bool:
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
        f"{name} holds {kind} values; text, categories, booleans and numbers are "
        "possible. Turn dates into numbers of days, or make categories of them."
    )
    raise InputError(msg)


def _numbers(values: pd.Series[Any], name: str) -> Floats:
    """Return a column of numbers as float64, none of them missing or infinite."""
    numbers = values.to_numpy(dtype=np.float64, na_value=np.nan)
    _refuse_non_finite(numbers, name)
    return numbers


def _refuse_non_finite(numbers: Floats, name: str) -> None:
    """Refuse missing and infinite numbers."""
    bad = np.flatnonzero(~np.isfinite(numbers))
    if bad.size:
        what = "missing" if np.isnan(numbers[bad]).all() else "missing or infinite"
        msg = (
            f"{name} is {what} in {bad.size} of {len(numbers)} samples (first in row "
            f"{bad[0]}). Fill in these values or drop the samples."
        )
        raise DesignError(msg)


def _refuse_identifier(values: pd.Series[Any], labels: BatchLabels) -> None:
    """Refuse text with about as many levels as there are samples."""
    n_rows, n_levels = len(values), len(labels.levels)
    explicit = isinstance(values.dtype, pd.CategoricalDtype)
    if n_levels <= 2 or n_levels <= (n_rows - 1 if explicit else n_rows / 2):
        return
    texts = pd.Series([str(level) for level in labels.levels])
    if pd.to_numeric(texts, errors="coerce").notna().all():
        guess = "numbers stored as text: convert it with pandas.to_numeric"
    else:
        guess = "an identifier of samples: leave it out"
    msg = f"{labels.name} has {n_levels} levels in {n_rows} samples, like {guess}."
    raise DesignError(msg)


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
        warnings.warn(msg, CovariateWarning, stacklevel=2)


def _warn_constant(name: str) -> None:
    """Warn of a covariate that never varies."""
    msg = f"{name} does not vary and is left out: it cannot tell samples apart."
    warnings.warn(msg, CovariateWarning, stacklevel=2)
