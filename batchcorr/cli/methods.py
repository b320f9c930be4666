"""`methods`: what there is to choose from, read from their sources."""

from __future__ import annotations

from rich.table import Table

from batchcorr.cli.arguments import ELSEWHERE
from batchcorr.cli.console import out

__all__ = ["methods"]


def methods() -> None:
    """List the methods, their parameters and defaults.

    Parameters are given to the other commands with --set NAME=VALUE.
    """
    from batchcorr.methods._registry import descriptions

    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column("method", style="bold", no_wrap=True)
    table.add_column("class", no_wrap=True)
    table.add_column("what it does, and its parameters")
    for name, said in sorted(descriptions().items()):
        settings = ", ".join(
            f"{parameter}={_plain(default)}"
            for parameter, default in said.defaults.items()
            if parameter not in ELSEWHERE
        )
        if said.record.normalizes:
            settings = f"a normalization before correction: --{name.replace('_', '-')}"
        if said.record.returns != "matrix":
            settings = "columns for --nuisance: see batchcorr surrogate"
        table.add_row(name, said.class_name, said.summary)
        if settings:
            table.add_row("", "", settings, style="dim")
    out.print(table)


def _plain(default: object) -> str:
    """Write a default as it is typed: true, none, 0.5, pooled."""
    lower = isinstance(default, bool) or default is None
    return str(default).lower() if lower else str(default)
