"""`test`: differences between groups, on uncorrected values with batch in the model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from batchcorr.cli import options
from batchcorr.cli.arguments import batch_key, kept, only_options
from batchcorr.cli.console import say
from batchcorr.cli.contrasts import Pair, compared, read_test
from batchcorr.cli.files import SOURCES, TABLES, check_target, kind_of
from batchcorr.cli.missing import treat_missing
from batchcorr.cli.normalizing import Normalization, normalize
from batchcorr.cli.result_table import say_untested, show_found, tested_in, write_result
from batchcorr.cli.samples import Source
from batchcorr.cli.working import working
from batchcorr.errors import some

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["differential"]

MOMENTS = ".npz"

Batch = Annotated[
    list[str] | None,
    typer.Option(
        metavar="KEY",
        help=(
            "Column of obs (or SHEET) with the batch. Repeatable. Not for moments of "
            "sites."
        ),
    ),
]
Tested = Annotated[
    str,
    typer.Option(
        "--test",
        metavar="KEY[:A-B]",
        help="Column of obs (or SHEET) to test: all levels against the first, or A "
        "against B.",
    ),
]
Covariates = Annotated[
    list[str] | None,
    typer.Option(
        "--covariate",
        metavar="KEY",
        help=("Column of obs (or SHEET) with a covariate of the model. Repeatable."),
    ),
]
Formula = Annotated[
    str | None,
    typer.Option(
        metavar="F",
        help=('Formula of the covariates of the model, such as "~ sex + age".'),
    ),
]
Nuisances = Annotated[
    list[str] | None,
    typer.Option(
        "--nuisance", metavar="KEY", help=("The same as --covariate. Repeatable.")
    ),
]


Weights = Annotated[
    str | None,
    typer.Option(
        metavar="KEY",
        help=(
            "Column of obs with weights of samples, or layer with weights of single "
            "values."
        ),
    ),
]
Subject = Annotated[
    str | None,
    typer.Option(
        metavar="KEY",
        help=(
            "Column of obs (or SHEET) with the subject of each sample, if subjects "
            "have several."
        ),
    ),
]
Voom = Annotated[
    str | None,
    typer.Option(
        "--voom",
        metavar="[=METHOD]",
        help="IN contains counts of bulk samples: test their logarithms, weighted by "
        "precision. Library sizes are total counts, or multiplied by factors of "
        "tmm, rle, …",
    ),
]


def differential(
    ctx: typer.Context,
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="IN… OUT",
            help=f"File to read: {options.SOURCES}; or the moments of all sites (.npz). "
            "Last the table to write: .csv, .tsv, .txt; also .gz.",
        ),
    ],
    *,
    batch: Batch = None,
    tested: Tested,
    covariates: Covariates = None,
    formula: Formula = None,
    nuisances: Nuisances = None,
    trend: Annotated[
        bool,
        typer.Option(
            "--trend",
            metavar="",
            help=(
                "Prior variance depends on the mean (limma-trend), for logarithms of "
                "counts."
            ),
        ),
    ] = False,
    robust: Annotated[
        bool,
        typer.Option(
            "--robust",
            metavar="",
            help=("Limit the influence of features with outlying variances."),
        ),
    ] = False,
    unequal_variances: Annotated[
        bool,
        typer.Option(
            "--unequal-variances",
            metavar="",
            help="Estimate a variance for each batch.",
        ),
    ] = False,
    weights: Weights = None,
    subject: Subject = None,
    missing: options.Missing = "error",
    voom: Voom = None,
    min_count: options.MinCount = None,
    layer: options.LayerRead = None,
    log_normalize: options.LogNormalize = None,
    quantile_normalize: options.QuantileNormalize = False,
    samples: options.Samples = None,
    sample_column: options.SampleColumn = None,
    sep: options.Separator = None,
    decimal: options.Decimal = None,
    force: options.Force = False,
) -> None:
    """Test uncorrected values for differences, with batch in the model.

    Writes a table of moderated t tests (as in limma), one row per feature. Unlike
    tests of corrected values, it accounts for the uncertainty of batch effects.

    \b
    batchcorr test in.h5ad results.csv --batch day --test group:treated-control
    batchcorr test counts.txt results.csv --samples sheet.csv --batch day \\
        --test group --voom
    batchcorr test site*.npz results.csv --test group    # see: batchcorr moments
    """  # noqa: D301 - \b keeps typer from joining lines
    sources, target = _files(paths)
    settings: dict[str, Any] = {
        "trend": trend,
        "robust": robust,
        "equal_variances": not unequal_variances,
    }
    if sources[0].suffix.lower() == MOMENTS:
        only_options(
            ctx,
            {"paths", "tested", "trend", "robust", "unequal_variances", "force"},
            "moments are tested as they are: all batches and covariates of their schema "
            "are in the model.",
        )
        check_target(target, TABLES, sources, force=force)
        _test_sites(sources, target, tested, settings)
        return
    normalization = Normalization.of_options(
        log_normalize, quantile=quantile_normalize, voom=voom
    )
    files = Source.of_options(
        sources[0], samples, sample_column, sep, decimal, of_anndata={"--layer": layer}
    )
    check_target(target, TABLES, [*sources, samples], force=force)
    if not batch and not nuisances:
        msg = (
            "give the column with the batch. If batches were not recorded, give "
            "surrogate variables of `batchcorr surrogate` with --nuisance."
        )
        raise typer.BadParameter(msg, param_hint="--batch")
    settings |= {"weights": weights, "subject": subject, "voom": voom or False}
    settings["min_count"] = min_count
    settings |= {"nuisance": nuisances, **kept(covariates, formula)}
    key = batch_key(batch)
    adata, layout = files.open()
    test = read_test(tested, adata.obs)
    column = test if isinstance(test, str) else test[0]
    named = settings | {"batch_key": key, "test": column}
    adata = treat_missing(adata, named, missing)
    _, layer = normalize(adata, normalization, layer)
    import batchcorr as bc

    with working("Testing"):
        table = bc.tl.differential(adata, key, test, layer=layer, **settings)
    write_result(table, target, layout)
    said = tested_in(target, table, tested)
    model = some(batch or nuisances or [])
    say(f"{said}, on {adata.n_obs:,} samples, {model} in the model.")
    say_untested(table, counts=voom is not None, min_count=min_count)
    show_found(table, *compared(test, _levels(adata.obs, test)))
    correlation = table.attrs.get("subject_correlation")
    if correlation is not None:
        say(f"Samples of one {subject} correlate by {correlation:.3f}.")


def _test_sites(
    sites: list[Path], target: Path, tested: str, settings: dict[str, Any]
) -> None:
    """Test over the samples of sites that sent their sums."""
    import batchcorr as bc

    given = [bc.SiteMoments.load(path) for path in sites]
    schema = given[0].schema
    levels = {
        name: () if isinstance(found, str) else tuple(found)
        for name, found in schema.covariates.items()
    }
    test = read_test(tested, levels, "covariate of the sites' schema")
    with working("Testing"):
        table = bc.sites.differential(sites, test, **settings)
    write_result(table, target, None)
    rows = sum(site.n_rows for site in given)
    said = tested_in(target, table, tested)
    several = "site" if len(sites) == 1 else "sites"
    text = f"{said}, on the sums of {len(sites)} {several} over {rows:,} samples"
    say(f"{text}, {schema.batch_key} in the model.")
    say_untested(table)
    column = test if isinstance(test, str) else test[0]
    show_found(table, *compared(test, levels[column] or None))


def _files(paths: list[Path]) -> tuple[list[Path], Path]:
    """The files to read and the table to write; others are wrong usage."""
    sources, target = paths[:-1], paths[-1]
    if not sources:
        msg = (
            f"{target} is the only file given: name the table to write after the file "
            "to read."
        )
        raise typer.BadParameter(msg, param_hint="OUT")
    kinds = {kind_of(path, (*SOURCES, MOMENTS)) for path in sources}
    if len(sources) > 1 and kinds != {MOMENTS}:
        msg = (
            f"{some(sources)} are {len(sources)} files, but only one file of samples "
            "can be tested: join them first, or compute moments of each with batchcorr "
            "moments."
        )
        raise typer.BadParameter(msg, param_hint="IN")
    return sources, target


def _levels(obs: pd.DataFrame, test: str | Pair) -> list[object] | None:
    """The levels of a tested column, the reference first; None: it holds numbers."""
    if not isinstance(test, str):
        return None
    from batchcorr.design.variables import Variable

    levels = Variable.fit_transform(obs[test], test, quiet=True)[0].levels
    return None if levels is None else list(levels)
