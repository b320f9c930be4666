"""What was done to the matrices of an AnnData: records are made, read and dropped here.

``adata.uns["batchcorr"][key]`` is one JSON string, as lists of dicts cannot be written to
.h5ad: the last step that made the matrix, with the steps before it under ``"earlier"``,
oldest first. The key of X is ``"X"``, that of a layer its name, that of an embedding
``"obsm NAME"``; a layer whose name is none of a layer in this scheme has ``"layer "`` in
front of it.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from batchcorr.errors import InputError, RepeatWarning, warn
from batchcorr.estimators.matrix import is_sparse
from batchcorr.estimators.versions import versions
from batchcorr.methods import registry

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

    from batchcorr.estimators.base import Corrector
    from batchcorr.models.namespace import Matrix

__all__ = [
    "Record",
    "copied_from",
    "corrects",
    "finish",
    "is_before",
    "key_of",
    "make",
    "read",
    "sample",
    "source_of",
    "steps_of",
    "warn_if_repeated",
    "write",
]

Record: TypeAlias = dict[str, Any]
"""What JSON holds of a step: texts, numbers, lists of them, and steps before it."""

RECORDS = "batchcorr"

NORMALIZATIONS_OF_0_1 = ("log_normalize", "quantile_normalize")
"""Version 0.1.0 kept their records apart, as ``"X.log_normalize"``."""

SAMPLED = 64
"""Values of a matrix by which it is known again."""

CHANGED = 8
"""Of these, how many a step must change for the values before it to be known again."""

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
    """The record with its warnings, and what values before and after it are known by.

    Parameters
    ----------
    record
        As `make` gave it.
    warned
        Texts of the warnings.
    result
        What the step made of the matrix.
    """
    before = record["values_before"]
    after = sample(result)
    changed = before is not None and _differ(before, after)
    return record | {
        "warnings": list(dict.fromkeys(warned)),
        "values_before": _digest(before) if changed else None,
        "values_after": _digest(after) if changed and after is not None else None,
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
            f"adata.uns[{RECORDS!r}] is kept by batchcorr for its records, and holds "
            "something else: rename or delete it."
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
    values = sample(x)
    now = None if values is None else _digest(values)
    for place, step in enumerate(steps):
        if now is not None and step.get("values_before") == now:
            return steps[:place]
    return steps


def corrects(step: Record) -> bool:
    """Whether a step took a batch effect away: it neither normalized nor made columns."""
    kind = registry().get(str(step.get("method")))
    makes_columns = kind is not None and kind.record.returns == "covariates"
    return not (step["normalizes"] or makes_columns)


def is_before(step: Record, x: Matrix, *, expected: bool) -> bool:
    """Whether a matrix holds the values that a step began with.

    Where that cannot be known from the values, it is as `expected`.
    """
    values, known = sample(x), step.get("values_before")
    if values is None or known is None:
        return expected
    return bool(_digest(values) == known)


def copied_from(adata: AnnData, x: Matrix) -> list[Record]:
    """The records of what a matrix was copied from: X from a layer, say."""
    values = sample(x)
    kept = adata.uns.get(RECORDS, {})
    if values is None or not isinstance(kept, Mapping):
        return []
    known = [read(adata, key) for key in kept]
    now = _digest(values)
    return [each for each in known if each and each.get("values_after") == now]


def source_of(adata: AnnData, made: str, step: Record) -> str | None:
    """Where the values that a step began with still are: "X" or a layer; None: nowhere.

    Parameters
    ----------
    adata
        The data.
    made
        Where the step's result is: "X", a layer, or an embedding.
    step
        Its record.
    """
    source = str(step.get("source", "X"))
    others: list[str] = [key for key in adata.layers if key is not None]
    others = others if adata.X is None else ["X", *others]
    for other in sorted(others, key=lambda name: name != source):
        x = adata.X if other == "X" else adata.layers[other]
        if other != made and is_before(step, x, expected=other == source):
            return other
    return None


def write(adata: AnnData, key: str, record: Record) -> None:
    """Keep the record of a matrix, in place of any older one of it."""
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
        f"{what} was corrected before, by {by[-1]}: correcting twice removes biology "
        "with each round. Start from the uncorrected values"
        + ("." if kept else ", and keep them with key_added=.")
        + f" If {what} was made anew since, delete its record: "
        f"del adata.uns[{RECORDS!r}][{key_of(layer, obsm=obsm)!r}]."
    )
    warn(msg, RepeatWarning)


def sample(x: Matrix) -> NDArray[np.float64] | None:
    """A few values of a matrix in memory, from all over it; None of any other."""
    if x is None:
        return None
    if is_sparse(x):
        stored = x.data
        places = np.linspace(0, max(x.nnz - 1, 0), SAMPLED).astype(np.intp)
        values = stored[places] if x.nnz else np.zeros(0)
        return np.append(values.astype(np.float64), [x.nnz, *x.shape])
    if not isinstance(x, np.ndarray) or 0 in x.shape or x.dtype.kind not in "biuf":
        return None
    order = np.arange(SAMPLED)
    rows = np.linspace(0, x.shape[0] - 1, SAMPLED).astype(np.intp)
    columns = (order * 0.6180339887 % 1 * x.shape[1]).astype(np.intp)
    return np.append(x[rows, columns].astype(np.float64), x.shape)


def _differ(before: NDArray[np.float64], after: NDArray[np.float64] | None) -> bool:
    """Whether a step changed enough of the sampled values to know the old ones again."""
    if after is None or len(before) != len(after):
        return True
    missing = np.isnan(before) & np.isnan(after)
    return int(np.sum((before != after) & ~missing)) >= CHANGED


def _digest(values: NDArray[np.float64]) -> str:
    return hashlib.blake2b(values.tobytes(), digest_size=8).hexdigest()


def _keys_of_0_1(adata: AnnData, key: str) -> list[str]:
    """The keys under which version 0.1.0 kept what else was done to a matrix."""
    keys = []
    for method in NORMALIZATIONS_OF_0_1:
        record = read(adata, f"{key}.{method}")
        if record and record.get("method") == method and "earlier" not in record:
            keys.append(f"{key}.{method}")
    return keys


def _log_base(
    adata: AnnData,
    estimator: Corrector,
    layer: str | None,
    earlier: list[Record],
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
