"""`evaluate`: how much of batch is left in a file, and how much else is kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from batchcorr.cli import options
from batchcorr.cli.arguments import kept
from batchcorr.cli.console import new_table, out, print_table
from batchcorr.cli.files import check_target
from batchcorr.cli.missing import treat_missing
from batchcorr.cli.samples import Source
from batchcorr.cli.words import as_typed
from batchcorr.cli.working import working
from batchcorr.cli.writing import write_json

if TYPE_CHECKING:
    from batchcorr.tl import Evaluation

__all__ = ["evaluate"]

WIDTH = 88

Labels = Annotated[
    str | None,
    typer.Option(
        metavar="KEY",
        help=(
            "Column of obs (or SHEET) with groups that should stay separate, such as "
            "cell types."
        ),
    ),
]
Layers = Annotated[
    list[str] | None,
    typer.Option(
        "--layer",
        metavar="NAME",
        help="Layer to score (X for X). Repeatable. Default: X and corrected layers. "
        "Corrected layers are compared with their uncorrected values.",
    ),
]
Embeddings = Annotated[
    list[str] | None,
    typer.Option(
        "--embedding", metavar="NAME", help=("Key of obsm to score. Repeatable.")
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
    missing: options.Missing = "error",
    json_file: options.Json = None,
    samples: options.Samples = None,
    sample_column: options.SampleColumn = None,
    sep: options.Separator = None,
    decimal: options.Decimal = None,
    force: options.Force = False,
) -> None:
    """Score how much batch effect remains and how much biology is kept.

    Each score is shown with half of its 95 % interval and the value expected by chance.

    \b
    batchcorr evaluate out.h5ad --batch day --labels cell_type
    batchcorr evaluate out.h5ad --batch day --layer X --layer combat
    """  # noqa: D301 - \b keeps typer from joining lines
    of_anndata = {"--layer": layers, "--embedding": embeddings}
    files = Source.of_options(
        source, samples, sample_column, sep, decimal, of_anndata=of_anndata
    )
    if json_file is not None:
        check_target(json_file, (".json",), [source, samples], force=force)
    given = kept(covariates, formula)
    adata, _ = files.open()
    adata = treat_missing(adata, {"batch_key": batch, **given}, missing)
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
        table = new_table("score", *map(str, frame.columns))
        for score, row in frame.iterrows():
            table.add_row(Text(str(score)), *map(Text, row))
        print_table(table, title)
    for note in found.notes:
        out.print()
        out.print(Text(as_typed(note)), width=min(out.width, WIDTH))
