"""Principal components of the corrected matrix, which is never formed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from batchcorr._anndata import matrices, records
from batchcorr._anndata.corrected import lazily
from batchcorr._anndata.features import by_name
from batchcorr.errors import InputError, MissingKeyError, collected, did_you_mean, some
from batchcorr.tl._components import components

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from anndata import AnnData
    from numpy.typing import NDArray

    from batchcorr.arrays.corrected import CorrectedMatrix
    from batchcorr.estimators.location_scale import LocationScaleMethod

__all__ = ["pca"]


def pca(
    adata: AnnData,
    batch_key: str | Sequence[str] | None = None,
    *,
    method: str | None = None,
    covariates: object = None,
    nuisance: object = None,
    correction: LocationScaleMethod | None = None,
    n_comps: int | None = None,
    mask_var: object = None,
    layer: str | None = None,
    key_added: str | None = None,
    tolerance: float = 1e-3,
    random_state: int = 0,
    copy: bool = False,
    **parameters: object,
) -> AnnData | None:
    r"""Compute principal components of the corrected matrix without forming it.

    With C the corrected matrix and μ its column means, the components are the leading
    eigenvectors of :math:`(C - 1μ)^T (C - 1μ)`. Products with this matrix are computed
    from X with scaled columns and small matrices; X is unchanged.

    Parameters
    ----------
    adata
        Samples × features, on a log scale, dense or sparse.
    batch_key
        Column of `obs` with the batch; None: that of the `correction`.
    method
        Name of a location-scale method; None: combat, or the method of `correction`.
    covariates, nuisance
        Covariates to keep and to remove, as in the function of the method.
    correction
        A fitted estimator; None: fit one to all features of `adata`.
    n_comps
        Number of components; None: 50, or as many as possible.
    mask_var
        Features to use: a column of `var` or a boolean array. None: the column
        ``highly_variable`` if there is one, otherwise all; give
        ``np.ones(adata.n_vars, bool)`` to use all in any case (scanpy's None).
    layer
        Layer to read; None: X.
    key_added
        Name for the results instead of ``X_pca``, ``PCs`` and ``pca``.
    tolerance
        Largest residual ‖CᵀC v - σ² v‖ of a component, as a share of σ².
    random_state
        Seed of the first block of vectors.
    copy
        Return a copy with the results and leave `adata` unchanged.
    **parameters
        Parameters of the method's estimator.

    Returns
    -------
    `None` if ``copy=False``, else the AnnData. Sets, as scanpy does, ``obsm["X_pca"]``
    (n, n_comps), ``varm["PCs"]`` (G, n_comps; 0 for features not used) and
    ``uns["pca"]`` with ``variance`` and ``variance_ratio``; and the record of the
    correction, ``uns["batchcorr"]["obsm X_pca"]`` (or of `key_added`).

    Raises
    ------
    InputError
        If there are fewer samples or features than components, or values are missing.
    MissingKeyError
        If a column or layer does not exist.

    Warns
    -----
    ConvergenceWarning
        If the tolerance was not reached.
    RepeatWarning
        If the matrix was corrected before.

    Notes
    -----
    The columns of the features used are copied once, and only the copy is read again.
    For up to 4,096 features (at most n, and on average at most 600 stored values per
    row), one read computes CᵀC (8 G² bytes); for up to 4,096 sparse samples, C Cᵀ (8 n²
    bytes). Otherwise block Lanczos: one read for each block of 32 vectors, ten to
    twenty blocks, fifty if the spectrum is flat; memory G × 32 for each; in float32 if
    X is float32 and the tolerance is 1e-4 or more. Two reads check the residuals in
    float64; if one is too large, Lanczos continues in float64. Signs are such that the
    largest loading of each component is positive.

    Examples
    --------
    >>> import batchcorr as bc
    >>> adata = bc.datasets.bladder()
    >>> bc.tl.pca(adata, "batch", method="standardize", n_comps=5)
    >>> adata.obsm["X_pca"].shape
    (57, 5)
    """
    records.require_name(key_added, in_uns=True)
    adata = matrices.copied(adata) if copy else adata
    with collected() as texts:
        matrix, estimator, columns, earlier = lazily(
            adata,
            batch_key,
            method=method,
            covariates=covariates,
            nuisance=nuisance,
            correction=correction,
            layer=layer,
            **parameters,
        )
        chosen, mask_name = _chosen(adata, mask_var)
        if chosen is not None:
            matrix = matrix.select(np.flatnonzero(chosen))
        names = adata.var_names if chosen is None else adata.var_names[chosen]
        _require_known(names, correction)
        _require_values(names, matrix)
        n_comps = _number(n_comps, matrix)
        random = np.random.default_rng(random_state)
        variances, loadings, scores = components(
            matrix.centred(), n_comps, tolerance, random
        )
        matrices.make_actual(adata)
    record = records.make(adata, estimator, columns, layer, earlier)
    record |= {
        "n_comps": n_comps,
        "tolerance": tolerance,
        "random_state": random_state,
        "mask_var": mask_name,
        "features": len(names),
    }
    fitted_before = () if correction is None else estimator.warnings_
    _store(
        adata,
        key_added,
        scores=scores,
        loadings=loadings if chosen is None else _on_all(loadings, chosen),
        variance=variances / (len(scores) - 1),
        total=float(matrix.var().sum()),
        about={
            "method": estimator.record.name,
            "mask_var": mask_name,
            "use_highly_variable": mask_name == "highly_variable",
            "layer": layer,
            "zero_center": True,
        },
    )
    key = records.key_of(obsm=key_added or "X_pca")
    records.write(adata, key, record, [*fitted_before, *texts])
    return adata if copy else None


def _number(n_comps: int | None, matrix: CorrectedMatrix) -> int:
    """How many components: as many as asked for, or 50, or as many as there are."""
    most = min(matrix.shape) - 1
    if n_comps is None:
        return max(1, min(50, most))
    if not 1 <= n_comps <= most:
        msg = (
            f"n_comps={n_comps} must be at least 1 and less than the number of samples "
            f"and of features ({matrix.shape[0]} and {matrix.shape[1]})."
        )
        raise InputError(msg)
    return n_comps


def _require_known(names: pd.Index, correction: LocationScaleMethod | None) -> None:
    """Refuse features that the correction leaves as they are."""
    known = None if correction is None else correction.feature_names_
    if known is None:
        return
    unknown = names[~names.isin(known)]
    if len(unknown):
        msg = (
            f"The correction does not have {len(unknown)} of {len(names)} features "
            f"({some(unknown, 3)}): leave these out with mask_var, or fit a correction "
            "to all features."
        )
        raise InputError(msg)


def _require_values(names: pd.Index, matrix: CorrectedMatrix) -> None:
    """Refuse features with missing values."""
    sums = matrix.moments
    missing = np.broadcast_to((sums.n < sums.rows).any(axis=0), (len(names),))
    if missing.any():
        msg = (
            f"{missing.sum()} of {len(names)} features have missing values (first: "
            f"{names[missing][0]}), but principal components need complete samples: "
            "impute them, or leave these features out with mask_var."
        )
        raise InputError(msg)


def _chosen(
    adata: AnnData, mask_var: object
) -> tuple[NDArray[np.bool_] | None, str | None]:
    """Which features to take, and the name of the column that says so."""
    name = mask_var if isinstance(mask_var, str) else None
    if mask_var is None:
        if "highly_variable" not in adata.var.columns:
            return None, None
        name = "highly_variable"
    if name is not None:
        if name not in adata.var.columns:
            msg = (
                f"The mask {name!r} is not a column of adata.var. "
                f"{did_you_mean(name, adata.var.columns)}"
            )
            raise MissingKeyError(msg)
        mask_var = adata.var[name]
    chosen = np.asarray(by_name(adata, mask_var))
    if chosen.shape != (adata.n_vars,) or chosen.dtype != bool:
        msg = (
            "mask_var must be a column of adata.var or an array of true and false, one "
            f"for each of {adata.n_vars} features."
        )
        raise InputError(msg)
    return chosen, name


def _on_all(
    loadings: NDArray[np.float64], chosen: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Loadings of all features: 0 for those not taken."""
    of_all = np.zeros((len(chosen), loadings.shape[1]))
    of_all[chosen] = loadings
    return of_all


def _store(
    adata: AnnData,
    key_added: str | None,
    *,
    scores: NDArray[np.float64],
    loadings: NDArray[np.float64],
    variance: NDArray[np.float64],
    total: float,
    about: dict[str, Any],
) -> None:
    """Write the results where scanpy looks for them."""
    adata.obsm[key_added or "X_pca"] = scores
    adata.varm[key_added or "PCs"] = loadings
    adata.uns[key_added or "pca"] = {
        "params": {name: value for name, value in about.items() if value is not None},
        "variance": variance,
        "variance_ratio": variance / total if total > 0 else np.zeros_like(variance),
    }
