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
    return f"The {batches} can be corrected: nothing in the design speaks against it."


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
            f"{beyond}, and by chance it would be about 0%."
        )
    by = f" by {method_name(record)}" if record else ""
    if before is None or after is None:
        return f"They were corrected{by}, which the pictures below show."
    text = (
        f"Corrected{by}, batch explains {share(after.batch_beyond_covariates)} of the "
        f"variance of a feature{beyond}, where it explained "
        f"{share(before.batch_beyond_covariates)} (by chance it would be about 0%)"
    )
    if shares.beyond:
        text += (
            f", and {share(after.covariates)} of what varies within batches goes with "
            f"{shares.beyond}, where it was {share(before.covariates)}"
        )
    return f"{text}."


def _of_use(audit: Audit, found: BeforeAfter, test: str | None) -> str:
    if any(finding.code == "one_batch" for finding in audit.findings):
        return "Check that this is the column with the batch."
    if audit.blocks:
        return (
            "No method can mend this: only other samples, or a question that does not "
            "need them, can."
        )
    rate = _rate(audit, found)
    if rate is not None and test is not None and rate < INFLATED * audit.alpha:
        return (
            f"A test of {test!r} on corrected values would hardly find too much here "
            f"({rate:.1%} of features in which there is nothing, at a level of "
            f"{audit.alpha:.0%}); the uncorrected ones with batch in the model are the "
            "values to test all the same."
        )
    if rate is not None and test is not None:
        return (
            f"Tested on corrected values, {test!r} would be found in {rate:.0%} of "
            f"features in which there is nothing, at a level of {audit.alpha:.0%}: use "
            "corrected values for pictures, clustering and prediction, and test the "
            "uncorrected ones with batch in the model."
        )
    return (
        "Use corrected values for pictures, clustering and prediction, and test the "
        "uncorrected ones with batch in the model."
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
            "Do not correct these data for this batch: what is confounded cannot be "
            "told apart by any method, and a result would be made up."
        )
    rate, record = _rate(audit, found), found.correction
    if record is None or not record["testable"]:
        how_often = ""
        if rate is not None and test is not None:
            how_often = (
                f" The test of {test!r} at {audit.alpha:.0%} would find {rate:.0%} of "
                "features in which there is nothing."
            )
        told.append(
            "Do not test corrected values for differences between groups, neither by t "
            f"tests nor by rank_genes_groups: test uncorrected ones, with batch in the "
            f"model.{how_often}"
        )
    told.append(
        "Do not correct corrected values once more: biology is lost with each round."
    )
    if record is None or record.get("scale") != "counts":
        told.append(
            "Do not give corrected values to methods that need counts (DESeq2, edgeR, "
            "scVI): give them the counts, and batch as a covariate."
        )
    if test is not None and record is not None and test not in kept:
        told.append(
            f"Do not look for differences by {test!r} in the corrected values: it was "
            "not kept when batch was removed, so that part of it went with the batches."
        )
    small = [f for f in audit.findings if f.code in {"small_batch", "explained_batch"}]
    told += [f"Do not lean on single batches: {f.sentence}" for f in small]
    unchanged = (record or {}).get("features_unchanged") or 0
    if unchanged:
        names = some((record or {}).get("features_unchanged_names") or [], 5)
        told.append(
            f"Do not take all features for corrected: {unchanged:,} could not be and "
            f"are as they were ({names})."
        )
    return told
