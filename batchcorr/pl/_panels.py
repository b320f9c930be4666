"""The panels that a figure is drawn on: axes that were given, or new ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from batchcorr.errors import InputError
from batchcorr.pl._matplotlib import require_matplotlib

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["AxesGrid", "few_ticks", "panel", "panels", "thin_spines"]

AxesGrid: TypeAlias = "np.ndarray[Any, np.dtype[np.object_]]"
"""Axes in rows and columns, as `plt.subplots` makes them."""


def panel(ax: object, size: tuple[float, float] = (4.2, 3.2)) -> Axes:
    """The one axes that were given, or those of a new figure of this size in inches."""
    drawn_on: Axes = panels(ax, (1, 1), size)[0, 0]
    return drawn_on


def panels(
    ax: object,
    shape: tuple[int, int],
    size: tuple[float, float],
    *,
    beside: float = 0.0,
) -> AxesGrid:
    """Axes in rows and columns: those given, or those of a new figure.

    Parameters
    ----------
    ax
        One axes, or as many as there are panels, in any arrangement; None: new ones.
    size
        Width and height of a new panel, in inches.
    beside
        Width for legends, in inches.
    """
    require_matplotlib()
    rows, columns = shape
    if ax is None:
        import matplotlib.pyplot as plt

        width = columns * size[0] + beside
        _, new = plt.subplots(
            rows,
            columns,
            figsize=(width, rows * size[1]),
            layout="constrained",
            squeeze=False,
        )
        return np.asarray(new, dtype=object)
    from matplotlib.axes import Axes

    given = np.ravel(np.asarray(ax, dtype=object))
    wrong = [item for item in given if not isinstance(item, Axes)]
    if wrong:
        msg = (
            f"ax must be matplotlib axes, not {wrong[0]!r:.60}: create them with "
            "`figure, ax = plt.subplots()`."
        )
        raise InputError(msg)
    if given.size != rows * columns:
        msg = (
            f"This figure has {rows * columns} panels, but ax has {given.size} axes: "
            f"use `figure, ax = plt.subplots({rows}, {columns})`, or leave ax out."
        )
        raise InputError(msg)
    return given.reshape(shape)


def thin_spines(*axes: Axes) -> None:
    """Take away the lines above and right of what is drawn."""
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)


def few_ticks(ax: Axes) -> None:
    """As many ticks along x as there is room for."""
    from matplotlib.ticker import MaxNLocator

    width = ax.get_window_extent().width / ax.figure.dpi
    ax.xaxis.set_major_locator(MaxNLocator(max(2, min(6, int(width / 0.4)))))
