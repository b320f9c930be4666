"""What `--test` names: a column, or two of its levels; and how results name them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchcorr.errors import InputError, MissingKeyError, did_you_mean, some

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import pandas as pd

__all__ = ["Pair", "compared", "read_test"]

Pair = tuple[str, str, str]
"""A column, and the two levels of it that are compared."""


def read_test(
    text: str,
    columns: Mapping[str, Iterable[object]] | pd.DataFrame,
    where: str = "column of obs (or SHEET)",
) -> str | Pair:
    """A column, or a column with the two levels that are compared.

    Parameters
    ----------
    text
        ``column`` or ``column:A-B``. Names may hold a colon, and levels a dash: what the
        samples have decides.
    columns
        The columns there are, and what is in them.
    where
        What they are called in messages.

    Raises
    ------
    MissingKeyError
        If there is no such column, or it has no such levels.
    InputError
        If the text can be read in two ways.

    Examples
    --------
    >>> read_test("group:ill-well", {"group": ["ill", "well"]})
    ('group', 'ill', 'well')
    """
    import pandas as pd

    known = list(map(str, columns))
    if text in known:
        return text
    named = [name for name in known if text.startswith(f"{name}:")]
    if not named:
        name = text.partition(":")[0]
        msg = f"{name!r} is not a {where}. {did_you_mean(name, known)}"
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
        msg = f"--test {text!r} can be read in two ways: {two}."
        raise InputError(msg)
    if not possible or possible[0][0] == possible[0][1]:
        msg = (
            f"--test {text!r} must be {column}:A-B, with two levels of {column!r}: "
            f"{some(map(repr, levels))}."
        )
        raise MissingKeyError(msg)
    return (column, *possible[0])


def compared(test: str | Pair, levels: Sequence[object] | None) -> tuple[str, str]:
    """What the test of one contrast or of all compares, and the others' reference.

    Parameters
    ----------
    test
        What `read_test` returned.
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
