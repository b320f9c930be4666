"""Ask the analyses for all that the page shows."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import anndata
import numpy as np

import batchcorr
from batchcorr import tl
from batchcorr._report.features import feature_table, top_of_test
from batchcorr._report.methods_text import method_name, methods_text
from batchcorr._report.points import draw_points
from batchcorr._report.words import Shares, cautions, verdict
from batchcorr.errors import DesignError, InputError, some
from batchcorr.estimators.contrasts import read_contrast
from batchcorr.estimators.progress import progress
from batchcorr.metrics import VarianceShare
from batchcorr.metrics._variance_explained import feature_shares

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

    from batchcorr._report.matrices import Compared, Values
    from batchcorr.metrics._variance_explained import FeatureShares
    from batchcorr.tl import Audit

__all__ = ["Question", "gather"]

FDR = 0.05

SECTIONS = {
    "verdict": "Verdict",
    "pictures": "Pictures",
    "audit": "Design",
    "done": "What was done",
    "evaluation": "What is left",
    "test": "Test",
    "features": "Features",
    "cautions": "What not to do",
    "methods": "Methods",
}


class Question(NamedTuple):
    """What the report is asked for, the columns as the records fill them in.

    Attributes
    ----------
    batch
        Column with the batch.
    others
        Further columns that were removed with it.
    covariates
        What was, or is to be, kept: columns, a formula or a table.
    test
        What is tested, as `tl.differential` takes it; None: nothing.
    title
        Heading of the page.
    """

    batch: str
    others: list[str]
    covariates: Any
    test: Any
    title: str

    @property
    def column(self) -> str | None:
        """The column that is tested."""
        return None if self.test is None else read_contrast(self.test).column

    @property
    def kept(self) -> list[str]:
        """The covariates in words."""
        given = self.covariates
        if given is None:
            return []
        if isinstance(given, str):
            return [given]
        return [str(name) for name in getattr(given, "columns", given)]


class Tested(NamedTuple):
    """The one-step test, or why there is none."""

    column: str
    label: str
    call: str
    table: pd.DataFrame | None
    why_not: str = ""

    @property
    def statistic(self) -> str:
        """What its p-values are of."""
        return "F" if self.table is not None and "f" in self.table else "t"

    @property
    def n_found(self) -> int:
        """Features at the rate of false discoveries that is wanted."""
        return 0 if self.table is None else int((self.table["p_adjusted"] < FDR).sum())

    @property
    def top(self) -> pd.DataFrame | None:
        """The first features."""
        return None if self.table is None else top_of_test(self.table)


def gather(adata: AnnData, question: Question, found: Compared) -> dict[str, Any]:
    """All that the template is filled with; see `page.html`."""
    with progress("Report", 5) as advance:
        audit = _audit(adata, question, found)
        advance(1)
        before, after, why = _shares(question, found, blocked=audit.blocks)
        advance(1)
        tested = _test(question, found)
        advance(1)
        first = [question.batch, *question.others, *question.kept]
        first += [question.column] if question.column else []
        points = draw_points(adata, found, first)
        advance(1)
        table = None if tested is None else tested.table
        features = feature_table(adata.var_names, before, after, table)
        advance(1)
    beyond = some(dict.fromkeys(_beyond(question)))
    shares = Shares(_mean(before), _mean(after), beyond)
    text, references = methods_text(
        found.steps,
        version=batchcorr.__version__,
        test=tested.label if tested and tested.table is not None else None,
        from_counts=bool(found.before and found.before.from_counts),
    )
    return {
        "title": question.title,
        "version": batchcorr.__version__,
        "date": datetime.now(UTC).date().isoformat(),
        "n_obs": adata.n_obs,
        "n_vars": adata.n_vars,
        "batch": question.batch,
        "kept": question.kept,
        "beyond": beyond,
        "sections": [
            (name, title)
            for name, title in SECTIONS.items()
            if name != "test" or tested is not None
        ],
        "verdict": verdict(audit, found, shares, question.column),
        "audit": audit,
        "batches": audit.batches.rename(columns=lambda name: name.replace("_", " ")),
        "panels": points.panels,
        "columns": points.columns,
        "left_out": points.left_out,
        "n_features": points.n_features,
        "names": [v.name for v in (found.before, found.after) if v is not None],
        "corrected": found.is_corrected,
        "steps": [_step(step) for step in found.steps],
        "shares": [
            (when, share)
            for when, share in (("before", shares.before), ("after", shares.after))
            if share is not None
        ],
        "why_no_shares": why,
        "test": tested,
        "features": features,
        "cautions": cautions(audit, found, question.column, question.kept),
        "methods": text,
        "references": references,
        "data": points.data | {"features": features.to_dict()},
    }


def _audit(adata: AnnData, question: Question, found: Compared) -> Audit:
    """The audit of the uncorrected values; without them of the design alone."""
    arguments = {"covariates": question.covariates, "test": question.column}
    values = found.before
    if values is None:
        return tl.audit(anndata.AnnData(obs=adata.obs), question.batch, **arguments)
    layer = None if values.from_counts else values.layer  # it says what counts are
    return tl.audit(values.adata, question.batch, layer=layer, **arguments)


def _beyond(question: Question) -> list[str]:
    column = question.column
    return [*question.kept, *([column] if column else [])]


def _shares(
    question: Question, found: Compared, *, blocked: bool
) -> tuple[FeatureShares | None, FeatureShares | None, str]:
    """Variance explained of each feature before and after, or why it is not known."""
    if blocked:
        return None, None, "The shares of batch and covariates cannot be told apart."
    covariates, column = question.covariates, question.column
    if column is not None and covariates is None:
        covariates = [column]
    elif isinstance(covariates, list) and column is not None:
        covariates = list(dict.fromkeys([*covariates, column]))
    shares = []
    for values in (found.before, found.after):
        try:
            shares.append(_of_values(values, question.batch, covariates))
        except (DesignError, InputError) as error:
            return None, None, str(error)
    lacking = (
        "" if any(s is not None for s in shares) else "There are no values to read."
    )
    return shares[0], shares[1], lacking


def _of_values(
    values: Values | None, batch: str, covariates: Any
) -> FeatureShares | None:
    if values is None:
        return None
    return feature_shares(
        values.adata, batch, covariates=covariates, layer=values.layer
    )


def _mean(shares: FeatureShares | None) -> VarianceShare | None:
    if shares is None:
        return None
    batch, covariates, beyond = (
        float(np.mean(share[np.isfinite(share)]))
        if np.isfinite(share).any()
        else np.nan
        for share in shares
    )
    known = int(np.isfinite(shares.batch).sum())
    return VarianceShare(batch, covariates, beyond, known)


def _test(question: Question, found: Compared) -> Tested | None:
    """The test of the uncorrected values, batch in the model."""
    if question.test is None:
        return None
    contrast = read_contrast(question.test)
    label = contrast.column
    if isinstance(question.test, tuple) and len(question.test) == 3:
        label += f": {question.test[1]} against {question.test[2]}"
    values = found.before
    if values is None:
        why = "The data hold no uncorrected values, and corrected ones are not tested."
        return Tested(contrast.column, label, "", None, why)
    covariates = question.covariates
    if isinstance(covariates, list):
        covariates = [name for name in covariates if name != contrast.column] or None
    batch = [question.batch, *question.others] if question.others else question.batch
    arguments: dict[str, Any] = {}
    if covariates is not None:
        arguments["covariates"] = covariates
    if values.layer is not None:
        arguments["layer"] = values.layer
    if values.from_counts:
        arguments["trend"] = True
    written = "".join(
        f", {name}={value!r}" if isinstance(value, str | list | bool) else f", {name}=…"
        for name, value in arguments.items()
    )
    call = f"bc.tl.differential(adata, {batch!r}, {question.test!r}{written})"
    try:
        table = tl.differential(values.adata, batch, question.test, **arguments)
    except (DesignError, InputError) as error:
        return Tested(contrast.column, label, call, None, str(error))
    return Tested(contrast.column, label, call, table)


class Step(NamedTuple):
    """One step of what was done, as the page lists it."""

    method: str
    source: str
    details: list[tuple[str, str]]
    warnings: list[str]


def _step(record: dict[str, Any]) -> Step:
    """A record in words."""
    details: list[tuple[str, str]] = []
    if record.get("batch"):
        details.append(("batch", _written(record["batch"])))
        details.append(("batches", _written(record.get("batches"))))
    for name in ("kept", "nuisance"):
        if record.get(name):
            details += [(name, _written(record[name]))]
    details += [
        (name, _written(value))
        for name, value in record.get("parameters", {}).items()
        if value is not None
    ]
    size = f"{record.get('n_obs', 0):,} samples × {record.get('n_vars', 0):,} features"
    details.append(("size", size))
    unchanged = record.get("features_unchanged")
    if unchanged:
        names = some(record.get("features_unchanged_names") or [])
        details.append(("left unchanged", f"{unchanged:,} features: {names}"))
    versions = record.get("versions", {})
    details.append(("versions", ", ".join(f"{k} {v}" for k, v in versions.items())))
    warned = [text.partition(": ")[2] or text for text in record.get("warnings", [])]
    return Step(method_name(record), str(record.get("source", "")), details, warned)


def _written(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return some(value, 12) if isinstance(value, list) else str(value)
