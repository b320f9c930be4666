"""How groups look: a colour each, a shape for few points, a name in the legend.

Up to 7 groups have a hue of Okabe & Ito each. More take the same hues in steps from dark
to light, and, where points are large enough to have one, a shape for each step: groups of
one hue then differ in both.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from batchcorr.errors import InputError
from batchcorr.pl._matplotlib import HUES, require_matplotlib

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

__all__ = [
    "MISSING",
    "Groups",
    "colours",
    "inches",
    "name_rows",
    "shortened",
    "small_letter",
]

MISSING = "#BDBDBD"
"""Colour of samples whose group is not known."""

SHAPES = ("o", "s", "^", "D", "v", "P", "X")
LONGEST = 24
"""Letters of a name in a figure."""

FEW_INTEGERS = 12
"""Integers of no more values are drawn as groups."""

FEW_POINTS = 2000
"""Up to so many points have shapes that can be seen."""

LINE = 1.25
"""Height of a line, in sizes of its letters."""


def colours(n: int) -> list[str]:
    """So many colours, no two the same, neighbours of different hue.

    Examples
    --------
    >>> colours(2)
    ['#0072b2', '#d55e00']
    >>> len(set(colours(40)))
    40
    """
    from matplotlib.colors import to_hex, to_rgb

    steps = -(-n // len(HUES))
    found = []
    for k in range(n):
        step, hue = divmod(k, len(HUES))
        # 0 is the hue itself; then, by turns, darker and lighter, ever further out
        away = ((step + 1) // 2) / (steps // 2 + 1)
        end, share = (0.0, 0.75 * away) if step % 2 else (1.0, 0.8 * away)
        red, green, blue = (c * (1 - share) + end * share for c in to_rgb(HUES[hue]))
        found.append(to_hex((red, green, blue)))
    return found


def shortened(name: object, longest: int = LONGEST) -> str:
    """A name on one line, cut where it is long, in which $ is no formula."""
    text = " ".join(str(name).split())
    text = text if len(text) <= longest else f"{text[: longest - 1]}…"
    return text.replace("$", r"\$")


def name_rows(
    ax: Axes, at: Sequence[float], names: Sequence[object], **style: Any
) -> None:
    """Write names left of evenly spaced rows, as many as there is height for."""
    every = math.ceil(1.1 * small_letter() * len(names) / inches(ax)[1])
    shown = [shortened(name) for name in names[::every]]
    ax.set_yticks(at[::every], shown, fontsize="small", **style)


@dataclass(frozen=True)
class Groups:
    """Samples in groups, and how each group looks.

    Attributes
    ----------
    names
        Of the groups that have samples.
    codes
        The group of each sample, -1 where it is missing: (n,).
    """

    names: list[str]
    codes: NDArray[np.integer]

    @classmethod
    def of(cls, values: pd.Series) -> Groups | None:
        """The groups in a column; None if it holds numbers."""
        kinds = pd.api.types
        if kinds.is_complex_dtype(values.dtype):
            msg = (
                f"The column {values.name!r:.80} contains complex numbers; only real "
                "numbers, text and categories can be drawn."
            )
            raise InputError(msg)
        if kinds.is_numeric_dtype(values.dtype) and not kinds.is_bool_dtype(values):
            few = values.nunique() <= FEW_INTEGERS
            if not (few and kinds.is_integer_dtype(values.dtype)):
                return None
        labels = pd.Categorical(values).remove_unused_categories()
        return cls([str(level) for level in labels.categories], labels.codes)

    @property
    def colours(self) -> list[str]:
        """A colour for each group."""
        return colours(len(self.names))

    @property
    def shapes(self) -> list[str]:
        """A shape for each group, the same for groups of different hue."""
        steps = (k // len(HUES) for k in range(len(self.names)))
        return [SHAPES[step % len(SHAPES)] for step in steps]

    def by_sample(self) -> NDArray[np.float64]:
        """The colour of each sample, as red, green, blue and 1: (n, 4)."""
        from matplotlib.colors import to_rgba_array

        each = to_rgba_array([*self.colours, MISSING])
        of_sample: NDArray[np.float64] = each[self.codes]
        return of_sample

    def legend_width(self, height: float) -> float:
        """Inches that the legend takes beside a panel of this height, in inches."""
        rows, each = self._legend_grid(height)
        return -(-len(self.names) // rows) * each

    def _legend_grid(self, height: float) -> tuple[int, float]:
        """Rows of a legend of this height, and inches that a column of it takes."""
        letter = small_letter()
        rows = max(1, int(height / (letter * LINE)) - 2)
        longest = max(map(len, map(shortened, self.names)), default=0)
        return rows, (longest * 0.6 + 2.5) * letter

    def name_beside(
        self,
        ax: Axes,
        title: str,
        *,
        shapes: bool = False,
        room: tuple[float, float] | None = None,
    ) -> None:
        """Write the legend right of the axes.

        Parameters
        ----------
        room
            Width and height that may be taken, in inches: what does not fit is cut, and
            said to be. None: a third of the figure, and the height of the axes.
        """
        from matplotlib.lines import Line2D

        width, height = room or (_figure_width(ax) / 3, inches(ax)[1])
        rows, each = self._legend_grid(height)
        letters = LONGEST
        if each > width:
            letters = max(8, int(width / small_letter() / 0.6 - 4))
        shown = len(self.names)
        columns = max(1, int(width / each + 1e-9))
        if shown > rows * columns:
            shown = max(1, rows * columns - 1)
        dot = 0.6 * small_letter() * 72
        looks = zip(self.names, self.colours, self.shapes, strict=True)
        entries = [
            (shortened(name, letters), shape if shapes else "o", colour)
            for name, colour, shape in looks
        ][:shown]
        if shown < len(self.names):
            entries.append((f"… {len(self.names) - shown:,} more", "", "none"))
        if (self.codes < 0).any():
            entries.append(("missing", "o", MISSING))
        handles = [
            Line2D([], [], ls="", marker=shape, color=colour, mew=0, ms=dot, label=name)
            for name, shape, colour in entries
        ]
        ax.legend(
            handles=handles,
            title=shortened(title, letters),
            title_fontsize="small",
            alignment="left",
            ncols=-(-len(handles) // rows) if columns > 1 else 1,
            loc="upper left",
            bbox_to_anchor=(1.0, 1.02),
            frameon=False,
            fontsize="small",
            handletextpad=0.1,
            columnspacing=0.6,
            labelspacing=0.25,
            handlelength=1.2,
            borderaxespad=0.2,
        )


def small_letter() -> float:
    """Size of small letters, in inches."""
    require_matplotlib()
    from matplotlib.font_manager import FontProperties

    return float(FontProperties(size="small").get_size_in_points()) / 72


def inches(ax: Axes) -> tuple[float, float]:
    """Width and height of axes, as far as they are known before they are laid out."""
    box = ax.get_window_extent()
    return box.width / ax.figure.dpi, box.height / ax.figure.dpi


def _figure_width(ax: Axes) -> float:
    return float(ax.figure.bbox.width / ax.figure.dpi)
