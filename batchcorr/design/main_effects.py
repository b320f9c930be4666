"""Variables of a table as main effects: a column for a number, one a level but the first."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from batchcorr.design.variables import Variable

__all__ = ["main_effect_names", "main_effects"]


def main_effect_names(variables: Sequence[Variable]) -> tuple[list[str], list[str]]:
    """The name of each column, such as ``sex[m]``, and the variable it is of.

    Examples
    --------
    >>> from batchcorr.design.labels import BatchLabels
    >>> from batchcorr.design.variables import Variable
    >>> main_effect_names([Variable("sex", BatchLabels(("f", "m"))), Variable("age")])
    (['sex[m]', 'age'], ['sex', 'age'])
    """
    names, terms = [], []
    for variable in variables:
        own = [variable.column]
        if variable.levels is not None:
            own = [f"{variable.column}[{level}]" for level in variable.levels[1:]]
        names += own
        terms += [variable.column] * len(own)
    return names, terms


def main_effects(
    variables: Sequence[Variable], values: Sequence[NDArray[np.generic]], n_rows: int
) -> NDArray[np.float64]:
    """The columns for the values of each variable, numbers or codes: (n, p)."""
    design = np.zeros((n_rows, len(main_effect_names(variables)[0])))
    place = 0
    for variable, value in zip(variables, values, strict=True):
        if variable.levels is None:
            design[:, place] = value
            place += 1
        else:
            rows = np.flatnonzero(value)
            design[rows, place + value[rows] - 1] = 1.0
            place += len(variable.levels) - 1
    return design
