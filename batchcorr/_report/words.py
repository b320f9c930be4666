"""What the numbers mean, in sentences: the verdict, and what not to do."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from batchcorr._report.methods_text import method_name
from batchcorr.errors import some
from batchcorr.estimators.audit import INFLATED

if TYPE_CHECKING:
    from batchcorr._report.matrices import BeforeAfter
    from batchcorr.metrics import VarianceShare
    from batchcorr.tl import Audit

__all__ = ["Shares", "cautions", "share", "verdict"]


LEAST = 0.005
"""A share that is rounded to 1 %."""


class Shares(NamedTuple):
    """Variance explained before and after; None where it is not known."""

    before: VarianceShare | None
    after: VarianceShare | None
    beyond: str
    """The covariates that batch is measured beyond, in words; empty: none."""


def share(value: float) -> str:
    """A share in percent; an adjusted R² below 0 is none."""
    return f"{value:.0%}" if value >= LEAST else "none"


def verdict(
    audit: Audit, found: BeforeAfter, shares: Shares, test: str | None
) -> tuple[str, str, str]:
    """Three sentences: whether to correct, what it did, what the result is good for."""
    return (
        _of_design(audit),
        _of_correction(audit, found, shares),
        _of_use(audit, found, test),
    )


def _of_design(audit: Audit) -> str:
    batches = (
        f"{len(audit.batches)} batches of {audit.batches['samples'].sum():,} samples"
    )
    blocking = [f for f in audit.findings if f.level == "blocks"]
    if blocking:
        return f"These data cannot be corrected for batch. {blocking[0].sentence}"
    none = [f for f in audit.findings if f.code == "no_batch_effect"]
    if none:
        return f"The {batches} need no correction. {none[0].sentence}"
    warned = [f for f in audit.findings if f.level == "warns"]
    if warned:
        many = "a warning" if len(warned) == 1 else f"{len(warned)} warnings"
        return f"The {batches} can be corrected, with care: the audit gives {many}."
    return f"The {batches} can be corrected: the audit found no problem."


def _of_correction(audit: Audit, found: BeforeAfter, shares: Shares) -> str:
    before, after = shares.before, shares.after
    beyond = f" beyond {shares.beyond}" if shares.beyond else ""
    record = found.correction
    if not found.is_corrected:
        if any(finding.code == "already_corrected" for finding in audit.findings):
            return (
                "The values look corrected already, though no record of it came with "
                "them: batch explains less of them than chance would."
            )
        if before is None:
            return "Nothing was corrected yet."
        return (
            "Nothing was corrected yet: batch explains "
            f"{share(before.batch_beyond_covariates)} of the variance of a feature"
            f"{beyond} (about 0% is expected by chance)."
        )
    by = f" by {method_name(record)}" if record else ""
    if before is None or after is None:
        return f"They were corrected{by}; the figures below show before and after."
    text = (
        f"After correction{by}, batch explains {share(after.batch_beyond_covariates)} of "
        f"the variance of a feature{beyond} (before: "
        f"{share(before.batch_beyond_covariates)}; about 0% is expected by chance)"
    )
    if shares.beyond:
        text += (
            f", and {shares.beyond} {share(after.covariates)} of the variance within batches "
            f"(before: {share(before.covariates)})"
        )
    return f"{text}."


def _of_use(audit: Audit, found: BeforeAfter, test: str | None) -> str:
    if any(finding.code == "one_batch" for finding in audit.findings):
        return "Check that this is the column with the batch."
    if audit.blocks:
        return (
            "No method can solve this: other samples are needed, or a question that "
            "these samples can answer."
        )
    rate = _rate(audit, found)
    if rate is not None and test is not None and rate < INFLATED * audit.alpha:
        return (
            f"A test of {test!r} on corrected values would have nearly the nominal false "
            f"positive rate here ({rate:.1%} at a level of {audit.alpha:.0%}); even so, "
            "test the uncorrected values, with batch in the model."
        )
    if rate is not None and test is not None:
        return (
            f"A test of {test!r} on corrected values would have a false positive rate of "
            f"{rate:.0%} at a level of {audit.alpha:.0%}: use corrected values for figures, "
            "clustering and prediction, and test the uncorrected values, with batch in the "
            "model."
        )
    return (
        "Use corrected values for figures, clustering and prediction, and test the "
        "uncorrected values, with batch in the model."
    )


def _rate(audit: Audit, found: BeforeAfter) -> float | None:
    """False positives of a test of the corrected values, or of those ComBat would give."""
    if not len(audit.predicted):
        return None
    method = (found.correction or {}).get("method", "combat")
    analysis = method if method in audit.predicted.index else "combat"
    return float(audit.predicted["false_positive_rate"][analysis])


def cautions(
    audit: Audit, found: BeforeAfter, test: str | None, kept: list[str]
) -> list[str]:
    """What not to do with these data."""
    told = []
    if audit.blocks and len(audit.batches) > 1:
        told.append(
            "Do not correct these data for this batch: no method can separate what is "
            "confounded, and its result would be an artefact."
        )
    rate, record = _rate(audit, found), found.correction
    if record is None or not record["testable"]:
        how_often = ""
        if rate is not None and test is not None:
            how_often = (
                f" The test of {test!r} would have a false positive rate of {rate:.0%} at "
                f"a level of {audit.alpha:.0%}."
            )
        told.append(
            "Do not test corrected values for differences between groups, neither by t "
            "tests nor by rank_genes_groups: test the uncorrected values, with batch in "
            f"the model.{how_often}"
        )
    told.append(
        "Do not correct corrected values again: each correction removes some biology."
    )
    if record is None or record.get("scale") != "counts":
        told.append(
            "Do not give corrected values to methods that need counts (DESeq2, edgeR, "
            "scVI): give them the counts, and batch as a covariate."
        )
    if test is not None and record is not None and test not in kept:
        told.append(
            f"Do not look for differences by {test!r} in the corrected values: it was "
            "not kept when batch was removed, so part of its effect was removed too."
        )
    small = [f for f in audit.findings if f.code in {"small_batch", "explained_batch"}]
    told += [f"Do not rely on single batches: {f.sentence}" for f in small]
    unchanged = (record or {}).get("features_unchanged") or 0
    if unchanged:
        names = some((record or {}).get("features_unchanged_names") or [], 5)
        told.append(
            f"Do not assume that all features are corrected: {unchanged:,} could not be, "
            f"and are unchanged ({names})."
        )
    return told
