"""How well clusters of an embedding agree with known kinds of samples."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from batchcorr.estimators.options import check_whole
from batchcorr.metrics._points import points_and_codes

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["ClusterAgreement", "agreement_of", "cluster_agreement", "clusters_of"]


class ClusterAgreement(NamedTuple):
    """Adjusted Rand index and normalized mutual information of the same clusters.

    Parameters
    ----------
    ari
        Adjusted Rand index: about 0 for random clusters, 1 if clusters equal labels.
    nmi
        Normalized mutual information: from a little over 0 to 1.

    Examples
    --------
    >>> ClusterAgreement(ari=0.9, nmi=0.8).ari
    0.9
    """

    ari: float
    nmi: float


def cluster_agreement(
    embedding: object, labels: object, *, random_state: int = 0
) -> ClusterAgreement:
    """Score the agreement of labels with k-means clusters, one cluster per label.

    Parameters
    ----------
    embedding
        Coordinates of the samples: (n, k).
    labels
        Known kind of each sample, such as its cell type: (n,).
    random_state
        Seed of k-means (the best of ten starts is used).

    Returns
    -------
    Adjusted Rand index and normalized mutual information, by scikit-learn.

    Raises
    ------
    DesignError
        If labels are missing.
    InputError
        If shapes do not match.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> kind = np.repeat(["B", "T"], 50)
    >>> z = rng.normal(size=(100, 2)) + 9.0 * (kind == "T")[:, None]
    >>> cluster_agreement(z, kind).ari
    1.0
    """
    points, codes = points_and_codes(embedding, labels)
    check_whole("random_state", random_state, 0)
    clusters = clusters_of(points, int(codes.max()) + 1, random_state)
    return agreement_of(clusters, codes)


def clusters_of(
    points: NDArray[np.float64], count: int, random_state: int
) -> NDArray[Any]:
    """The cluster of each sample by k-means: (n,)."""
    from sklearn.cluster import KMeans

    clusters: NDArray[Any] = KMeans(
        count, n_init=10, random_state=random_state
    ).fit_predict(points)
    return clusters


def agreement_of(
    clusters: NDArray[np.generic], codes: NDArray[np.generic]
) -> ClusterAgreement:
    """The scores of clusters that are known."""
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    return ClusterAgreement(
        float(adjusted_rand_score(codes, clusters)),
        float(normalized_mutual_info_score(codes, clusters)),
    )
