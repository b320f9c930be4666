"""Numbers where labels should be, and labels where numbers should be.

A table read with one odd cell holds text in place of numbers; a measurement given as
batch makes all samples alike. Neither can be known for sure, so that what follows here
are words to the user, and no guess is acted upon.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from batchcorr.errors import DesignError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from batchcorr.design.levels import Level

__all__ = ["numbers_as_text", "refuse_measurements"]

NUMERAL = re.compile(
    r"""\s* [<>≤≥~≈]? \s* [-+]?
        ( \d{1,3}(,\d{3})+(\.\d*)? | \d+([.,]\d*)? | [.,]\d+ ) ([eE][-+]?\d+)? \s* %? \s*""",
    re.VERBOSE,
)
"""A number as people write it: 27, 27.5, "27,5", ">89", " 27", "1,250", "45 %"."""

PLAIN = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
PADDED = re.compile(r"0\d+")
CLUSTER = re.compile(r"(\d{1,3})(,\d{1,2})*")
"""The name of a cluster, as scanpy gives them: 3, or 3,1 for a part of it."""

FEW_LABELS = 5
FEW_BATCHES = 10
"""Batches that may be called by numbers with decimals, such as 1.2, without a doubt."""


def numbers_as_text(levels: Sequence[Level], *, category: bool) -> Level | None:
    """The first label of a column of labels that was probably meant as numbers, or None.

    Parameters
    ----------
    category
        Whether the column is a category: one of small whole numbers without gaps, like
        those of scanpy's clusters, is what it says; so is text with five or fewer.

    Returns
    -------
    The first that is more than a plain number, such as ">89"; if there is none, the
    first. None if half of them are not numbers, or some begin with 0, such as "007".

    Examples
    --------
    >>> numbers_as_text(["27", "28,5", ">89"], category=False)
    '28,5'
    >>> numbers_as_text(["0", "1", "2"], category=True)
    """
    written = [str(level) for level in levels if not isinstance(level, bool)]
    numerals = [text for text in written if NUMERAL.fullmatch(text)]
    if len(numerals) < 3 or 2 * len(numerals) <= len(levels):
        return None
    if not any(isinstance(level, str) for level in levels):
        return None  # a category of numbers
    if any(map(PADDED.fullmatch, numerals)):
        return None
    if (category or len(levels) <= FEW_LABELS) and _are_clusters(numerals):
        return None
    return next((x for x in levels if not PLAIN.fullmatch(str(x))), levels[0])


def refuse_measurements(levels: Sequence[Level], n_rows: int, name: str) -> None:
    """Refuse a measurement, or a name of each sample, as batch: all would be made alike."""
    n_levels = len(levels)
    if n_rows < 3 or n_levels <= 2:
        return
    texts = [str(level) for level in levels]
    numbers = all(map(PLAIN.fullmatch, texts))
    decimal = any(float(x) != int(float(x)) for x in texts) if numbers else False
    if numbers and (
        2 * n_levels > n_rows or (decimal and n_levels > max(FEW_BATCHES, n_rows / 4))
    ):
        msg = (
            f"{name} has {n_levels} different numbers in {n_rows} samples, like a "
            "measurement: with one batch per value all differences between samples "
            "would be removed. Give it as nuisance= of remove_batch_effect, which "
            f"removes its slope, or make groups of it with pandas.cut. {n_rows} "
            f"samples in {n_levels} batches leave nothing to compare."
        )
        raise DesignError(msg)
    if n_levels == n_rows:
        msg = (
            f"{name} has a different label for each of {n_rows} samples: {n_rows} "
            f"samples in {n_levels} batches leave nothing to compare. Check that this "
            "is the right column."
        )
        raise DesignError(msg)


def _are_clusters(numerals: Sequence[str]) -> bool:
    """Whether labels count from 0 or 1, nearly without a gap."""
    matches = [CLUSTER.fullmatch(text) for text in numerals]
    if not all(matches):
        return False
    places = {int(match[1]) for match in matches if match}
    return min(places) <= 1 and max(places) <= 1.5 * len(places) + 1
