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
    " Such differences contain no batch effect; linear removal "
    "(batchcorr.pp.remove_batch_effect) does not change them."
)

ABOUT_BATCH = {"batch_variance", "batch_beyond_covariates", "pc_regression", "ilisi"}
ABOUT_BATCH |= {"batch_predicted"}


@dataclass(frozen=True)
class Evaluation:
    """Scores of batch effects and of biology, for layers and embeddings.

    Four DataFrames of the same shape, with one row per layer or embedding and one
    column per score; NaN if a score cannot be computed. There is no overall score and
    no ranking.

    Parameters
    ----------
    scores
        Scores of batch, equal to `chance` if no batch effect remains:
        ``batch_variance`` and ``batch_beyond_covariates`` (adjusted R², mean over
        features), ``pc_regression`` (R² of principal components), ``ilisi`` (effective
        number of batches in a neighbourhood), ``batch_predicted`` (balanced accuracy).
        Scores of biology, higher is better except for clisi: ``variance[column]``
        (adjusted R² of a covariate within batches), ``clisi`` (effective number of
        labels in a neighbourhood, 1 is best), ``ari`` and ``nmi`` of clusters,
        ``structure_kept`` (correlation with the uncorrected values, the smallest of all
        batches).
    low, high
        Limits of the 95 % intervals.
    chance
        Values expected by chance.
    structure
        Correlation with the uncorrected values within each batch, one column per batch.
    n_obs
        Number of samples used for neighbours, clusters and the classifier.
    alone
        Corrected layers and embeddings whose uncorrected values are no longer in the
        AnnData, so that their ``structure_kept`` is unknown.
    unlogged
        Layers that look like counts or like values that were not log-transformed.

    Examples
    --------
    >>> frame = pd.DataFrame({"ilisi": [1.2]}, index=["X"])
    >>> none = pd.DataFrame()
    >>> print(Evaluation(frame, frame - 0.1, frame + 0.1, 2 * frame, none, 100))
    Batch (equal to chance: no batch effect remains):
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
        """Remarks on the scores, in sentences."""
        found = [
            f"{name!r} cannot be compared with its uncorrected values, which are no "
            "longer in the data: structure_kept is unknown."
            for name in self.alone
        ]
        found += [
            f"{name!r} is not on a log scale: its scores depend on the features with "
            "the largest values. Take logarithms first, as a report of counts does."
            for name in self.unlogged
        ]
        shares = self.scores.reindex(columns=["batch_variance"])
        layers = set(self.scores.index[shares.notna().any(axis=1)])
        for name, row in self.structure.iterrows():
            least = row.min()
            if least < KEPT:
                found.append(
                    f"{name!r} changes differences between samples of the same batch, "
                    f"most in batch {row.idxmin()!r}: their correlation with the "
                    f"uncorrected values is {least:.2f}."
                )
                found[-1] += OF_LINEAR_REMOVAL * (name in layers)
        return found

    def to_dict(self) -> dict[str, Any]:
        """Return the scores as plain values that can be written as JSON.

        Returns
        -------
        Value, low, high and chance of each layer and score; and the notes.
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
        """Return the scores of batch and of biology as text, each with a title.

        Returns
        -------
        Titles and tables with one row per score and one column per layer: the value ±
        half of its 95 % interval; and a column with the values expected by chance, one
        per layer where they differ.
        """
        shown = self._shown()
        of_batch = np.array([score in ABOUT_BATCH for score in shown.index], dtype=bool)
        parts = [
            ("Batch (equal to chance: no batch effect remains)", shown[of_batch]),
            ("Biology (higher is better; clisi: 1 is best)", shown[~of_batch]),
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
