"""`evaluate`: how much of batch is left in a file, and how much else is kept."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from batchcorr.cli import options
from batchcorr.cli.arguments import kept
from batchcorr.cli.console import out, reporting, working
from batchcorr.cli.files import check_kind, check_target, write_json
from batchcorr.cli.samples import TableOptions, check_data, check_one_matrix, open_data
from batchcorr.cli.words import as_typed

if TYPE_CHECKING:
    from batchcorr.tl import Evaluation

__all__ = ["evaluate"]

WIDTH = 88

Labels = Annotated[
    str | None,
    typer.Option(
        metavar="KEY", help="Column of obs that should stay apart: cell types."
    ),
]
Layers = Annotated[
    list[str] | None,
    typer.Option(
        "--layer",
        metavar="NAME",
        help="Layer to look at, X for X. Repeat. Corrected ones are compared with what they were made from.",
        show_default="X, and what was corrected",
    ),
]
Embeddings = Annotated[
    list[str] | None,
    typer.Option("--embedding", metavar="NAME", help="Key of obsm. Repeat."),
]
Json = Annotated[
    Path | None,
    typer.Option(
        "--json", metavar="FILE", help="Write all scores for programs: .json."
    ),
]


def evaluate(
    source: options.Source,
    *,
    batch: options.OneBatch,
    labels: Labels = None,
    covariates: options.Covariates = None,
    formula: options.Formula = None,
    layers: Layers = None,
    embeddings: Embeddings = None,
    json_file: Json = None,
    samples: options.Samples = None,
    sample_column: options.SampleColumn = None,
    sep: options.Separator = None,
    decimal: options.Decimal = None,
    force: options.Force = False,
) -> None:
    """Say how much of batch is left, and how much biology is kept.

    Each score stands beside half of its 95 % interval, and in brackets what chance gives.

    \b
    batchcorr evaluate out.h5ad --batch day --labels cell_type
    batchcorr evaluate out.h5ad --batch day --layer X --layer combat
    """  # noqa: D301 - \b keeps typer from joining lines
    tables = TableOptions.of_options(samples, sample_column, sep, decimal)
    check_data(source, tables)
    check_one_matrix(source, "--layer", layers)
    check_one_matrix(source, "--embedding", embeddings)
    given = kept(covariates, formula)
    if json_file is not None:
        check_kind(json_file, (".json",))
    with reporting():
        if json_file is not None:
            check_target(json_file, [source, samples], force=force)
        adata, _ = open_data(source, tables)
        import batchcorr as bc

        with working("Evaluating"):
            found = bc.tl.evaluate(
                adata,
                batch,
                labels=labels,
                layers=layers or None,
                embeddings=embeddings or None,
                **given,
            )
        heading = f"{source}: {adata.n_obs:,} samples × {adata.n_vars:,} features."
        out.print(Text(heading, style="bold"))
        _show(found)
        if json_file is not None:
            write_json(json_file, found.to_dict())


def _show(found: Evaluation) -> None:
    """Print a table of batch and one of biology, and what is worth knowing."""
    for title, frame in found.tables():
        out.print()
        out.print(Text(title, style="bold"))
        table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
        table.add_column("score", no_wrap=True)
        for name in frame.columns:
            table.add_column(Text(str(name)), justify="right")
        for score, row in frame.iterrows():
            table.add_row(Text(str(score)), *(Text(cell) for cell in row))
        out.print(Padding(table, (0, 0, 0, 2), expand=False))
    for note in found.notes:
        out.print()
        out.print(Text(as_typed(note)), width=min(out.width, WIDTH))
