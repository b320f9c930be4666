"""Read from `obs` what is known of the samples: batch, covariates, nuisances.

Covariates and nuisances may also be matrices of `obsm`, such as surrogate variables.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from batchcorr._anndata.columns import columns_of, columns_or_table
from batchcorr._anndata.missing import with_level
from batchcorr.errors import DesignError, InputError, MissingKeyError, did_you_mean
from batchcorr.estimators.metadata import Labels

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anndata import AnnData

    from batchcorr.estimators.base import Corrector

__all__ = ["UNKNOWN", "ObsLabels", "check_batch_key", "labels_for", "read_labels"]

UNKNOWN = (
    "If batches were not recorded, estimate surrogate variables: "
    "batchcorr.tl.surrogate_variables."
)


class ObsLabels(NamedTuple):
    """What is known of the samples, as read from `obs`, and the names of the columns."""

    given: Labels
    formula: str | None
    keys: dict[str, Any]


def read_labels(
    adata: AnnData,
    batch_key: Any,
    covariates: object,
    nuisance: object,
    *,
    needed: bool = True,
    missing: str = "error",
    subject: str | None = None,
) -> ObsLabels:
    """Read batch, covariates and nuisances from `obs`.

    Parameters
    ----------
    missing
        "level": missing labels are a level of their own, "missing"; "error": they stay
        what they are, and whoever reads them refuses them.
    """
    if missing not in {"error", "level"}:
        msg = (
            f"missing must be 'error' or 'level', not {missing!r:.40}. To leave out "
            "samples with missing labels, subset first, for example "
            "adata[adata.obs['batch'].notna()].copy()."
        )
        raise InputError(msg)
    batch: Any = None
    keys: Sequence[str] = []
    if isinstance(batch_key, list | tuple) and not batch_key:
        batch_key = None
    if isinstance(nuisance, str) and nuisance.lstrip().startswith("~"):
        msg = "nuisance must be columns of adata.obs or a table, not a formula."
        raise InputError(msg)
    if batch_key is not None:
        keys = [batch_key] if isinstance(batch_key, str) else batch_key
        if not isinstance(keys, list | tuple) or not all(
            isinstance(key, str) for key in keys
        ):
            msg = (
                "batch_key must be the name of a column of adata.obs (or several for "
                f"remove_batch_effect), not {batch_key!r:.60}."
            )
            raise InputError(msg)
        table = columns_of(adata, keys, "batch key")
        batch = table[keys[0]] if len(keys) == 1 else table
    kept, kept_names = columns_or_table(adata, covariates, "covariate")
    removed, removed_names = columns_or_table(adata, nuisance, "nuisance")
    if batch_key is None and removed is None and needed:
        if nuisance is not None:
            msg = "There is nothing to remove: neither a batch nor a nuisance is given."
            raise InputError(msg)
        msg = (
            "batch_key must name the column of adata.obs with the batch; only "
            "remove_batch_effect works without it, given nuisance=. "
            f"{did_you_mean('', adata.obs.columns)} {UNKNOWN}"
        )
        raise InputError(msg)
    names: dict[str, object] = {"covariate": kept_names, "nuisance": removed_names}
    for what, used in names.items():
        for key in keys:
            if isinstance(used, list) and key in used:
                msg = f"{key!r} is the batch and cannot be a {what} as well."
                raise DesignError(msg)
    saved = {"batch": batch_key, "covariates": kept_names, "nuisance": removed_names}
    given = Labels(batch, kept, removed)
    if subject is not None:
        _check_subject(subject, {"batch": keys} | names)
        given = given._replace(subject=columns_of(adata, [subject], "subject")[subject])
        saved["subject"] = subject
    if missing == "level":
        given, saved["missing_labels"] = with_level(given)
    formula = kept_names if isinstance(kept_names, str) else None
    return ObsLabels(given, formula, saved)


def check_batch_key(batch_key: object) -> None:
    """Refuse what does not name one column."""
    if not isinstance(batch_key, str):
        msg = f"batch_key must be the name of one column of adata.obs, not {batch_key!r:.60}."
        raise InputError(msg if batch_key is not None else f"{msg} {UNKNOWN}")


def _check_subject(subject: str, names: Mapping[str, object]) -> None:
    """Refuse a subject that is given for something else as well."""
    for what, used in names.items():
        if isinstance(used, list | tuple) and subject in used:
            msg = (
                f"{subject!r} is a {what} and cannot be the subject as well: subject= "
                "names the person of each sample."
            )
            raise DesignError(msg)


def labels_for(
    adata: AnnData,
    correction: Corrector,
    batch_key: str | Sequence[str] | None,
    covariates: object,
    nuisance: object,
) -> ObsLabels:
    """Read the labels a correction needs: from the columns it was fitted to, or others."""
    keeps, columns = correction.needs_covariates_, correction.obs_columns_ or {}
    needed = not correction.record.normalizes
    if batch_key is None:
        batch_key = columns.get("batch")
        if batch_key is None and needed and not columns:
            msg = (
                "The correction was not fitted to an AnnData and does not name the "
                "batch column: give batch_key=."
            )
            raise InputError(msg)
    if keeps and covariates is None:
        covariates = columns.get("covariates")
    if nuisance is None:
        nuisance = columns.get("nuisance")
    missing = "error" if columns.get("missing_labels") is None else "level"
    try:
        return read_labels(
            adata,
            batch_key,
            covariates,
            nuisance,
            needed=needed,
            missing=missing,
            subject=columns.get("subject") if keeps else None,
        )
    except MissingKeyError as error:
        if not str(error).startswith("The covariate "):
            raise
        msg = (
            f"{error} The correction keeps this covariate and scales residuals around "
            "its fitted values, so that new samples need it too. If it is unknown for "
            "new samples, as in prediction, fit with mean_only=True or without this "
            "covariate."
        )
        raise MissingKeyError(msg) from error
