"""When two labels are one, though written in two ways: 1, 1.0 and "1"."""

from __future__ import annotations

from numbers import Real
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from batchcorr.errors import DesignError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

__all__ = ["Level", "keys", "levels_of", "matched", "one_each", "texts"]

Level: TypeAlias = str | int | float | bool


def levels_of(
    labels: list[Level], name: str, *, ordered: bool
) -> tuple[tuple[Level, ...], NDArray[np.int32]]:
    """The levels of distinct labels, sorted but for `ordered` ones, and each label's place."""
    kept = one_each(labels, name)
    levels = tuple(kept if ordered else _in_order(kept))
    return levels, matched(labels, levels)[0]


def matched(
    labels: Sequence[Level], levels: Sequence[Level]
) -> tuple[NDArray[np.int32], list[Level]]:
    """The place of each label among the levels (-1: none), and labels without one.

    Labels are matched exactly, and else as text where this is unambiguous.
    """
    exact = {same: code for code, same in enumerate(keys(levels))}
    table = np.array([exact.get(same, -1) for same in keys(labels)], np.int32)
    if (table >= 0).all():
        return table, []
    written: dict[str, set[int]] = {}
    for code, level in enumerate(levels):
        for text in texts(level):
            written.setdefault(text, set()).add(code)
    for place in np.flatnonzero(table < 0).tolist():
        same = set().union(*(written.get(t, ()) for t in texts(labels[place])))
        if len(same) == 1:
            table[place] = same.pop()
    return table, [labels[place] for place in np.flatnonzero(table < 0).tolist()]


def one_each(found: list[Level], name: str) -> list[Level]:
    """The labels, one for each that is written in two ways: 1 for 1, 1.0 and "1".

    Raises
    ------
    DesignError
        If it cannot be told whether two labels are one: "a" and "a ", "1" and "1.0".
    """
    written = {
        text for level in found if not isinstance(level, str) for text in texts(level)
    }
    kept = [x for x in found if not isinstance(x, str) or x not in written]
    seen: dict[str, Level] = {}
    for level in kept:
        text = str(level).strip()
        whole, _, rest = text.partition(".")
        if rest and not rest.strip("0") and whole.lstrip("+-").isdecimal():
            text = whole
        same = seen.setdefault(text, level)
        if same is not level:
            msg = (
                f"{name} contains both {same!r} and {level!r}: write them the same way "
                "if they are one label, otherwise rename one of them."
            )
            raise DesignError(msg)
    return kept


def keys(levels: Iterable[Level]) -> list[tuple[bool, Level]]:
    """What makes levels distinct: `1` is `1.0` but is not `True`."""
    return [(isinstance(level, bool), level) for level in levels]


def texts(level: Level) -> set[str]:
    """The texts under which a level may be written elsewhere."""
    if isinstance(level, str | bool) or level != int(level):
        return {str(level)}
    return {str(int(level)), f"{int(level)}.0"}


def _in_order(levels: list[Level]) -> list[Level]:
    """Sorted by value; a mixture by the name of the type, and then by text."""
    if any(all(isinstance(level, kind) for level in levels) for kind in (Real, str)):
        return sorted(levels)
    return sorted(levels, key=lambda level: (type(level).__name__, str(level)))
