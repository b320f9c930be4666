"""What a correction from elsewhere needs of an AnnData: its labels, its features."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from batchcorr._anndata.labels import ObsLabels, read_labels
from batchcorr.errors import FeatureWarning, InputError, MissingKeyError, some, warn
from batchcorr.estimators.base import Corrector
from batchcorr.estimators.inputs import check_features

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData

__all__ = ["labels_for", "positions_of", "require_correction", "warn_of_places"]


def require_correction(correction: Any) -> Corrector:
    """Return a fitted estimator as what it is, and refuse anything else."""
    if isinstance(correction, Corrector):
        return correction
    msg = (
        f"The correction must be a fitted estimator, as batchcorr.fit or load "
        f"returns it, not {correction!r:.60} of "
        f"type {type(correction).__name__}."
    )
    raise InputError(msg)


def labels_for(
    adata: AnnData,
    correction: Corrector,
    batch_key: str | Sequence[str] | None,
    covariates: Any,
    nuisance: Any,
) -> ObsLabels:
    """Read the labels a correction needs, from the columns it was learned from or others."""
    keeps, columns = correction.needs_covariates_, correction.obs_columns_ or {}
    needed = not correction.record.normalizes
    if batch_key is None:
        batch_key = columns.get("batch")
        if batch_key is None and needed and not columns:
            msg = (
                "The correction was not learned from an AnnData, so that it is not "
                "known which column holds the batch: give batch_key=."
            )
            raise InputError(msg)
    if keeps and covariates is None:
        covariates = columns.get("covariates")
    if nuisance is None:
        nuisance = columns.get("nuisance")
    return read_labels(adata, batch_key, covariates, nuisance, needed=needed)


def warn_of_places(adata: AnnData, correction: Corrector) -> None:
    """Warn where names that occur twice leave nothing but places to match by."""
    if correction.feature_names_ is None and not adata.var_names.is_unique:
        msg = (
            "var_names are not unique, so features are matched to those of the "
            "correction by their places: are they in the same order? Call "
            "adata.var_names_make_unique() before it is learned."
        )
        warn(msg, FeatureWarning)


def positions_of(adata: AnnData, estimator: Corrector) -> Any:
    """Return where the correction's features are in `adata`; None: all, in order."""
    names = estimator.feature_names_
    if names is None:
        n_given, n_known = adata.n_vars, estimator.n_features_
        check_features(None, n_given, n_known, None, type(estimator).__name__)
        return None
    if tuple(adata.var_names) == names:
        return None
    if not adata.var_names.is_unique:
        msg = (
            "var_names are not unique, so features cannot be matched to those of the "
            "correction: call adata.var_names_make_unique() first."
        )
        raise InputError(msg)
    positions = adata.var_names.get_indexer(list(names))
    missing = [name for name, at in zip(names, positions, strict=True) if at < 0]
    if missing:
        msg = (
            f"{len(missing)} of {len(names)} features of the correction are missing "
            f"from adata.var_names: {some(missing)}. All "
            "are needed."
        )
        raise MissingKeyError(msg)
    extra = adata.n_vars - len(names)
    if extra:
        msg = (
            f"{extra} of {adata.n_vars} features are not known to the correction and "
            "stay as they are."
        )
        warn(msg, FeatureWarning)
    return positions
