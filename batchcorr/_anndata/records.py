"""What was done to the matrices of an AnnData: records are made, read and dropped here.

``adata.uns["batchcorr"][key]`` is one JSON string, as lists of dicts cannot be written to
.h5ad: the last step that made the matrix, with the steps before it under ``"earlier"``,
oldest first. The key of X is ``"X"``, that of a layer its name, that of an embedding
``"obsm NAME"``; a layer whose name is none of a layer in this scheme has ``"layer "`` in
front of it.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from batchcorr._anndata.sampled_values import (
    digest_of,
    digest_of_names,
    digests,
    sample,
)
from batchcorr.errors import InputError, RepeatWarning, warn
from batchcorr.estimators.versions import versions
from batchcorr.methods import registry

if TYPE_CHECKING:
    from anndata import AnnData

    from batchcorr.estimators.base import Corrector
    from batchcorr.models.namespace import Matrix

__all__ = [
    "Record",
    "corrects",
    "finish",
    "if_made_anew",
    "key_of",
    "make",
    "read",
    "require_name",
    "steps_of",
    "warn_if_repeated",
    "write",
]

Record: TypeAlias = dict[str, Any]
"""What JSON holds of a step: texts, numbers, lists of them, and steps before it."""

RECORDS = "batchcorr"

NORMALIZATIONS_OF_0_1 = ("log_normalize", "quantile_normalize")
"""Version 0.1.0 kept their records apart, as ``"X.log_normalize"``."""

ONE_BATCH = (
    "There was one batch only, so that no difference between batches was removed."
)
NOT_FOR_TESTING = (
    "Corrected values are for plots, clustering and prediction, not for differential "
    "testing: test the uncorrected values with batch in the model."
)


def key_of(layer: str | None = None, *, obsm: str | None = None) -> str:
    """The key of a record: no two matrices have the same."""
    if obsm is not None:
        return f"obsm {obsm}"
    if layer is None:
        return "X"
    taken = re.fullmatch("(layer )*X|obsm .*", layer) or layer.startswith("layer obsm ")
    return f"layer {layer}" if taken else layer


def require_name(key_added: object, *, in_uns: bool = False) -> None:
    """Refuse, for a result, what is no name, or in `uns` the name of the records."""
    if key_added is None:
        return
    if not isinstance(key_added, str) or not key_added:
        msg = f"{key_added!r:.40} is no name for a result: give key_added= another, or leave it out."
        raise InputError(msg)
    if in_uns and key_added == RECORDS:
        msg = f"adata.uns[{RECORDS!r}] holds the records of corrections: give key_added= another name."
        raise InputError(msg)


def make(
    adata: AnnData,
    estimator: Corrector,
    columns: Mapping[str, object] | None,
    layer: str | None,
    earlier: list[Record],
    *,
    x: Matrix | None = None,
) -> Record:
    """The record of one step on a matrix `x`, before it: see `finish`."""
    columns, method = columns or {}, estimator.record
    hidden = {"copy", "batch_column", "covariate_columns"}
    parameters = estimator.get_params(deep=False)
    testable = method.testable and all(step["testable"] for step in earlier)
    summary = estimator.summary()
    batches = summary.get("batches") if columns.get("batch") else None
    notes = [ONE_BATCH] if isinstance(batches, list) and len(batches) == 1 else []
    notes += [] if testable else [NOT_FOR_TESTING]
    return (
        {
            "method": method.name,
            "parameters": {k: v for k, v in parameters.items() if k not in hidden},
            "source": layer or "X",
            "batch": columns.get("batch"),
            "covariates": columns.get("covariates"),
            "nuisance": columns.get("nuisance") or [],
            "missing": columns.get("missing_labels") or {},
            "subject": columns.get("subject"),
            "n_obs": adata.n_obs,
            "n_vars": adata.n_vars,
            "names": digest_of_names(adata.obs_names, adata.var_names),
            "normalizes": method.normalizes,
            "scale": method.scale,
            "log_base": _log_base(adata, estimator, layer, earlier),
            "testable": testable,
            "note": " ".join(notes),
            "versions": versions(),
        }
        | summary
        | {"earlier": earlier, "values_before": sample(x)}
    )


def finish(record: Record, warned: list[str], result: object = None) -> Record:
    """The record of `make` with its warnings, and what values are known again by.

    Those before the step, and `result`, which it made of them.
    """
    before, after = digests(record["values_before"], result)
    return record | {
        "warnings": list(dict.fromkeys(warned)),
        "values_before": before,
        "values_after": after,
    }


def read(adata: AnnData, key: str) -> Record | None:
    """The record of a matrix, None if there is none.

    Raises
    ------
    InputError
        If something else is kept where records are kept.
    """
    records = adata.uns.get(RECORDS, {})
    text = records.get(key) if isinstance(records, Mapping) else ""
    if text is None:
        return None
    try:
        record = json.loads(text)
    except (TypeError, ValueError):
        record = None
    if not isinstance(record, dict):
        msg = (
            f"adata.uns[{RECORDS!r}] is where batchcorr stores its records, but "
            "contains something else: rename or delete it."
        )
        raise InputError(msg)
    of_counts = record.get("method") in {"combat_seq", "log_normalize"}
    return {
        "testable": record.get("for_testing", False),
        "normalizes": record.get("method") in NORMALIZATIONS_OF_0_1,
        "scale": "counts" if of_counts else "log",
    } | record


def steps_of(
    adata: AnnData, layer: str | None, x: Matrix, *, obsm: str | None = None
) -> list[Record]:
    """The records of the steps that made the values of a matrix, oldest first.

    A step is not among them if the values are back to what they were before it.
    """
    key = key_of(layer, obsm=obsm)
    last = read(adata, key)
    if last is not None and "earlier" in last:
        steps = [*last.pop("earlier"), last]
    else:
        apart = (read(adata, old) for old in _keys_of_0_1(adata, key))
        steps = [step for step in (*apart, last) if step is not None]
    if not steps:
        return []
    now = digest_of(x)
    for place, step in enumerate(steps):
        if now is not None and step.get("values_before") == now:
            return steps[:place]
    return steps


def corrects(step: Record) -> bool:
    """Whether a step took a batch effect away: it neither normalized nor made columns."""
    kind = registry().get(str(step.get("method")))
    makes_columns = kind is not None and kind.record.returns == "covariates"
    return not (step["normalizes"] or makes_columns)


def write(
    adata: AnnData,
    key: str,
    record: Record,
    warned: list[str] | None = None,
    result: object = None,
) -> None:
    """Keep the record of a matrix, in place of any older one; one of `make` is finished."""
    if warned is not None:
        record = finish(record, warned, result)
    records = dict(adata.uns.get(RECORDS, {}))
    for old in _keys_of_0_1(adata, key):
        del records[old]
    records[key] = json.dumps(record, ensure_ascii=False, default=str)
    adata.uns[RECORDS] = records


def warn_if_repeated(
    steps: list[Record],
    layer: str | None,
    *,
    kept: bool = False,
    obsm: str | None = None,
) -> None:
    """Warn if a matrix was corrected before, and is to be once more."""
    by = [str(step.get("method")) for step in steps if not step["normalizes"]]
    if not by:
        return
    what = f"layer {layer!r}" if layer else "X"
    what = what if obsm is None else f"obsm {obsm!r}"
    msg = (
        f"{what} was corrected before, by {by[-1]}: each further correction removes "
        "more biology. Start from the uncorrected values"
        + ("." if kept else ", and keep them by giving key_added=.")
        + f" {if_made_anew(what, key_of(layer, obsm=obsm))}"
    )
    warn(msg, RepeatWarning)


def if_made_anew(what: str, key: str) -> str:
    """What to do where a matrix is no longer what its record is of."""
    return (
        f"If {what} has been replaced by new values since then, delete its record: del "
        f"adata.uns[{RECORDS!r}][{key!r}]."
    )


def _keys_of_0_1(adata: AnnData, key: str) -> list[str]:
    """The keys under which version 0.1.0 kept what else was done to a matrix."""
    keys = []
    for method in NORMALIZATIONS_OF_0_1:
        record = read(adata, f"{key}.{method}")
        if record and record.get("method") == method and "earlier" not in record:
            keys.append(f"{key}.{method}")
    return keys


def _log_base(
    adata: AnnData, estimator: Corrector, layer: str | None, earlier: list[Record]
) -> Any:
    """The base of the logarithms that the result is in; None: not logged, or not known."""
    if estimator.log_base_ is not None:
        return estimator.log_base_
    if estimator.record.scale == "counts":
        return None
    if earlier:
        return earlier[-1].get("log_base")
    of_scanpy = adata.uns.get("log1p") if layer is None else None
    if not isinstance(of_scanpy, Mapping):
        return None
    base = of_scanpy.get("base")
    return float(base) if isinstance(base, int | float) else math.e
