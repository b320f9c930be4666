"""Ask the analyses for all that the page shows."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import anndata

from batchcorr import tl
from batchcorr._report.features import feature_table
from batchcorr._report.methods_text import methods_text
from batchcorr._report.points import draw_points
from batchcorr._report.scores import Scores, scores
from batchcorr._report.steps import step_of
from batchcorr._report.tested import tested
from batchcorr._report.words import Shares, cautions, verdict
from batchcorr.errors import DesignError, InputError
from batchcorr.estimators.progress import progress
from batchcorr.estimators.versions import versions
from batchcorr.metrics._variance_explained import feature_shares

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

    from batchcorr._report.matrices import BeforeAfter, Values
    from batchcorr._report.question import Question
    from batchcorr.metrics._variance_explained import FeatureShares
    from batchcorr.tl import Audit

__all__ = ["gather"]

ROWS, COLUMNS = 200, 50
"""Batches and levels of a table that are shown."""

SECTIONS = {
    "verdict": "Verdict",
    "pictures": "Figures",
    "audit": "Design",
    "done": "What was done",
    "evaluation": "What is left",
    "test": "Test",
    "features": "Features",
    "cautions": "What not to do",
    "methods": "Methods",
}


def gather(adata: AnnData, question: Question, found: BeforeAfter) -> dict[str, Any]:
    """All that the template is filled with; see `page.html`."""
    with progress("Report", 6) as advance:
        audit = _audit(adata, question, found)
        advance(1)
        before, after = _shares(question, found, blocked=audit.blocks)
        advance(1)
        left = _scores(adata, question, found, blocked=audit.blocks)
        advance(1)
        test = tested(question, found, audit)
        advance(1)
        first = [*question.batches, *question.nuisance, *question.kept]
        first += [name for name in (question.column, question.labels) if name]
        points = draw_points(adata, found, first)
        advance(1)
        table = None if test is None else test.table
        features = feature_table(adata.var_names, before, after, table)
        advance(1)
    shares = Shares(before and before.mean(), after and after.mean(), question.beyond)
    text, references = methods_text(
        found.steps,
        version=versions()["batchcorr"],
        test=test.label if test and test.table is not None else None,
        libraries=test and test.libraries,
    )
    return {
        "title": question.title,
        "version": versions()["batchcorr"],
        "date": datetime.now(UTC).date().isoformat(),
        "n_obs": adata.n_obs,
        "n_vars": adata.n_vars,
        "batch": question.batch,
        "kept": question.kept,
        "beyond": question.beyond,
        "sections": [
            (name, title)
            for name, title in SECTIONS.items()
            if name != "test" or test is not None
        ],
        "verdict": verdict(audit, found, shares, question.column),
        "audit": audit,
        "tables": _tables(audit),
        "panels": points.panels,
        "columns": points.columns,
        "left_out": points.left_out,
        "n_features": points.n_features,
        "names": [v.name for v in (found.before, found.after) if v is not None],
        "corrected": found.is_corrected,
        "steps": [step_of(step) for step in found.steps],
        "left": left,
        "test": test,
        "features": features,
        "cautions": cautions(audit, found, question.column, question.kept),
        "methods": text,
        "references": references,
        "data": points.data | {"features": features.to_dict()},
    }


def _audit(adata: AnnData, question: Question, found: BeforeAfter) -> Audit:
    """The audit of the uncorrected values; without them of the design alone."""
    arguments = {"covariates": question.covariates, "test": question.column}
    values = found.before
    if values is None:
        return tl.audit(anndata.AnnData(obs=adata.obs), question.batch, **arguments)
    as_found = values.counts and not values.counts.chosen  # it says what counts are
    layer = None if as_found else values.layer
    return tl.audit(values.adata, question.batch, layer=layer, **arguments)


def _tables(audit: Audit) -> list[tuple[str, pd.DataFrame]]:
    """Batches, and each covariate by batch, with what they are called."""
    batches = audit.batches.rename(columns=lambda name: name.replace("_", " "))
    whole = [("Samples, and what was read of their values", batches)]
    whole += [(f"{name} by batch", table) for name, table in audit.tables.items()]
    tables = []
    for name, table in whole:
        cut = table.iloc[:ROWS, :COLUMNS]
        size = f": the first {len(cut)} of {len(table)} batches, {cut.shape[1]} of "
        size += f"{table.shape[1]} levels"
        tables.append((name if cut.shape == table.shape else name + size, cut))
    return tables


def _shares(
    question: Question, found: BeforeAfter, *, blocked: bool
) -> tuple[FeatureShares | None, FeatureShares | None]:
    """Variance explained of each feature before and after, as far as it is known."""

    def of(values: Values | None) -> FeatureShares | None:
        if values is None or blocked:
            return None
        try:
            return feature_shares(
                values.adata,
                question.batch,
                covariates=question.explained,
                layer=values.layer,
            )
        except (DesignError, InputError):  # the evaluation says why
            return None

    return of(found.before), of(found.after)


def _scores(
    adata: AnnData, question: Question, found: BeforeAfter, *, blocked: bool
) -> Scores:
    """The evaluation, or why there is none."""
    if blocked:
        why = "What is left of batch cannot be measured: see the section on the design."
    elif found.before is None and not found.is_corrected:
        why = "There are no values to look at."
    else:
        return scores(adata, found, question)
    return Scores([], [], [], 0, why)
