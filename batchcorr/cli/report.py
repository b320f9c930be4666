"""`report`: one page of design, correction, result and test."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from batchcorr.cli import options
from batchcorr.cli.arguments import kept
from batchcorr.cli.console import reporting, say, working
from batchcorr.cli.contrasts import read_test
from batchcorr.cli.files import check_kind, check_target
from batchcorr.cli.samples import TableOptions, check_data, check_one_matrix, open_data

__all__ = ["report"]


def report(
    source: options.Source,
    target: Annotated[
        Path, typer.Argument(metavar="OUT", help="Page to write: .html.")
    ],
    *,
    batch: Annotated[
        str | None,
        typer.Option(
            metavar="KEY",
            help="Column of obs (or SHEET) with the batch, if not that of the "
            "correction in IN.",
        ),
    ] = None,
    covariates: options.Covariates = None,
    formula: options.Formula = None,
    tested: Annotated[
        str | None,
        typer.Option(
            "--test",
            metavar="KEY[:A-B]",
            help="Column of obs that is tested, or two of its levels, on uncorrected "
            "values.",
        ),
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(
            metavar="KEY", help="Column of obs with what should stay apart: cell types."
        ),
    ] = None,
    layer: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Layer with the uncorrected values, if it is not known.",
        ),
    ] = None,
    corrected: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Layer or embedding with the corrected values, or X; else what has a "
            "record of a correction.",
        ),
    ] = None,
    title: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Heading, if not the name of IN.")
    ] = None,
    samples: options.Samples = None,
    sample_column: options.SampleColumn = None,
    sep: options.Separator = None,
    decimal: options.Decimal = None,
    force: options.Force = False,
) -> None:
    """Write one page to show: what the data allow, what was done, what came of it.

    For files that `correct` wrote, with --key-added or from another file, and for
    files that are not corrected yet. The page needs no network.

    \b
    batchcorr report corrected.h5ad report.html --test group
    batchcorr report genes.csv report.html --samples sheet.csv --batch day
    """  # noqa: D301 - \b keeps typer from joining lines
    tables = TableOptions.of_options(samples, sample_column, sep, decimal)
    check_data(source, tables)
    check_one_matrix(source, "--layer, --corrected", layer or corrected)
    check_kind(target, (".html",))
    given = kept(covariates, formula)
    with reporting():
        check_target(target, [source, samples], force=force)
        adata, _ = open_data(source, tables)
        test = None
        if tested is not None:
            columns = map(str, adata.obs)
            test = read_test(tested, columns, lambda key: adata.obs[key].dropna())
        import batchcorr as bc

        with working("Reporting"):
            bc.report(
                adata,
                target,
                batch,
                test=test,
                labels=labels,
                layer=layer,
                corrected=corrected,
                title=title or source.name,
                **given,
            )
        say(f"Wrote {target}: open it in a browser. It needs no network.")
