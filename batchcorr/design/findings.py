"""What a design makes hard or impossible, as sentences with a remedy.

An audit lists findings; a fit refuses what blocks it and warns of the rest in the same
words, so that the two never disagree.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from batchcorr.errors import some

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = [
    "LEVELS",
    "SMALL",
    "STRONG",
    "Finding",
    "already_corrected",
    "apart",
    "associated",
    "explained",
    "inflated",
    "lost",
    "no_batch_effect",
    "one_batch",
    "small_batches",
]

Level = Literal["blocks", "warns", "notes"]

LEVELS: tuple[Level, ...] = ("blocks", "warns", "notes")
"""From what makes correction impossible to what is good to know."""

STRONG = 0.5
"""Association of a covariate with batch from which on it is told."""

SMALL = 3
"""Samples that a batch should have at least."""


@dataclass(frozen=True)
class Finding:
    """One thing that was found.

    Attributes
    ----------
    level
        Whether it blocks a correction, warns of one, or is only noted.
    code
        A short name that programs can look for.
    sentence
        What was found.
    remedy
        What can be done about it.
    """

    level: Level
    code: str
    sentence: str
    remedy: str

    @property
    def text(self) -> str:
        """Sentence and remedy."""
        return f"{self.sentence} {self.remedy}".strip()


def one_batch(level: object) -> Finding:
    """All samples are of one batch."""
    return Finding(
        "blocks",
        "one_batch",
        f"There is only one batch, {level!r}, so there is nothing to correct.",
        "Check that this is the right column.",
    )


def small_batches(levels: Sequence[object], rows: Iterable[float]) -> Finding | None:
    """Batches whose means and variances are hardly known."""
    small = [
        f"{level!r} ({int(n)})"
        for level, n in zip(levels, rows, strict=True)
        if n < SMALL
    ]
    if not small:
        return None
    return Finding(
        "warns",
        "small_batch",
        f"Batches with fewer than {SMALL} samples: {some(small)}. Their means and "
        "variances cannot be estimated well, so that their correction is mostly noise "
        "or prior:",
        "consider leaving them out or merging them.",
    )


def explained(names: Sequence[str]) -> Finding:
    """Batches of two samples or more that their covariates fit exactly."""
    return Finding(
        "warns",
        "explained_batch",
        f"The covariates fit every sample of batch {some(names)} exactly, so that the "
        "variance of this batch is unknown: its mean is corrected, but not its scale.",
        "Keep fewer covariates, or leave this batch out.",
    )


def associated(strengths: Mapping[str, float]) -> list[Finding]:
    """Covariates that batch nearly determines."""
    return [
        Finding(
            "warns",
            "associated",
            f"{term!r} is strongly associated with batch ({strength:.2f} on a scale "
            "from 0, balanced, to 1, confounded). Its effect is kept, but a test of it "
            "on corrected values gives p-values that are too small:",
            "test on the uncorrected values, with batch in the model.",
        )
        for term, strength in strengths.items()
        if strength >= STRONG
    ]


def apart(term: str, batches: Sequence[str]) -> Finding:
    """A number whose ranges in batches do not overlap those of the others."""
    return Finding(
        "warns",
        "ranges_apart",
        f"The values of {term!r} in batch {some(batches)} do not overlap with those of "
        "other batches: there, its effect can be separated from batch only by "
        "extrapolation.",
        f"Check {term!r} by batch, and whether it can be left out.",
    )


def already_corrected(*, equal: bool) -> Finding:
    """Values in which batch explains less than chance would let it."""
    seen = (
        "In nearly every feature the batch means are equal to rounding, which does not "
        "happen in measured values"
        if equal
        else (
            "In nearly every feature batch explains less variance than expected by "
            "chance"
        )
    )
    return Finding(
        "warns",
        "already_corrected",
        f"{seen}: the values look as if batch was already corrected. A test of "
        "corrected values ignores that batch effects were estimated, and its p-values "
        "are too small.",
        "Use the uncorrected values. If these are the uncorrected values, some strong "
        "source of variation is balanced over batches: give it as a covariate, or as "
        "subject= if several samples are of one person.",
    )


def no_batch_effect(share: float, called: int) -> Finding:
    """Values in which batch means differ as by chance."""
    return Finding(
        "notes",
        "no_batch_effect",
        f"No batch effect was detected: batch means differ (p ≤ 0.05) in {share:.0%} "
        f"of features (5% are expected by chance), and in {called or 'none'} at a "
        "false discovery rate of 5%.",
        "No correction is needed; in a test, batch can stay in the model.",
    )


def inflated(test: str, analysis: str, rate: float, alpha: float) -> Finding:
    """A way of testing that finds what is not there."""
    return Finding(
        "warns",
        "inflated",
        f"After a correction by {analysis} that keeps {test!r}, a test of {test!r} would "
        f"have a false positive rate of {rate:.0%} instead of {alpha:.0%}.",
        f"Test it in one step: batchcorr.tl.differential(adata, batch_key, {test!r}).",
    )


def lost(test: str, kept: float) -> Finding:
    """An effect that goes with the batches where it is not kept."""
    return Finding(
        "notes",
        "effect_lost",
        f"{test!r} is unbalanced over batches: a correction that does not keep it "
        f"leaves only {kept:.0%} of a small effect of it.",
        f"Keep it: covariates=[{test!r}]; and test it in one step.",
    )
