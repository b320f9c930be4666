"""The scores of one embedding, each with an interval and what chance would give.

Chance is what batches give that are shuffled among samples of one label (all samples
without labels), and labels that are shuffled within batches; for the classifier, what it
tells from the labels alone. The neighbours, clusters and predictions are found once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from batchcorr.metrics._batch_predicted import predictions, share_told
from batchcorr.metrics._cluster_agreement import agreement_of, clusters_of
from batchcorr.metrics._jackknife import jackknife
from batchcorr.metrics._lisi import lisi_of, neighbours
from batchcorr.metrics._pc_regression import share_between

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Codes = NDArray[Any]

__all__ = ["Samples", "Score", "embedding_scores"]

SHUFFLES = 5
"""How often labels are shuffled, to see what chance gives."""

NAN = float("nan")


class Score(NamedTuple):
    """A score, its 95 % interval, and what chance would give; NaN: not to be had."""

    value: float
    low: float = NAN
    high: float = NAN
    chance: float = NAN


class Samples(NamedTuple):
    """What is known of the samples of an embedding.

    Attributes
    ----------
    batch, groups
        Batch, and group of the jackknife: (n,) each.
    kind
        Label, or None.
    random_state
        Seed of shuffles, folds and clusters.
    """

    batch: Codes
    groups: NDArray[np.intp]
    kind: Codes | None
    random_state: int

    def take(self, rows: Any) -> Samples:
        """What is known of some of the samples."""
        kind = None if self.kind is None else self.kind[rows]
        return Samples(self.batch[rows], self.groups[rows], kind, self.random_state)


def embedding_scores(points: Floats, known: Samples) -> dict[str, Score]:
    """All scores that need coordinates only, by name."""
    found = _mixing(points, known)
    found["batch_predicted"] = _predicted(points, known)
    if known.kind is not None:
        found |= _clusters(points, known, known.kind)
    return found


def pc_scores(points: Floats, known: Samples) -> Score:
    """R² of the coordinates on batch."""
    low, high = jackknife(
        lambda rows: share_between(points[rows], known.batch[rows]), known.groups
    )
    chance = _chance(
        lambda codes: share_between(points, codes), known.batch, known.kind
    )
    return Score(share_between(points, known.batch), low, high, chance)


def _mixing(points: Floats, known: Samples) -> dict[str, Score]:
    """How batches mix, and how labels do, among nearest neighbours."""
    names = {"ilisi": known.batch}
    others = {"ilisi": known.kind, "clisi": known.batch}
    if known.kind is not None:
        names["clisi"] = known.kind
    n = len(points)
    perplexity = min(30, max(5, n // 10))
    if n <= 3 * perplexity:
        return dict.fromkeys(names, Score(NAN))
    found, scores = neighbours(points, perplexity=perplexity), {}
    for name, codes in names.items():
        each = lisi_of(found, codes)
        low, high = _interval_of_mean(each, known.groups)
        chance = _chance(
            lambda shuffled: float(lisi_of(found, shuffled).mean()), codes, others[name]
        )
        scores[name] = Score(float(each.mean()), low, high, chance)
    return scores


def _interval_of_mean(each: Floats, groups: NDArray[np.intp]) -> tuple[float, float]:
    return jackknife(lambda rows: float(each[rows].mean()), groups)


def _predicted(points: Floats, known: Samples) -> Score:
    """How well batch is told, beside how well the labels alone tell it."""
    batch, seed = known.batch, known.random_state
    sizes = np.bincount(batch)
    if sizes[sizes > 0].min() < 2 or (sizes > 0).sum() < 2:
        return Score(NAN)
    batch = np.unique(batch, return_inverse=True)[1]
    told = predictions(points, batch, 5, seed)
    low, high = jackknife(
        lambda rows: share_told(told[rows], batch[rows]), known.groups
    )
    chance = 1 / len(np.unique(batch))
    if known.kind is not None and len(np.unique(known.kind)) > 1:
        alone = np.eye(int(known.kind.max()) + 1)[known.kind]
        by_kind = share_told(predictions(alone, batch, 5, seed), batch)
        chance = max(chance, by_kind)
    return Score(share_told(told, batch), low, high, chance)


def _clusters(points: Floats, known: Samples, kind: Codes) -> dict[str, Score]:
    """Agreement of clusters with the labels."""
    count = len(np.unique(kind))
    if len(points) <= count or count < 2:
        return {"ari": Score(NAN), "nmi": Score(NAN)}
    clusters = clusters_of(points, count, known.random_state)

    def score(name: str, codes: Codes) -> Score:
        low, high = jackknife(
            lambda rows: getattr(agreement_of(clusters[rows], codes[rows]), name),
            known.groups,
        )
        chance = _chance(
            lambda shuffled: getattr(agreement_of(clusters, shuffled), name),
            codes,
            known.batch,
        )
        return Score(getattr(agreement_of(clusters, codes), name), low, high, chance)

    return {name: score(name, kind) for name in ("ari", "nmi")}


def _chance(
    score: Callable[[Codes], float], codes: Codes, within: Codes | None
) -> float:
    """The mean score of labels that are shuffled among samples alike in `within`."""
    random = np.random.default_rng(0)
    strata = np.zeros_like(codes) if within is None else within
    members = [np.flatnonzero(strata == stratum) for stratum in np.unique(strata)]
    found = []
    for _ in range(SHUFFLES):
        shuffled = codes.copy()
        for rows in members:
            shuffled[rows] = codes[random.permutation(rows)]
        found.append(score(shuffled))
    return float(np.mean(found))
