"""`audit`: check what a design allows before a correction."""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from batchcorr.cli import options
from batchcorr.cli.arguments import kept
from batchcorr.cli.console import new_table, out, print_table
from batchcorr.cli.contrasts import read_test
from batchcorr.cli.files import check_target
from batchcorr.cli.missing import treat_missing
from batchcorr.cli.normalizing import Normalization, normalize
from batchcorr.cli.samples import Source
from batchcorr.cli.words import as_typed
from batchcorr.cli.working import working
from batchcorr.cli.writing import write_json

if TYPE_CHECKING:
    import pandas as pd

    from batchcorr.tl import Audit

__all__ = ["audit"]

BLOCKED = 3
"""The exit code where something makes the correction impossible."""

STYLES = {"blocks": "bold red", "warns": "bold yellow", "notes": "cyan"}
WIDTH = 88
ROWS, COLUMNS = 20, 8
"""What is shown of a covariate by batch."""


def audit(
    source: options.Source,
    *,
    batch: options.OneBatch,
    covariates: options.Covariates = None,
    formula: options.Formula = None,
    test: Annotated[
        str | None,
        typer.Option(
            metavar="KEY[:A-B]",
            help="Column of obs (or SHEET) that will be tested, or two of its levels.",
        ),
    ] = None,
    alpha: Annotated[
        float,
        typer.Option(
            metavar="RATE",
            help=("Significance level: the nominal false positive rate."),
        ),
    ] = 0.05,
    missing: options.Missing = "error",
    log_normalize: options.LogNormalize = None,
    layer: options.LayerRead = None,
    json_file: options.Json = None,
    samples: options.Samples = None,
    sample_column: options.SampleColumn = None,
    sep: options.Separator = None,
    decimal: options.Decimal = None,
    force: options.Force = False,
) -> None:
    """Check what the design allows before correcting anything.

    With --test, also predict the false positive rate of tests of corrected values.
    The exit code is 3 if a correction is impossible.

    \b
    batchcorr audit in.h5ad --batch day --covariate age --test group
    batchcorr audit counts.txt --samples sheet.csv --batch day --log-normalize
    """  # noqa: D301 - \b keeps typer from joining lines
    normalization = Normalization.of_options(log_normalize)
    files = Source.of_options(
        source, samples, sample_column, sep, decimal, of_anndata={"--layer": layer}
    )
    if json_file is not None:
        check_target(json_file, (".json",), [source, samples], force=force)
    if not 0 < alpha < 1:
        msg = f"the significance level must lie between 0 and 1, not {alpha:g}."
        raise typer.BadParameter(msg, param_hint="--alpha")
    given = kept(covariates, formula)
    adata, _ = files.open()
    contrast = None if test is None else read_test(test, adata.obs)
    column = contrast if contrast is None or isinstance(contrast, str) else contrast[0]
    named = {"batch_key": batch, "test": column, **given}
    adata = treat_missing(adata, named, missing)
    _, layer = normalize(adata, normalization, layer)
    import batchcorr as bc

    with working("Checking the design"):
        found = bc.tl.audit(
            adata, batch, test=contrast, alpha=alpha, layer=layer, **given
        )
    text = f"{source}: {adata.n_obs:,} samples × {adata.n_vars:,} features, "
    out.print(Text(f"{text}{len(found.batches)} batches.", style="bold"))
    _show(found, test)
    if json_file is not None:
        write_json(json_file, found.to_dict())
    if found.blocks:
        raise typer.Exit(BLOCKED)


def _show(found: Audit, test: str | None) -> None:
    """Print findings, the rates of false positives, and covariates by batch."""
    findings = Table.grid(padding=(0, 2, 0, 0))
    for finding in found.findings:
        text = as_typed(finding.text)
        findings.add_row(Text(finding.level, STYLES[finding.level]), Text(text))
    if not found.findings:
        findings.add_row(Text("No problems were found.", "green"))
    out.print(findings, width=min(out.width, WIDTH))
    if len(found.predicted):
        _show_rates(found, test)
    for name, table in found.tables.items():
        _show_table(f"{name} by batch", table)
    if not found.tables:
        _show_table("Batches", found.batches)


def _show_rates(found: Audit, test: str | None) -> None:
    levels = found.predicted.get("level")
    worst = "" if levels is None else f", worst for {levels.iloc[0]}"
    table = new_table("tested values", "false positives", "effect left if not kept")
    for analysis, row in found.predicted.iterrows():
        one_step = analysis == "one_step"
        values = (
            "uncorrected: batchcorr test" if one_step else f"corrected by {analysis}"
        )
        rates = (row["false_positive_rate"], row["effect_kept"])
        table.add_row(Text(values), *(f"{rate:.1%}" for rate in rates))
    print_table(table, f"A test of {test} at {100 * found.alpha:g}%{worst}")


def _show_table(heading: str, frame: pd.DataFrame) -> None:
    """Print a row a batch, as far as there is room."""
    cells = frame.iloc[:ROWS, :COLUMNS].map(_cell)
    widths = [3 + max(map(len, [str(name), *cells[name]])) for name in cells]
    room = out.width - 7 - max(map(len, ["batch", *map(str, cells.index)]))
    shown = cells.iloc[:, : max(1, sum(width <= room for width in accumulate(widths)))]
    table = new_table("batch", *map(str, shown.columns))
    for batch, row in shown.iterrows():
        table.add_row(Text(str(batch)), *row)
    print_table(table, heading)
    left = {"batches": len(frame) - len(shown)}
    left["levels"] = frame.shape[1] - shown.shape[1]
    more = ", ".join(f"{count} more {what}" for what, count in left.items() if count)
    if more:
        out.print(Text(f"  and {more}: all are in --json.", style="dim"))


def _cell(value: float) -> str:
    """A measured value, or a number of samples."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if value else "·"
