r"""How well a classifier tells the batch of samples that it has not seen.

Multinomial logistic regression on standardized coordinates, batches weighted alike, in a
stratified cross-validation; the score is the mean over batches of the share of their
samples that are told, so that guessing gives 1/B however large the batches are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from batchcorr.errors import InputError
from batchcorr.estimators.options import check_whole
from batchcorr.metrics._points import points_and_codes

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["batch_predicted", "predictions", "share_told"]


def batch_predicted(
    embedding: object, labels: object, *, n_folds: int = 5, random_state: int = 0
) -> float:
    """The balanced accuracy of batch, predicted by a cross-validated classifier.

    Parameters
    ----------
    embedding
        Coordinates of the samples: (n, k).
    labels
        Batch of each sample: (n,).
    n_folds
        Parts of the cross-validation; fewer where a batch has fewer samples.
    random_state
        Seed of the parts.

    Returns
    -------
    From 0 to 1. Guessing gives 1/B. Under it, in small data: a correction that used
    all samples makes those left out differ from their batch the other way.

    Raises
    ------
    DesignError
        If labels are missing.
    InputError
        If shapes do not match, or a batch has one sample only.

    Notes
    -----
    scikit-learn's `LogisticRegression`, of which there are `n_folds` fits.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> batch = np.repeat(["a", "b"], 50)
    >>> batch_predicted(
    ...     rng.normal(size=(100, 2)) + 9.0 * (batch == "b")[:, None], batch
    ... )
    1.0
    """
    points, codes = points_and_codes(embedding, labels)
    sizes = np.bincount(codes)
    check_whole("n_folds", n_folds, 2)
    check_whole("random_state", random_state, 0)
    if len(sizes) < 2 or sizes.min() < 2:
        msg = (
            "To predict batch there must be two batches of two samples each: there "
            f"are {len(sizes)}, of {sizes.min()} to {sizes.max()} samples."
        )
        raise InputError(msg)
    return share_told(predictions(points, codes, n_folds, random_state), codes)


def predictions(
    points: NDArray[np.float64],
    codes: NDArray[np.generic],
    n_folds: int,
    random_state: int,
) -> NDArray[Any]:
    """The predicted label of each sample, from the folds it is not in: (n,)."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    classifier = make_pipeline(
        StandardScaler(),
        LogisticRegression(class_weight="balanced", max_iter=2000, tol=1e-3),
    )
    folds = StratifiedKFold(
        min(n_folds, int(np.bincount(codes).min())),
        shuffle=True,
        random_state=random_state,
    )
    predicted: NDArray[Any] = cross_val_predict(classifier, points, codes, cv=folds)
    return predicted


def share_told(predicted: NDArray[np.generic], codes: NDArray[np.generic]) -> float:
    """The mean over labels of the share of their samples that were told."""
    sizes = np.bincount(codes)
    told = np.bincount(codes, predicted == codes)
    return float((told[sizes > 0] / sizes[sizes > 0]).mean())
