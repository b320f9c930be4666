"""Encodings of covariates as plain values, and read from such: a file is not trusted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import isfinite
from typing import TYPE_CHECKING, Any

from batchcorr.design.covariates import CovariateEncoding
from batchcorr.design.formula import Formula
from batchcorr.design.formula_encoding import FormulaEncoding
from batchcorr.design.formula_options import STATES, is_number
from batchcorr.design.labels import BatchLabels
from batchcorr.design.variables import Variable
from batchcorr.errors import InputError

if TYPE_CHECKING:
    from batchcorr.design.labels import Level

__all__ = ["formula_to_json", "read_encoding", "read_formula", "to_json"]


def to_json(encoding: CovariateEncoding) -> dict[str, object]:
    """An encoding as plain values that `read_encoding` reads.

    Examples
    --------
    >>> import pandas as pd
    >>> ages = pd.DataFrame({"age": [1.5, 2.5]})
    >>> encoding, _ = CovariateEncoding.fit_transform(ages, 2)
    >>> read_encoding(to_json(encoding)) == encoding
    True
    """
    formula = encoding.formula
    return {
        "role": encoding.role,
        "names": list(encoding.names),
        "terms": list(encoding.terms),
        "variables": [
            {"column": each.column, "labels": each.labels and each.labels.to_json()}
            for each in encoding.variables
        ],
        "formula": None if formula is None else formula_to_json(formula),
        "width": encoding.width,
        "kept": list(encoding.kept),
    }


def formula_to_json(encoding: FormulaEncoding) -> dict[str, object]:
    """A formula and its state as plain values that `read_formula` reads."""
    return {
        "formula": encoding.formula.text,
        "names": list(encoding.names),
        "terms": list(encoding.terms),
        "state": encoding.state,
    }


def read_encoding(saved: Mapping[str, Any]) -> CovariateEncoding:
    """Read what `to_json` wrote, and check it.

    Raises
    ------
    InputError
        If it is not what `to_json` writes, or the formula is not allowed.
    """
    try:
        lists = [saved[key] for key in ("names", "terms", "kept", "variables")]
        names, terms, kept, variables = (tuple(x) for x in lists)
        formula, width, role = saved["formula"], saved["width"], saved["role"]
        variables = tuple(map(_variable, variables))
        required = tuple(dict.fromkeys(variable.column for variable in variables))
        if formula is not None:
            known = [variable.levels for variable in variables]
            formula = read_formula(formula, known)
        encoding = CovariateEncoding(
            names, terms, required, variables, formula, width, kept, role
        )
        total = len(encoding.all_names()[0]) if width is None else width
        whole = (
            all(isinstance(each, list) for each in lists)
            and len(names) == len(terms) == len(kept)
            and all(isinstance(text, str) for text in (*names, *terms, role))
            and all(type(place) is int for place in (*kept, total))
            and all(a < b for a, b in pairwise((-1, *kept, total)))
            and (width is None or not (variables or formula))
        )
        damage = "" if whole else "its columns"
    except (AttributeError, KeyError, TypeError) as error:
        damage = f"{type(error).__name__} {error}"
    if damage:
        msg = f"Saved {CovariateEncoding.role}s are damaged: {damage}."
        raise InputError(msg)
    return encoding


def _variable(saved: Mapping[str, Any]) -> Variable:
    column, labels = saved["column"], saved["labels"]
    if not isinstance(column, str):
        msg = f"A saved column has the name {column!r:.40}."
        raise InputError(msg)
    return Variable(column, None if labels is None else BatchLabels.from_json(labels))


def read_formula(
    saved: Mapping[str, Any], levels: Sequence[tuple[Level, ...] | None]
) -> FormulaEncoding:
    """A saved formula, which is checked anew, with its state; levels of its inputs.

    Raises
    ------
    InputError
        If the formula holds what is not allowed, or its state is not its own.
    """
    formula = Formula.parse(saved["formula"])
    if len(levels) != len(formula.inputs):
        msg = f"The formula {formula.text!r} reads {len(formula.inputs)} columns."
        raise InputError(msg)
    state = saved["state"]
    wanted = {name: STATES.get(f, set()) for name, f in formula.stateful.items()}
    if {name: set(kept) for name, kept in state.items()} != wanted:
        msg = f"The saved state of the formula {formula.text!r} is not its own."
        raise InputError(msg)
    if not all(_is_numeric(v) for kept in state.values() for v in kept.values()):
        msg = f"The saved state of the formula {formula.text!r} must be numbers."
        raise InputError(msg)
    names, terms = tuple(saved["names"]), tuple(saved["terms"])
    return FormulaEncoding(formula, tuple(levels), names, terms, state)


def _is_numeric(value: Any) -> bool:
    """Whether a kept value is made of finite numbers alone."""
    if isinstance(value, Mapping):
        return all(map(str.isdecimal, value)) and all(map(_is_numeric, value.values()))
    if isinstance(value, list):
        return all(map(_is_numeric, value))
    return value is None or (is_number(value) and isfinite(value))
