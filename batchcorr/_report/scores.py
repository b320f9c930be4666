"""What is left of batch and kept of the rest, before and after, as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import anndata
import numpy as np
import pandas as pd

from batchcorr import tl
from batchcorr.errors import DesignError, InputError

if TYPE_CHECKING:
    from anndata import AnnData

    from batchcorr._report.matrices import BeforeAfter
    from batchcorr._report.question import Question
    from batchcorr.tl import Evaluation

__all__ = ["Scores", "scores"]

MOST_SAMPLES = 20_000
"""Samples that are looked at: in a minute, whatever the data."""

LEAST = 50
"""Samples of each batch that are drawn first, as far as it has them."""

WORDS = {
    "batch_variance": "variance that batch explains (adjusted R²)",
    "batch_beyond_covariates": "variance that batch explains beyond {beyond}",
    "pc_regression": "principal components that batch explains (R²)",
    "ilisi": "batches among neighbours (iLISI; 1: a single one)",
    "batch_predicted": "batch predicted from components (balanced accuracy)",
    "clisi": "{labels} among neighbours (cLISI; 1 is best)",
    "ari": "clusters against {labels} (ARI; 1 is best)",
    "nmi": "clusters against {labels} (NMI; 1 is best)",
    "structure_kept": "correlation with the values before, within batches",
}
"""What each score is called; those of the covariates are ``variance[column]``."""


class Row(NamedTuple):
    """One score: its name, a cell for each matrix, and what chance gives."""

    name: str
    cells: list[str]


class Scores(NamedTuple):
    """The scores that are shown.

    Attributes
    ----------
    columns
        Before and after, or one of them, and chance.
    rows
        A row a score.
    notes
        What is worth knowing of them.
    n_obs
        Samples that were looked at.
    why_not
        Why there are none; else empty.
    """

    columns: list[str]
    rows: list[Row]
    notes: list[str]
    n_obs: int
    why_not: str = ""


def scores(adata: AnnData, found: BeforeAfter, question: Question) -> Scores:
    """Evaluate what is compared; `adata` is what holds the labels."""
    rows = _drawn(adata.obs[question.batch])
    marks = adata.var[[name for name in adata.var if name == "highly_variable"]]
    own = anndata.AnnData(obs=adata.obs.iloc[rows], var=marks)
    for name, values in (("before", found.before), ("after", found.after)):
        if name in found.embeddings:
            own.obsm[name] = np.asarray(adata.obsm[found.embeddings[name]])[rows]
        elif values is not None:
            own.layers[name] = values.matrix[rows]
    try:
        evaluation = tl.evaluate(
            own,
            question.batch,
            covariates=_of_rows(question.explained, rows),
            labels=question.labels,
            layers=list(own.layers),
            embeddings=sorted(own.obsm, reverse=True),
        )
    except (DesignError, InputError) as error:
        return Scores([], [], [], 0, str(error))
    return _in_words(evaluation, question.beyond, question.labels)


def _of_rows(covariates: Any, rows: Any) -> Any:
    """Covariates of the samples that are looked at; names stay names."""
    if isinstance(covariates, np.ndarray):
        return covariates[rows]
    return covariates.iloc[rows] if hasattr(covariates, "iloc") else covariates


def _drawn(batch: pd.Series) -> Any:
    """Which samples are looked at: all, or some of every batch drawn at random."""
    n = len(batch)
    if n <= MOST_SAMPLES:
        return slice(None)
    order = np.random.default_rng(0).permutation(n)
    place = batch.iloc[order].groupby(batch.iloc[order], observed=True).cumcount()
    first = place.to_numpy() < LEAST  # of each batch in this order
    chosen = np.concatenate([order[first], order[~first]])[:MOST_SAMPLES]
    return np.sort(chosen)


def _in_words(evaluation: Evaluation, beyond: str, labels: str | None) -> Scores:
    shown = pd.concat([table for _, table in evaluation.tables()])
    rows = []
    for score, cells in zip(map(str, shown.index), shown.to_numpy(), strict=True):
        if score == "batch_beyond_covariates" and not beyond:
            continue
        column = score.removeprefix("variance[").removesuffix("]")
        words = WORDS.get(score, f"variance that {column} explains within batches")
        if score in WORDS:
            words = words.replace("{beyond}", beyond).replace("{labels}", str(labels))
        rows.append(Row(words, list(cells)))
    return Scores(list(shown.columns), rows, evaluation.notes, evaluation.n_obs)
