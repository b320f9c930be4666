r"""How well a classifier predicts the batch of samples that it was not trained on.

Multinomial logistic regression on standardized coordinates, batches weighted equally,
in a stratified cross-validation. The score is the mean over batches of the share of
samples predicted correctly: guessing gives 1/B however large the batches are.
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
    """Return the balanced accuracy of a cross-validated classifier of batch.

    Parameters
    ----------
    embedding
        Coordinates of the samples: (n, k).
    labels
        Batch of each sample: (n,).
    n_folds
        Number of folds of the cross-validation; fewer if a batch has fewer samples.
    random_state
        Seed of the folds.

    Returns
    -------
    From 0 to 1; guessing gives 1/B. After a correction of few samples it may be lower:
    the correction used the samples of the test fold as well, which makes their
    deviation from the training samples opposite.

    Raises
    ------
    DesignError
        If labels are missing.
    InputError
        If shapes do not match, or a batch has only one sample.

    Notes
    -----
    Fits scikit-learn's `LogisticRegression` `n_folds` times.

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
            "Predicting batch needs at least two batches of two samples each: there "
            f"are {len(sizes)}, with {sizes.min()} to {sizes.max()} samples."
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
