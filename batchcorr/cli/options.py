"""Options that commands share; `arguments` says what they mean for a method."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from batchcorr.cli.normalizing import METHODS

TABLES = "Tables"
NORMALIZATION = "Normalization first"
SIZE = "Sparse and large data"

KINDS = "AnnData (.h5ad, .zarr) or table (.csv, .tsv, .txt; also .gz)"
SOURCES = f"{KINDS}, 10x (.h5, or a folder with matrix.mtx)"

Source = Annotated[Path, typer.Argument(metavar="IN", help=f"File to read: {SOURCES}.")]
Target = Annotated[Path, typer.Argument(metavar="OUT", help=f"File to write: {KINDS}.")]
Samples = Annotated[
    Path | None,
    typer.Option(
        "--samples",
        metavar="SHEET",
        help="Sample sheet, if IN is a table or 10x: a table with one row per sample, "
        "with its name, batch and covariates.",
        rich_help_panel=TABLES,
    ),
]
SampleColumn = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Column of SHEET with the sample names, if not the first one.",
        rich_help_panel=TABLES,
    ),
]
Separator = Annotated[
    str | None,
    typer.Option(
        "--sep",
        metavar="CHAR",
        help="Field separator of tables, if it is not detected: comma, semicolon, tab, "
        "space.",
        rich_help_panel=TABLES,
    ),
]
Decimal = Annotated[
    str | None,
    typer.Option(
        metavar="CHAR",
        help="Decimal mark of tables, if it is not detected: . or ,",
        rich_help_panel=TABLES,
    ),
]
Batch = Annotated[
    list[str] | None,
    typer.Option(
        metavar="KEY",
        help="Column of obs (or SHEET) with the batch. Repeatable for several batch "
        "factors (remove_batch_effect).",
    ),
]
OneBatch = Annotated[
    str,
    typer.Option(
        "--batch", metavar="KEY", help="Column of obs (or SHEET) with the batch."
    ),
]
Method = Annotated[
    str,
    typer.Option(
        metavar="NAME", help=("Correction method, see [bold]batchcorr methods[/bold].")
    ),
]
Covariates = Annotated[
    list[str] | None,
    typer.Option(
        "--covariate",
        metavar="KEY",
        help=("Column of obs (or SHEET) with a covariate to keep. Repeatable."),
    ),
]
Formula = Annotated[
    str | None,
    typer.Option(
        metavar="F",
        help=('Formula of the covariates to keep, such as "~ cell_type + age".'),
    ),
]
Nuisances = Annotated[
    list[str] | None,
    typer.Option(
        "--nuisance",
        metavar="KEY",
        help=(
            "Column of obs (or SHEET) to remove along with batch (not standardize, "
            "covbat). Repeatable."
        ),
    ),
]
Missing = Annotated[
    Literal["error", "level", "drop"],
    typer.Option(
        "--missing",
        metavar="HOW",
        help=(
            "What to do with missing labels: error, level (make them a level) or drop "
            "(the samples)."
        ),
    ),
]
Subject = Annotated[
    str | None,
    typer.Option(
        metavar="KEY",
        help="Column of obs (or SHEET) with the subject of each sample (combat, "
        "standardize, remove_batch_effect).",
    ),
]
Reference = Annotated[
    str | None,
    typer.Option(
        metavar="BATCH",
        help=(
            "Reference batch: it stays unchanged, and the others are adjusted to it."
        ),
    ),
]
Layer = Annotated[
    str | None, typer.Option(metavar="NAME", help="Layer to correct instead of X.")
]
LayerRead = Annotated[
    str | None,
    typer.Option("--layer", metavar="NAME", help=("Layer to read instead of X.")),
]
KeyAdded = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help=("Layer for the result. Default: overwrite the input matrix."),
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help="Parameter of the method, such as mean_only=true. Repeatable.",
    ),
]
LogNormalize = Annotated[
    str | None,
    typer.Option(
        "--log-normalize",
        metavar="[=METHOD]",
        help="IN contains counts: scale samples by their total (or by "
        f"{', '.join(METHODS[1:])}) and take log1p first.",
        rich_help_panel=NORMALIZATION,
    ),
]
QuantileNormalize = Annotated[
    bool,
    typer.Option(
        "--quantile-normalize",
        metavar="",
        help="Give all samples the same distribution first (after --log-normalize).",
        rich_help_panel=NORMALIZATION,
    ),
]
MinCount = Annotated[
    float | None,
    typer.Option(
        "--min-count",
        metavar="N",
        help="Test only features with this many counts in as many samples as the "
        "smallest group has, as edgeR's filterByExpr does (with 10).",
    ),
]
Dense = Annotated[
    bool | None,
    typer.Option(
        "--dense/--no-dense",
        metavar="",
        help=(
            "Whether a sparse matrix may become dense. Default: if half of the free "
            "memory is enough."
        ),
        rich_help_panel=SIZE,
    ),
]
Memory = Annotated[
    str | None,
    typer.Option(
        metavar="SIZE",
        help="Correct a file larger than memory block by block, with at most this much "
        "memory: 2GiB, 500MB.",
        rich_help_panel=SIZE,
    ),
]
Scheduler = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        help="Correct block by block with a Dask scheduler (tcp://…), or with local "
        "[bold]threads[/bold] or [bold]processes[/bold]; --memory is then per "
        "worker.",
        rich_help_panel=SIZE,
    ),
]
Compress = Annotated[
    bool,
    typer.Option(
        "--compress",
        metavar="",
        help=(
            "Compress .h5ad with gzip: smaller, but much slower. For tables name OUT "
            ".csv.gz."
        ),
    ),
]
Force = Annotated[
    bool, typer.Option("--force", metavar="", help="Replace output files that exist.")
]
Json = Annotated[
    Path | None,
    typer.Option(
        "--json", metavar="FILE", help="Also write all results to this .json file."
    ),
]
