"""What is tested: a column, or a contrast of its levels, as it is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from batchcorr.errors import InputError, MissingKeyError, did_you_mean, some

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

__all__ = ["Contrast", "read_contrast", "read_pair", "with_tested"]


class Contrast(NamedTuple):
    """What is tested: a column, or weights of its levels that sum to 0."""

    column: str
    weights: Mapping[str, float] | None = None


def read_contrast(
    test: object, columns: Mapping[str, Iterable[object]] | pd.DataFrame | None = None
) -> Contrast:
    """What a caller means by `test`.

    Parameters
    ----------
    test
        The name of a column; two levels of it, ``"column:level-reference"`` or ``(column,
        level, reference)``; or ``(column, {level: weight, …})`` with weights that sum to 0.
    columns
        The table of samples, or levels by column, by which text is read; None: text is a
        column.

    Raises
    ------
    InputError
        If it is none of these, or text can be read in two ways.
    MissingKeyError
        If text names no column, or no levels of one.

    Examples
    --------
    >>> read_contrast(("group", "treated", "control")).weights
    {'treated': 1.0, 'control': -1.0}
    """
    if isinstance(test, str):
        if columns is None:
            return Contrast(test)
        test = read_pair(test, columns)
        if isinstance(test, str):
            return Contrast(test)
    if isinstance(test, tuple | list) and test and isinstance(test[0], str):
        weights = _as_weights(*test[1:])
        total = sum(weights.values())
        if any(weights.values()) and abs(total) <= 1e-9:  # neither is so of NaN
            return Contrast(test[0], weights)
    msg = (
        'test must be the name of a column, two levels of it, "column:level-reference" or '
        "(column, level, reference), or (column, {level: weight, …}) with weights that "
        f"sum to 0, not {test!r:.80}."
    )
    raise InputError(msg)


def read_pair(
    text: str,
    columns: Mapping[str, Iterable[object]] | pd.DataFrame,
    where: str = "column of adata.obs",
) -> str | tuple[str, str, str]:
    """A column, or a column with the two levels that are compared.

    Parameters
    ----------
    text
        ``column`` or ``column:A-B``. Names may hold a colon, and levels a dash: what the
        samples have decides.

    Raises
    ------
    MissingKeyError
        If there is no such column, or it has no such levels.
    InputError
        If the text can be read in two ways.

    Examples
    --------
    >>> read_pair("group:ill-well", {"group": ["ill", "well"]})
    ('group', 'ill', 'well')
    """
    known = list(map(str, columns))
    if text in known:
        return text
    named = [name for name in known if text.startswith(f"{name}:")]
    if not named:
        name = text.partition(":")[0]
        msg = (
            f"The tested column {name!r} is not a {where}. {did_you_mean(name, known)}"
        )
        raise MissingKeyError(msg)
    column = max(named, key=len)
    pair = text.removeprefix(f"{column}:")
    labels = pd.Series(list(columns[column]), dtype=object)
    levels = sorted(set(map(str, labels.dropna())))
    cuts = [k for k, letter in enumerate(pair) if letter == "-"]
    ways = [(pair[:k].strip(), pair[k + 1 :].strip()) for k in cuts]
    possible = [way for way in ways if set(way) <= set(levels)]
    if len(possible) > 1:
        two = some(map(" and ".join, possible))
        msg = f"The test {text!r} can be read in two ways: {two}."
        raise InputError(msg)
    if not possible or possible[0][0] == possible[0][1]:
        msg = (
            f"The test {text!r} must be {column}:A-B, with two levels of {column!r}: "
            f"{some(map(repr, levels))}."
        )
        raise MissingKeyError(msg)
    return (column, *possible[0])


def _as_weights(*given: object) -> dict[str, float]:
    """The weight of each level, by name; none where they cannot be read."""
    if len(given) == 2 and given[0] != given[1]:
        return {str(given[0]): 1.0, str(given[1]): -1.0}
    if len(given) == 1 and hasattr(given[0], "items"):
        try:
            return {str(level): float(weight) for level, weight in given[0].items()}
        except (TypeError, ValueError):
            return {}
    return {}


def with_tested(
    obs: pd.DataFrame, covariates: Any, formula: str | None, column: str
) -> tuple[Any, str | None]:
    """The covariates with the tested column among them, and their formula.

    Parameters
    ----------
    covariates, formula
        What else the model holds, as a table or design columns, and how.

    Raises
    ------
    MissingKeyError
        If there is no such column.
    """
    if column not in obs.columns:
        msg = (
            f"The tested column {column!r} is not a column of adata.obs. "
            f"{did_you_mean(column, obs.columns)}"
        )
        raise MissingKeyError(msg)
    if formula is not None:
        terms = {term.strip() for term in formula.replace("~", "+").split("+")}
        return covariates, formula if column in terms else f"{formula} + {column}"
    own = obs[[column]]
    if covariates is None:
        return own, None
    if not hasattr(covariates, "columns"):
        values = np.asarray(covariates)
        values = values.reshape(len(values), -1)
        names = [f"covariate[{k}]" for k in range(values.shape[1])]
        covariates = pd.DataFrame(values, columns=names)
    if column in covariates.columns:
        return covariates, None
    covariates = covariates.set_axis(own.index, axis=0)
    return pd.concat([covariates, own], axis=1), None
