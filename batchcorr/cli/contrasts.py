"""What `--test` names: a column, or two of its levels; and how results name them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import pandas as pd

__all__ = ["Pair", "compared", "read_test"]

Pair = tuple[str, str, str]
"""A column, and the two levels of it that are compared."""


def read_test(
    text: str,
    columns: Mapping[str, Iterable[object]] | pd.DataFrame,
    where: str = "column of adata.obs",
) -> str | Pair:
    """A column, or a column with the two levels that are compared: see `read_pair`."""
    from batchcorr.estimators.contrasts import read_pair

    return read_pair(text, columns, where)


def compared(test: str | Pair, levels: Sequence[object] | None) -> tuple[str, str]:
    """What the test of one contrast or of all compares, and the others' reference.

    Parameters
    ----------
    levels
        Levels of a tested column, the reference first; None: it holds numbers.

    Examples
    --------
    >>> compared("group", ["well", "ill"])
    ('ill against well', ' against well')
    """
    if not isinstance(test, str):
        return f"{test[1]} against {test[2]}", ""
    if levels is None:
        return f"slope of {test}", ""
    against = f" against {levels[0]}"
    if len(levels) == 2:
        return f"{levels[1]}{against}", against
    return f"any difference in {test}", against
