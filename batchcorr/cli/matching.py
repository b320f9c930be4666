"""Which samples of a table a sheet describes, and on which side of it they are: by names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchcorr.cli.console import note
from batchcorr.errors import (
    BatchCorrWarning,
    InputError,
    MissingKeyError,
    are,
    some,
    warn,
)

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    import pandas as pd

    from batchcorr.cli.tables import Table

__all__ = ["labels_of", "renamed_as_in", "samples_in_columns"]


def renamed_as_in(
    path: Path, known: pd.DataFrame, names: Collection[str]
) -> pd.DataFrame:
    """A sheet whose samples have the names of the table, where R changed either."""
    from batchcorr.cli.annotation import r_name

    by_name = {r_name(name): name for name in names}
    alike = [by_name.get(r_name(sample), sample) for sample in known.index]
    pairs = [(a, b) for a, b in zip(alike, known.index, strict=True) if a != b]
    if not pairs or len(set(alike)) < len(alike):
        return known
    one, other = pairs[0]
    note(
        f"{path} has {one!r} and the sheet {other!r}: names that R has changed (see "
        "check.names of its read.table) are taken for the same."
    )
    return known.set_axis(alike, axis=0)


def samples_in_columns(
    source: Path, table: Table, sheet: Path, known: Collection[str]
) -> bool:
    """Whether the samples are the columns of a table: the side whose names are known."""
    sides = {"columns": table.columns, "rows": table.rows}
    found = {side: [n for n in sides[side] if n in known] for side in sides}
    whole = [len(found[side]) == len(sides[side]) for side in sides]
    if whole[0] != whole[1]:
        return whole[0]
    if bool(found["columns"]) != bool(found["rows"]):  # the others are missing
        return bool(found["columns"])
    if found["columns"]:
        both = " and ".join(
            f"{len(found[side])} of {len(sides[side])} {side} "
            f"({some(map(repr, found[side]), 3)})"
            for side in sides
        )
        msg = (
            f"{both} of {source} have names that are samples in {sheet}, so that "
            "either could be the samples: rename the features."
        )
    else:
        msg = (
            f"Neither columns nor rows of {source} match the sample names in {sheet}. "
            f"Columns: {some(map(repr, sides['columns']), 3)}; rows: "
            f"{some(map(repr, sides['rows']), 3)}; samples of the sheet: "
            f"{some(map(repr, known), 3)}. Use the same names in both, or give the "
            "column of the sheet that has them with --sample-column."
        )
    raise InputError(msg)


def labels_of(
    source: Path, names: list[str], sheet: Path, known: pd.DataFrame
) -> pd.DataFrame:
    """The rows of the sheet for some samples; warns of others it has."""
    rest = set(known.index)
    missing = [name for name in names if name not in rest]
    if missing:
        msg = (
            f"{len(missing)} of {len(names)} samples of {source} {are(len(missing))} "
            f"not in {sheet}: {some(map(repr, missing), 3)}. It has "
            f"{some(map(repr, known.index), 3)}. Add a row for each, or leave them out "
            "of the table."
        )
        raise MissingKeyError(msg)
    rest -= set(names)
    if rest:
        more = [repr(name) for name in known.index if name in rest]
        msg = f"{len(more)} of {len(known)} samples of {sheet} {are(len(more))} left out, "
        warn(
            f"{msg}because {source} does not have them: {some(more, 3)}.",
            BatchCorrWarning,
        )
    return known.loc[names]
