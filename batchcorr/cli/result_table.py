"""The table of a test: written to a file, and summed up on the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from batchcorr.cli.console import new_table, print_table, say

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

    from batchcorr.cli.samples import Layout

__all__ = ["say_untested", "show_found", "tested_in", "write_result"]

FDR = 0.05


def write_result(table: pd.DataFrame, target: Path, layout: Layout | None) -> None:
    """Write a row a feature, with the separators of the table that was read."""
    from batchcorr.cli.dialects import Style
    from batchcorr.cli.table_writing import write_table
    from batchcorr.cli.tables import Table as Numbers

    style = layout.style if layout else Style("\t")
    style = style._replace(corner="feature")
    rows, columns = list(map(str, table.index)), list(map(str, table.columns))
    write_table(target, Numbers(rows, columns, table.to_numpy(float), style))


def tested_in(target: Path, table: pd.DataFrame, tested: str) -> str:
    """How many features were tested, and of what."""
    n_tested = int(table["p_value"].notna().sum())
    return f"Wrote {target}: {n_tested:,} features tested for {tested}"


def say_untested(
    table: pd.DataFrame, *, counts: bool = False, min_count: float | None = None
) -> None:
    """Say how many features have no p-value, and why."""
    untested = int(table["p_value"].isna().sum())
    if untested:
        why = "do not vary within batches, or have values in too few samples"
        if counts:
            why = "have no counts"
        if min_count is not None:
            why = f"have fewer than {min_count:g} counts in too many samples"
        say(
            f"{untested:,} others have no p-value and are not adjusted for: they {why}."
        )


def show_found(table: pd.DataFrame, alone: str, others: str) -> None:
    """Say how many features are found by each contrast, and in which direction."""
    shown = new_table(
        f"features at {FDR:.0%} false discoveries", "in all", "up", "down"
    )
    for name in map(str, table.columns):
        if not name.startswith("p_adjusted"):
            continue
        level = name.removeprefix("p_adjusted")
        found = table[name] < FDR
        counts = [f"{int(found.sum()):,}"]
        if f"coefficient{level}" in table:
            up = table[f"coefficient{level}"] > 0
            counts += [f"{int((found & side).sum()):,}" for side in (up, ~up)]
        label = f"{level[1:-1]}{others}" if level else alone
        shown.add_row(Text(label), *counts)
    print_table(shown)
