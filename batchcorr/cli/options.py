"""Options that commands share; `arguments` says what they mean for a method."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from batchcorr.cli.normalizing import METHODS

TABLES = "Tables"
NORMALIZATION = "Normalization before"
SIZE = "Sparse and large data"

KINDS = "AnnData (.h5ad, .zarr) or table (.csv, .tsv, .txt; also .gz)"
SOURCES = f"{KINDS}, 10x (.h5, or folder with matrix.mtx)"

Source = Annotated[Path, typer.Argument(metavar="IN", help=f"To read: {SOURCES}.")]
Target = Annotated[Path, typer.Argument(metavar="OUT", help=f"To write: {KINDS}.")]
Samples = Annotated[
    Path | None,
    typer.Option(
        "--samples",
        metavar="SHEET",
        help="Where IN is a table or 10x: a table with a row for each sample: its name, "
        "batch and covariates.",
        rich_help_panel=TABLES,
    ),
]
SampleColumn = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Column of SHEET with the samples' names, if not the first.",
        rich_help_panel=TABLES,
    ),
]
Separator = Annotated[
    str | None,
    typer.Option(
        "--sep",
        metavar="CHAR",
        help="What separates fields of tables, if it is not found: comma, semicolon, "
        "tab, space.",
        rich_help_panel=TABLES,
    ),
]
Decimal = Annotated[
    str | None,
    typer.Option(
        metavar="CHAR",
        help="Decimal mark of tables, if it is not found: . or ,",
        rich_help_panel=TABLES,
    ),
]
Batch = Annotated[
    list[str] | None,
    typer.Option(
        metavar="KEY",
        help="Column of obs (or SHEET) with the batch. Repeat for several batch factors "
        "(remove_batch_effect).",
    ),
]
OneBatch = Annotated[
    str,
    typer.Option(
        "--batch", metavar="KEY", help="Column of obs (or SHEET) with the batch."
    ),
]
Method = Annotated[
    str, typer.Option(metavar="NAME", help="See: [bold]batchcorr methods[/bold].")
]
Covariates = Annotated[
    list[str] | None,
    typer.Option("--covariate", metavar="KEY", help="Column of obs to keep. Repeat."),
]
Formula = Annotated[
    str | None,
    typer.Option(metavar="F", help='What to keep, such as "~ cell_type + age".'),
]
Nuisances = Annotated[
    list[str] | None,
    typer.Option(
        "--nuisance",
        metavar="KEY",
        help="Column of obs to remove with batch (not standardize, covbat). Repeat.",
    ),
]
Missing = Annotated[
    Literal["error", "level", "drop"],
    typer.Option(
        "--missing",
        metavar="HOW",
        help="Missing labels: error, level (of their own) or drop (the samples).",
    ),
]
Subject = Annotated[
    str | None,
    typer.Option(
        metavar="KEY",
        help="Column of obs: who a sample is of (combat, standardize, "
        "remove_batch_effect).",
    ),
]
Reference = Annotated[
    str | None, typer.Option(metavar="BATCH", help="Batch that stays as it is.")
]
Layer = Annotated[
    str | None, typer.Option(metavar="NAME", help="Layer to correct, not X.")
]
LayerRead = Annotated[
    str | None, typer.Option("--layer", metavar="NAME", help="Layer to read, not X.")
]
KeyAdded = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Layer for the result; else it is overwritten."),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help="Any parameter of the method, such as mean_only=true. Repeat.",
    ),
]
LogNormalize = Annotated[
    str | None,
    typer.Option(
        "--log-normalize",
        metavar="[=METHOD]",
        help="IN holds counts: scale samples and take log1p first. By their total, or "
        f"by {', '.join(METHODS[1:])}.",
        rich_help_panel=NORMALIZATION,
    ),
]
QuantileNormalize = Annotated[
    bool,
    typer.Option(
        "--quantile-normalize",
        metavar="",
        help="Give all samples one distribution first (after --log-normalize).",
        rich_help_panel=NORMALIZATION,
    ),
]
MinCount = Annotated[
    float | None,
    typer.Option(
        "--min-count",
        metavar="N",
        help="Test only features with so many counts in as many samples as the smallest "
        "group has, as edgeR's filterByExpr (10).",
    ),
]
Dense = Annotated[
    bool | None,
    typer.Option(
        "--dense/--no-dense",
        metavar="",
        help="Whether a sparse matrix may become dense. Else it may if it is small.",
        rich_help_panel=SIZE,
    ),
]
Memory = Annotated[
    str | None,
    typer.Option(
        metavar="SIZE",
        help="Correct a file larger than memory, block by block, with no more memory "
        "than this: 2GiB, 500MB.",
        rich_help_panel=SIZE,
    ),
]
Scheduler = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        help="Correct block by block on a Dask scheduler (tcp://…), or on [bold]"
        "threads[/bold] or [bold]processes[/bold] here; --memory is then each worker's.",
        rich_help_panel=SIZE,
    ),
]
Compress = Annotated[
    bool,
    typer.Option(
        "--compress",
        metavar="",
        help="Pack .h5ad with gzip: smaller, and much slower. For a table: OUT.csv.gz.",
    ),
]
Force = Annotated[
    bool, typer.Option("--force", metavar="", help="Replace OUT if it exists.")
]
Json = Annotated[
    Path | None,
    typer.Option(
        "--json", metavar="FILE", help="Write all that was found for programs: .json."
    ),
]
