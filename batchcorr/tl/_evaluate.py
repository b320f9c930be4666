"""How much batch effect remains, and how much biology is kept."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from batchcorr._anndata import matrices
from batchcorr.arrays import moments
from batchcorr.arrays.corrected import CorrectedMatrix
from batchcorr.errors import InputError
from batchcorr.estimators.matrix import as_matrix
from batchcorr.estimators.options import check_whole
from batchcorr.estimators.scale import unlogged
from batchcorr.metrics._structure_kept import products_kept, values_kept
from batchcorr.tl._compared import Chosen, coordinates
from batchcorr.tl._components import components
from batchcorr.tl._embedding_scores import Score, embedding_scores, pc_scores
from batchcorr.tl._evaluate_study import Study
from batchcorr.tl._evaluation import Evaluation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from numpy.typing import NDArray

    from batchcorr.models.moments import Moments

    Floats = NDArray[np.float64]

__all__ = ["evaluate"]

FIRST = (
    "batch_variance",
    "batch_beyond_covariates",
    "pc_regression",
    "ilisi",
    "batch_predicted",
)
LAST = ("clisi", "ari", "nmi", "structure_kept")
"""The order of the scores; variances of covariates stand between."""

COMPONENTS = 50
"""Principal components of a layer, at most; a fifth of the samples in small data."""


def evaluate(
    adata: AnnData,
    batch_key: str,
    *,
    labels: str | None = None,
    covariates: object = None,
    layers: Sequence[str | None] | str | None = None,
    embeddings: Sequence[str] | str | None = None,
    random_state: int = 0,
) -> Evaluation:
    r"""Score how much batch effect remains and how much biology is kept.

    Each score comes with its 95 % interval and the value expected by chance, because
    scores are not comparable with each other. For layers there are also adjusted shares
    of variance,

    .. math:: R^2 = 1 - \frac{RSS_{full} / df_{full}}{RSS_{part} / df_{part}}

    and the correlation, within batches, with the values before the correction.

    Parameters
    ----------
    adata
        Samples × features.
    batch_key
        Column of `obs` with the batch.
    labels
        Column of `obs` with groups that should stay separate, such as cell types.
    covariates
        What explains variance besides batch: columns of `obs`, a formula, or a
        DataFrame; None: the labels.
    layers
        Layers to score; None in the list means X. None: the layers that this package
        corrected and their uncorrected values, or X if there are none. A corrected
        layer is compared with its uncorrected values, any other layer with the first
        one. If the uncorrected values are no longer in `adata`, there is no comparison,
        and ``notes`` says so.
    embeddings
        Keys of `obsm` to score; None: those that this package made.
    random_state
        Seed of subsamples, folds, clusters and intervals.

    Returns
    -------
    An `Evaluation`: DataFrames ``scores``, ``low``, ``high`` and ``chance`` with one
    row per layer or embedding; ``notes``; ``to_dict()``. It prints as text and displays
    in notebooks.

    Raises
    ------
    MissingKeyError
        If a column, layer or embedding does not exist.
    DesignError
        If there is only one batch, covariates are confounded with batch, or labels are
        missing.
    InputError
        If nothing varies, or an embedding is not a matrix of finite numbers.

    Notes
    -----
    Scores of neighbours, clusters and the classifier are computed on principal
    components (of features in ``var["highly_variable"]`` if there is such a column) of
    at most 20,000 samples. Samples are assumed independent: cells of one person are
    not, and intervals are then too narrow. A layer is read once for shares of variance,
    ten to twenty times for components, and once for the comparison within batches;
    sparse and Dask layers are not converted. Memory O(10 B p G). There are no
    silhouette scores, as they reward batches that stay separate (Rautenstrauch & Ohler
    2025).

    References
    ----------
    Korsunsky et al. (2019), Nat. Methods 16:1289 (LISI); Büttner et al. (2019), Nat.
    Methods 16:43 (PC regression); Luecken et al. (2022), Nat. Methods 19:41.

    Examples
    --------
    >>> import batchcorr as bc
    >>> adata = bc.datasets.bladder()[:, :800].copy()
    >>> bc.pp.remove_batch_effect(adata, "batch", key_added="centred")
    >>> found = bc.tl.evaluate(adata, "batch", labels="cancer")
    >>> bool(found.scores.loc["X", "batch_predicted"] > 0.6)
    True
    >>> bool(found.scores.loc["centred", "batch_predicted"] < 0.2)  # 0.6 is chance
    True
    """
    matrices.require_adata(adata)
    check_whole("random_state", random_state, 0)
    study = Study.of(adata, batch_key, labels, covariates, random_state)
    chosen = Chosen.of(adata, layers, embeddings)
    scores: dict[str, dict[str, Score]] = {}
    structure: dict[str, Floats] = {}
    points: dict[str, Floats] = {}
    layer_of, codes = chosen.layers, study.design.codes
    values = {
        row: as_matrix(matrices.get_matrix(adata, layer))
        for row, layer in (layer_of | chosen.sources).items()
    }
    in_components = {*layer_of, *map(chosen.before.get, chosen.embeddings)}
    for row, x in values.items():
        if row not in in_components:
            continue
        sums = moments(x, study.by_group)
        points[row] = _components(x, study, sums, adata, random_state)
        if row in layer_of:
            scores[row] = study.variance(sums) | _of_points(points[row], study)
    for row in layer_of:
        if row in chosen.before:
            before = values[chosen.before[row]]
            structure[row] = values_kept(before, values[row], codes)
    for key in chosen.embeddings:
        at = coordinates(adata, key)
        scores[key] = _of_points(at, study)
        if key in chosen.before:
            before = points[chosen.before[key]]
            structure[key] = products_kept(before, at, codes)
    not_logged = tuple(row for row in layer_of if unlogged(values[row]))
    found = _evaluation(scores, structure, study)
    return replace(found, alone=chosen.alone, unlogged=not_logged)


def _of_points(points: Floats, study: Study) -> dict[str, Score]:
    """All scores of coordinates."""
    found = {"pc_regression": pc_scores(points, study.samples)}
    return found | embedding_scores(points[study.rows], study.sampled)


def _components(
    x: object, study: Study, by_group: Moments, adata: AnnData, random_state: int
) -> Floats:
    """Principal components of a layer as it is, of features without missing values."""
    sums = study.whole(by_group).select([])
    n_features = sums.n_features
    matrix = CorrectedMatrix.unchanged(x, study.design.without_kept(), sums)
    chosen = np.broadcast_to((sums.n == sums.rows).all(axis=0), (n_features,))
    if "highly_variable" in adata.var.columns:
        marked = adata.var["highly_variable"].to_numpy() == True  # noqa: E712
        chosen = chosen & marked if (chosen & marked).any() else chosen
    if not chosen.all():
        matrix = matrix.select(np.flatnonzero(chosen))
    n, width = matrix.shape
    if min(n, width) < 2:
        msg = (
            f"{n} samples with {width} features without missing values have no "
            "principal components: at least two of each are needed."
        )
        raise InputError(msg)
    count = min(COMPONENTS, max(2, n // 5), n - 1, width - 1)
    random = np.random.default_rng(random_state)
    return components(matrix.centred(), count, 1e-3, random)[2]


def _evaluation(
    scores: dict[str, dict[str, Score]],
    structure: dict[str, Floats],
    study: Study,
) -> Evaluation:
    """Scores as frames, rows in the order of layers and columns of their meaning."""
    for row, kept in structure.items():
        known = kept[np.isfinite(kept)]
        least = float(known.min()) if len(known) else float("nan")
        scores[row]["structure_kept"] = Score(least)
    present = {name for found in scores.values() for name in found}
    order = [name for name in FIRST if name in present]
    order += sorted(present - {*FIRST, *LAST}, key=list(present).index)
    order += [name for name in LAST if name in present]
    index = pd.Index(list(scores), name="data")
    none = Score(float("nan"))

    def frame(part: int) -> pd.DataFrame:
        rows = [
            [found.get(name, none)[part] for name in order] for found in scores.values()
        ]
        return pd.DataFrame(rows, index=index, columns=order, dtype=float)

    levels = [str(level) for level in study.metadata.levels]
    value, low, high, chance = map(frame, range(4))
    return Evaluation(
        value,
        low,
        high,
        chance,
        structure=pd.DataFrame.from_dict(structure, orient="index", columns=levels),
        n_obs=len(study.rows),
    )
