"""`test`: differences between groups, on uncorrected values with batch in the model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from batchcorr.cli import options
from batchcorr.cli.arguments import kept
from batchcorr.cli.console import out, reporting, say, working
from batchcorr.cli.contrasts import Pair, compared, read_test
from batchcorr.cli.files import SOURCES, TABLES, check_kind, check_target
from batchcorr.cli.normalizing import METHODS, Normalization, normalize
from batchcorr.cli.samples import (
    Layout,
    TableOptions,
    check_data,
    check_one_matrix,
    open_data,
)
from batchcorr.errors import some

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

__all__ = ["differential"]

FDR = 0.05
MOMENTS = ".npz"

Batch = Annotated[
    list[str] | None,
    typer.Option(
        metavar="KEY",
        help="Column of obs (or SHEET) with the batch. Repeat for several. Not for sites.",
    ),
]
Tested = Annotated[
    str,
    typer.Option(
        "--test",
        metavar="KEY[:A-B]",
        help="Column of obs that is tested; of its levels all against the first, or A "
        "against B.",
    ),
]
Covariates = Annotated[
    list[str] | None,
    typer.Option(
        "--covariate", metavar="KEY", help="Column of obs to adjust for. Repeat."
    ),
]
Formula = Annotated[
    str | None,
    typer.Option(metavar="F", help='What to adjust for, such as "~ sex + age".'),
]
Nuisances = Annotated[
    list[str] | None,
    typer.Option("--nuisance", metavar="KEY", help="The same as --covariate. Repeat."),
]


Weights = Annotated[
    str | None,
    typer.Option(
        metavar="KEY",
        help="Column of obs with a weight of each sample, or layer with one of each value.",
    ),
]
Subject = Annotated[
    str | None,
    typer.Option(
        metavar="KEY",
        help="Column of obs that says who a sample is of, where several are of one.",
    ),
]
Voom = Annotated[
    str | None,
    typer.Option(
        "--voom",
        metavar="[=METHOD]",
        help="IN holds counts of bulk samples: weigh their logarithms by how precise they "
        "are. Libraries by their total, or by tmm, rle, …",
    ),
]


def differential(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="IN… OUT",
            help=f"To read: one {options.SOURCES}, or the moments of all sites (.npz). "
            "Then the table to write: .csv, .tsv, .txt; also .gz.",
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
            help="Variance follows the mean, as in logarithms of counts.",
        ),
    ] = False,
    robust: Annotated[
        bool,
        typer.Option(
            "--robust", metavar="", help="Features of outlying variance do not decide."
        ),
    ] = False,
    unequal_variances: Annotated[
        bool,
        typer.Option(
            "--unequal-variances", metavar="", help="Each batch has its own variance."
        ),
    ] = False,
    weights: Weights = None,
    subject: Subject = None,
    voom: Voom = None,
    layer: options.LayerRead = None,
    log_normalize: options.LogNormalize = None,
    samples: options.Samples = None,
    sample_column: options.SampleColumn = None,
    sep: options.Separator = None,
    decimal: options.Decimal = None,
    force: options.Force = False,
) -> None:
    """Test uncorrected values for differences, batch in the model.

    A table of moderated t tests, a row a feature: in one step what testing
    corrected values gets wrong.

    \b
    batchcorr test in.h5ad results.csv --batch day --test group:treated-control
    batchcorr test counts.txt results.csv --samples sheet.csv --batch day \\
        --test group --voom
    batchcorr test site*.npz results.csv --test group    # see: batchcorr moments
    """  # noqa: D301 - \b keeps typer from joining lines
    tables = TableOptions.of_options(samples, sample_column, sep, decimal)
    normalization = Normalization.of_options(log_normalize, quantile=False)
    sources, target = _files(paths)
    settings: dict[str, Any] = {
        "trend": trend,
        "robust": robust,
        "equal_variances": not unequal_variances,
    }
    if _are_moments(sources):
        of_samples = {
            "--batch": batch,
            "--covariate": covariates,
            "--formula": formula,
            "--nuisance": nuisances,
            "--weights": weights,
            "--subject": subject,
            "--voom": voom,
            "--layer": layer,
            "--log-normalize": log_normalize,
            "--samples": samples,
            "--sample-column": sample_column,
            "--sep": sep,
            "--decimal": decimal,
        }
        _refuse_of_samples(of_samples)
        with reporting():
            check_target(target, sources, force=force)
            _test_sites(sources, target, tested, settings)
        return
    source = sources[0]
    check_data(source, tables)
    check_one_matrix(source, "--layer", layer)
    if not batch:
        msg = "samples need it: the column that holds the batch."
        raise typer.BadParameter(msg, param_hint="--batch")
    settings |= {"weights": weights, "subject": subject, "voom": voom or False}
    settings |= {"nuisance": nuisances, **kept(covariates, formula)}
    _check_counts(voom, log_normalize)
    with reporting():
        check_target(target, [source, samples], force=force)
        adata, layout = open_data(source, tables)
        test = read_test(
            tested, map(str, adata.obs), lambda key: adata.obs[key].dropna()
        )
        _, layer = normalize(adata, normalization, layer)
        import batchcorr as bc

        key = batch[0] if len(batch) == 1 else batch
        with working("Testing"):
            table = bc.tl.differential(adata, key, test, layer=layer, **settings)
        _write(table, target, layout)
        text = f"Wrote {target}: {adata.n_vars:,} features tested for {tested}, on "
        say(f"{text}{adata.n_obs:,} samples, {some(batch)} in the model.")
        _show(table, *compared(test, _levels(adata.obs, test)))
        correlation = table.attrs.get("subject_correlation")
        if correlation is not None:
            say(f"Samples of one {subject} correlate by {correlation:.3f}.")


def _test_sites(
    sites: list[Path], target: Path, tested: str, settings: dict[str, Any]
) -> None:
    """Test over the samples of sites that sent their sums."""
    import batchcorr as bc

    given = [bc.SiteMoments.load(path) for path in sites]
    covariates = given[0].schema.covariates
    levels = {
        name: None if isinstance(found, str) else list(found)
        for name, found in covariates.items()
    }
    where = "covariate of the sites' schema"
    test = read_test(tested, levels, lambda key: levels[key] or (), where)
    with working("Testing"):
        table = bc.sites.differential(sites, test, **settings)
    _write(table, target, None)
    rows = sum(site.n_rows for site in given)
    text = (
        f"Wrote {target}: {len(table):,} features tested for {tested}, on the sums of "
    )
    text += (
        f"{len(sites)} {'site' if len(sites) == 1 else 'sites'} over {rows:,} samples"
    )
    say(f"{text}, {given[0].schema.batch_key} in the model.")
    column = test if isinstance(test, str) else test[0]
    _show(table, *compared(test, levels[column]))


def _files(paths: list[Path]) -> tuple[list[Path], Path]:
    """The files to read and the table to write; others are wrong usage."""
    sources, target = paths[:-1], paths[-1]
    if not sources:
        msg = f"{target} is the only file: name the table to write after it."
        raise typer.BadParameter(msg, param_hint="OUT")
    check_kind(target, tuple(TABLES))
    for path in sources:
        check_kind(path, (*SOURCES, MOMENTS))
    if len(sources) > 1 and not _are_moments(sources):
        msg = (
            f"{some(sources)} are {len(sources)} files, and samples of one are tested: "
            "join them before; or make moments of each, with batchcorr moments."
        )
        raise typer.BadParameter(msg, param_hint="IN")
    return sources, target


def _check_counts(voom: str | None, log_normalize: str | None) -> None:
    """Refuse, as wrong usage, a method that is not there, and logarithms twice."""
    if voom is not None and voom not in METHODS:
        msg = f"there is no {voom!r}. Available: {', '.join(METHODS)}."
        raise typer.BadParameter(msg, param_hint="--voom")
    if voom is not None and log_normalize is not None:
        msg = "voom takes logarithms itself: leave out --log-normalize."
        raise typer.BadParameter(msg, param_hint="--voom")


def _are_moments(sources: list[Path]) -> bool:
    return all(path.suffix.lower() == MOMENTS for path in sources)


def _refuse_of_samples(given: Mapping[str, object]) -> None:
    """Refuse, as wrong usage, what sums cannot serve or their schema says."""
    for option, value in given.items():
        if value:
            msg = (
                "moments are tested as they are: all batches and covariates of their "
                "schema are in the model."
            )
            raise typer.BadParameter(msg, param_hint=option)


def _levels(obs: pd.DataFrame, test: str | Pair) -> list[object] | None:
    """The levels of a tested column, the reference first; None: it holds numbers."""
    if not isinstance(test, str):
        return None
    from batchcorr.design.variables import Variable

    levels = Variable.fit(obs[test], test, quiet=True).levels
    return None if levels is None else list(levels)


def _write(table: pd.DataFrame, target: Path, layout: Layout | None) -> None:
    """Write a row a feature, with the separators of the table that was read."""
    from batchcorr.cli.dialects import Style
    from batchcorr.cli.table_writing import write_table
    from batchcorr.cli.tables import Table as Numbers

    style = layout.style if layout else Style("\t")
    style = style._replace(corner="feature")
    rows, columns = list(map(str, table.index)), list(map(str, table.columns))
    write_table(target, Numbers(rows, columns, table.to_numpy(float), style))


def _show(table: pd.DataFrame, alone: str, others: str) -> None:
    """Say how many features are found by each contrast, and in which direction."""
    shown = Table(box=None, padding=(0, 3, 0, 0), pad_edge=False)
    shown.add_column(Text(f"features at {FDR:.0%} false discoveries"))
    for header in ("in all", "up", "down"):
        shown.add_column(header, justify="right")
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
    out.print(Padding(shown, (0, 2), expand=False))
