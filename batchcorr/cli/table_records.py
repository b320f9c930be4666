"""How the values of a table were made, in a file beside it: OUT.batchcorr.json.

A table has no place for it that R would not read as data. Commands take the record for
that of a table again if the table's samples have the totals that stand in it, whatever
separators and orders became of it since.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from batchcorr.cli.reading import reading
from batchcorr.errors import RepeatWarning, warn

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

__all__ = ["read_record", "record_of", "record_path"]

SAME = 1e-9
"""Relative differences between totals that come of writing 15 digits."""


def record_path(table: Path) -> Path:
    """The file that goes with a table."""
    return table.with_name(f"{table.name}.batchcorr.json")


def record_of(record: dict[str, Any], samples: Iterable[str], values: Any) -> str:
    """What is written: the record, and the totals of samples × features."""
    totals = dict(zip(samples, _totals(values), strict=True))
    whole = {"features": values.shape[1], "totals": totals, "record": record}
    return json.dumps(whole, indent=1, ensure_ascii=False, default=str)


def read_record(
    table: Path, samples: Iterable[str], values: Any
) -> dict[str, Any] | None:
    """The record of what a table holds; None where there is none.

    Raises
    ------
    FileError
        If the file of this name holds something else.

    Warns
    -----
    RepeatWarning
        If the record is of other values than the table holds now.
    """
    path = record_path(table)
    if not path.exists():
        return None
    with reading(path, "record of a table"):
        whole = json.loads(path.read_text("utf-8"))
        record, known = dict(whole["record"]), dict(whole["totals"])
    totals = dict(zip(samples, _totals(values), strict=True))
    if whole["features"] == values.shape[1] and all(
        sample in known and abs(total - known[sample]) <= SAME * abs(total)
        for sample, total in totals.items()
    ):
        return record
    by = record.get("method")
    msg = (
        f"{path} records how other values (by {by}) than those now in {table} were "
        "made, and is ignored. If the table was replaced, delete this file; if it is "
        f"part of the result of {by}, its values are corrected and must not be tested."
    )
    warn(msg, RepeatWarning)
    return None


def _totals(values: Any) -> list[float]:
    """The sum of absolute values of each sample; missing ones are left out."""
    import numpy as np

    sizes = abs(values)
    if hasattr(values, "tocsr"):
        return list(map(float, np.ravel(sizes.sum(axis=1))))
    return list(map(float, np.ravel(np.nansum(sizes, axis=1, dtype=np.float64))))
