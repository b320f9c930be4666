"""What counting programs write into a table beside the counts of genes and samples.

featureCounts puts five columns on each gene, and names samples by their BAM files;
nf-core puts gene names; HTSeq and STAR end with the reads that no gene has.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

from batchcorr.cli.console import note
from batchcorr.cli.tables import is_number
from batchcorr.errors import some

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    import pandas as pd

    from batchcorr.cli.tables import Table

__all__ = ["Annotated", "r_name", "sample_names", "set_apart"]

FEATURE_COUNTS = ["Chr", "Start", "End", "Strand", "Length"]

NOT_COUNTED = frozenset(
    {
        "__no_feature",
        "__ambiguous",
        "__too_low_aQual",
        "__not_aligned",
        "__alignment_not_unique",
        "N_unmapped",
        "N_multimapping",
        "N_noFeature",
        "N_ambiguous",
    }
)
"""Rows of HTSeq and STAR that count reads of no gene."""

ALIGNMENTS = {".bam", ".sam", ".cram"}


class Annotated(NamedTuple):
    """A table of numbers, and what its rows were annotated with."""

    table: Table
    annotation: pd.DataFrame


def set_apart(path: Path, table: Table, known: Collection[str]) -> Annotated:
    """Take out of a table what is neither data nor a known sample, and say so."""
    table = _without_uncounted(path, table)
    if table.columns[: len(FEATURE_COUNTS)] == FEATURE_COUNTS:
        apart = list(range(len(FEATURE_COUNTS)))
    else:
        apart = [
            place
            for place, name in enumerate(table.columns)
            if name not in known and _is_text(table, place)
        ]
        if len(apart) == len(table.columns):
            apart = []  # no annotation of numbers: an error names a cell
    names = [table.columns[k] for k in apart]
    annotation = table.cells.iloc[:, apart].set_axis(names, axis=1)
    if apart:
        note(f"Left out of the data: the columns {some(names)} of {path}.")
        kept = [k for k in range(len(table.columns)) if k not in set(apart)]
        columns = [table.columns[k] for k in kept]
        table = table._replace(columns=columns, cells=table.cells.iloc[:, kept])
    return Annotated(table, annotation.set_axis(table.rows, axis=0))


def sample_names(columns: list[str]) -> list[str]:
    """Names of alignment files without folder and ending; other names as they are."""
    paths = map(PurePosixPath, columns)
    return [
        path.stem if path.suffix.lower() in ALIGNMENTS else name
        for path, name in zip(paths, columns, strict=True)
    ]


def r_name(name: str) -> str:
    """What R's `read.table` and `data.frame` make of a name of a column.

    Examples
    --------
    >>> [r_name(name) for name in ("s-1", "1", "/run/a.bam", "ok_1")]
    ['s.1', 'X1', 'X.run.a.bam', 'ok_1']
    """
    valid = re.match(r"[^\W\d_]|\.(?!\d)", name)
    return re.sub(r"[^\w.]", ".", name if valid else f"X{name}")


def _without_uncounted(path: Path, table: Table) -> Table:
    """Drop the rows, or columns, that count reads of no gene."""
    for axis, names in (("rows", table.rows), ("columns", table.columns)):
        found = [name for name in names if name in NOT_COUNTED]
        if found:
            note(f"Left out of the data: the {axis} {some(found)} of {path}, no genes.")
            kept = [k for k, name in enumerate(names) if name not in NOT_COUNTED]
            cells = (
                table.cells.iloc[kept] if axis == "rows" else table.cells.iloc[:, kept]
            )
            table = table._replace(**{axis: [names[k] for k in kept], "cells": cells})
    return table


def _is_text(table: Table, place: int) -> bool:
    """Whether a column holds texts and not one number."""
    column = table.cells.iloc[:, place]
    if column.dtype.kind in "iufb":
        return False
    texts = column.dropna().astype(str)
    decimal = table.style.decimal
    return len(texts) > 0 and not any(is_number(text, decimal) for text in texts)
