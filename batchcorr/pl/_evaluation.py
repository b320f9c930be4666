"""The scores of an evaluation: one panel per score, one row per layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from batchcorr.errors import InputError, MissingKeyError, did_you_mean, some
from batchcorr.pl._looks import inches, shortened, small_letter
from batchcorr.pl._matplotlib import BLUE, VERMILION
from batchcorr.pl._panels import few_ticks, panels, thin_spines
from batchcorr.tl import Evaluation
from batchcorr.tl._evaluation import ABOUT_BATCH

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

    from batchcorr.pl._panels import AxesGrid

__all__ = ["evaluation"]

ACROSS = 4
"""Panels in a row."""


def evaluation(
    result: Evaluation, *, scores: Sequence[str] | None = None, ax: object = None
) -> AxesGrid:
    """Draw the scores of layers and embeddings, their intervals, and chance.

    After a correction, scores of batch (vermilion) should equal chance, and scores of
    biology (blue) should not decrease (clisi: not increase).

    Parameters
    ----------
    result
        The result of `tl.evaluate`.
    scores
        Scores to draw; None: all that are not NaN for every layer.
    ax
        Axes to draw on, at least one per score; None: a new figure.

    Returns
    -------
    The axes, one per score in rows of four: dots are values, lines 95 % intervals, and
    ticks the values expected by chance.

    Raises
    ------
    InputError
        If `result` is not an evaluation, or `ax` has fewer axes than there are scores.
    MissingKeyError
        If there is no such score.

    Examples
    --------
    >>> import batchcorr as bc
    >>> adata = bc.datasets.bladder()[:, :800].copy()
    >>> bc.pp.remove_batch_effect(adata, "batch", key_added="centred")
    >>> result = bc.tl.evaluate(adata, "batch", labels="cancer")
    >>> axes = bc.pl.evaluation(result, scores=["batch_predicted", "clisi"])
    >>> [label.get_text() for label in axes[0, 0].get_yticklabels()]
    ['X', 'centred']
    """
    if not isinstance(result, Evaluation):
        msg = (
            "result must be a result of batchcorr.tl.evaluate, not a "
            f"{type(result).__name__}."
        )
        raise InputError(msg)
    known = [str(s) for s in result.scores.columns if result.scores[s].notna().any()]
    names = known if scores is None else list(scores)
    for name in names:
        if name not in known:
            msg = (
                f"The evaluation has no score {name!r:.80}. {did_you_mean(name, known)}"
            )
            raise MissingKeyError(msg)
    if not names:
        msg = "There are no scores to draw."
        raise InputError(msg)
    across = min(ACROSS, len(names))
    shape = (-(-len(names) // across), across)
    if ax is not None:
        given = np.ravel(np.asarray(ax, dtype=object))
        if given.size < len(names):
            msg = (
                f"There are {len(names)} scores to draw, one panel each "
                f"({some(names)}), but ax has {given.size} axes: name fewer in "
                f"scores=, or use `figure, ax = plt.subplots({shape[0]}, {shape[1]})`."
            )
            raise InputError(msg)
        ax, shape = given, (1, given.size)
    grid = panels(ax, shape, (2.0, 0.22 * len(result.scores) + 0.75))
    drawn: list[Axes] = grid.ravel().tolist()
    for k, (panel, name) in enumerate(zip(drawn, names, strict=False)):
        _draw(panel, result, name, named=k == 0 or _begins_row(panel))
    for empty in drawn[len(names) :]:
        empty.set_axis_off()
    return grid


def _begins_row(ax: Axes) -> bool:
    """Whether axes stand first in their row of a figure."""
    place = ax.get_subplotspec()
    return place is not None and place.is_first_col()


def _in_width(name: str, ax: Axes) -> str:
    """A name on two lines, parted at the underscore next to its middle if it is long."""
    if 0.55 * small_letter() * len(name) < 1.15 * inches(ax)[0] or "_" not in name:
        return name
    places = [k for k, letter in enumerate(name) if letter == "_"]
    half = min(places, key=lambda k: abs(2 * k - len(name))) + 1
    return f"{name[:half]}\n{name[half:]}"


def _draw(ax: Axes, result: Evaluation, score: str, *, named: bool) -> None:
    """Draw one score of all layers, the first on top."""
    value, low, high, chance = (
        frame[score].to_numpy(float)
        for frame in (result.scores, result.low, result.high, result.chance)
    )
    row = [-float(k) for k in range(len(value))]
    colour = VERMILION if score in ABOUT_BATCH else BLUE
    for at in row:
        ax.axhline(at, color="0.9", lw=0.6, zorder=0)
    for at, start, end in zip(row, low, high, strict=True):
        ax.plot([start, end], [at, at], color=colour, lw=1.6)
    ax.plot(value, row, "o", color=colour, ms=5)
    ax.plot(chance, row, "|", color="black", ms=9, mew=1.2)
    ax.set_title(_in_width(shortened(score), ax), fontsize="small")
    names = [shortened(name, 16) for name in result.scores.index] if named else []
    ax.set_yticks(row if named else [], names, fontsize="small")
    ax.set_ylim(row[-1] - 0.6, 0.6)
    ax.margins(x=0.12)
    ax.tick_params(axis="y", length=0)
    ax.tick_params(axis="x", labelsize="small")
    few_ticks(ax)
    thin_spines(ax)
    ax.spines["left"].set_visible(False)
