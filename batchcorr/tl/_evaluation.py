"""The result of an evaluation: scores by layer, as frames, text and in a notebook."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

__all__ = ["Evaluation"]

KEPT = 0.95
"""Correlation with the values before, within a batch, under which its loss is told."""

HOW_TO_READ = "± half of the 95 % interval."

OF_LINEAR_REMOVAL = (
    " There is no batch effect in them to remove; linear removal "
    "(batchcorr.pp.remove_batch_effect) leaves them as they are."
)

ABOUT_BATCH = {"batch_variance", "batch_beyond_covariates", "pc_regression", "ilisi"}
ABOUT_BATCH |= {"batch_predicted"}


@dataclass(frozen=True)
class Evaluation:
    """How much of batch is left in layers and embeddings, and how much else is kept.

    Four frames of one shape, a row a layer or embedding and a column a score; NaN where a
    score is not to be had. Scores are not added up, and nothing is ranked.

    Parameters
    ----------
    scores
        Of batch, at chance where nothing of it is left: ``batch_variance`` and
        ``batch_beyond_covariates`` (adjusted R², mean over features), ``pc_regression``
        (R² of principal components), ``ilisi`` (batches in a neighbourhood, 1 is one
        only), ``batch_predicted`` (balanced accuracy). Of biology, the higher the more is
        kept: ``variance[column]`` (adjusted R² of a covariate within batches), ``clisi``
        (labels in a neighbourhood: 1 is best), ``ari`` and ``nmi`` of clusters,
        ``structure_kept`` (correlation with the values before, within batches, the least).
    low, high
        The 95 % intervals.
    chance
        What chance would give.
    structure
        The correlation with the values before within each batch, a column a batch.
    n_obs
        How many samples neighbours, clusters and the classifier were of.
    alone
        Corrected layers and embeddings whose values before are no longer there, so that
        their ``structure_kept`` is not known.
    unlogged
        Layers that look like counts, or like values that were not logged.

    Examples
    --------
    >>> frame = pd.DataFrame({"ilisi": [1.2]}, index=["X"])
    >>> none = pd.DataFrame()
    >>> print(Evaluation(frame, frame - 0.1, frame + 0.1, 2 * frame, none, 100))
    Batch (the nearer to chance, the less is left):
                    X chance
    ilisi  1.20 ±0.10   2.40
    ± half of the 95 % interval.
    """

    scores: pd.DataFrame
    low: pd.DataFrame = field(repr=False)
    high: pd.DataFrame = field(repr=False)
    chance: pd.DataFrame = field(repr=False)
    structure: pd.DataFrame = field(repr=False)
    n_obs: int = 0
    alone: tuple[str, ...] = field(default=(), repr=False)
    unlogged: tuple[str, ...] = field(default=(), repr=False)

    @property
    def notes(self) -> list[str]:
        """What is worth knowing of the scores, in sentences."""
        found = [
            f"{name!r} is compared with nothing: the values that it was made from are no "
            "longer in the data, so that what it keeps of them is not known."
            for name in self.alone
        ]
        found += [
            f"{name!r} holds no logarithms: its scores follow the features with the "
            "largest values. Take logarithms first; a report of counts does."
            for name in self.unlogged
        ]
        shares = self.scores.reindex(columns=["batch_variance"])
        layers = set(self.scores.index[shares.notna().any(axis=1)])
        for name, row in self.structure.iterrows():
            least = row.min()
            if least < KEPT:
                found.append(
                    f"{name!r} changes differences between samples of one batch, most in "
                    f"batch {row.idxmin()!r}: their correlation with those before is "
                    f"{least:.2f}."
                )
                found[-1] += OF_LINEAR_REMOVAL * (name in layers)
        return found

    def to_dict(self) -> dict[str, Any]:
        """The scores as plain values, as JSON can hold them.

        Returns
        -------
        For each layer and score: value, low, high and chance; and the notes.
        """
        frames = {"value": self.scores, "low": self.low, "high": self.high}
        frames["chance"] = self.chance
        return {
            "scores": {
                str(row): {
                    str(score): {
                        part: _plain(frame.loc[row, score])
                        for part, frame in frames.items()
                    }
                    for score in self.scores.columns
                }
                for row in self.scores.index
            },
            "notes": self.notes,
            "n_obs": self.n_obs,
        }

    def _shown(self) -> pd.DataFrame:
        """A row a score, as text."""
        half = (self.high - self.low) / 2
        rows = {}
        for score in map(str, self.scores.columns):
            cells = map(_cell, self.scores[score], half[score])
            chance = dict.fromkeys(map(_number, self.chance[score]))
            rows[score] = [*cells, ", ".join(chance)]
        columns = [*self.scores.index, "chance"]
        return pd.DataFrame.from_dict(rows, orient="index", columns=columns)

    def tables(self) -> list[tuple[str, pd.DataFrame]]:
        """The scores of batch and of biology as text, each with a title.

        Returns
        -------
        Titles and tables, a row a score and a column a layer: the value ± half of its 95 %
        interval; and a column of what chance gives, layer by layer where it differs.
        """
        shown = self._shown()
        of_batch = np.array([score in ABOUT_BATCH for score in shown.index], dtype=bool)
        parts = [
            ("Batch (the nearer to chance, the less is left)", shown[of_batch]),
            ("Biology (what is kept; clisi: 1 is best)", shown[~of_batch]),
        ]
        return [(title, part) for title, part in parts if len(part)]

    def __str__(self) -> str:
        lines = []
        for title, part in self.tables():
            lines += [f"{title}:", part.to_string()]
        lines.append(HOW_TO_READ)
        return "\n".join([*lines, *self.notes])

    def _repr_html_(self) -> str:
        from html import escape

        parts = [
            f"<p>{escape(title)}</p>{part.to_html(escape=True)}"
            for title, part in self.tables()
        ]
        parts.append(f"<p>{HOW_TO_READ}</p>")
        notes = "".join(f"<li>{escape(note)}</li>" for note in self.notes)
        return "".join(parts) + (f"<ul>{notes}</ul>" if notes else "")


def _cell(value: Any, half: Any) -> str:
    return _number(value) + ("" if np.isnan(half) else f" ±{half:.2f}")


def _number(value: Any) -> str:
    text = "–" if np.isnan(value) else f"{value:.2f}"
    return text.replace("-0.00", "0.00").replace("-", "−")


def _plain(value: Any) -> float | None:
    return None if np.isnan(value) else float(value)
