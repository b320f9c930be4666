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
from batchcorr.cli.files import TABLES, check_kind, check_target
from batchcorr.cli.normalizing import Normalization, normalize
from batchcorr.cli.samples import (
    Layout,
    TableOptions,
    check_data,
    check_one_matrix,
    open_data,
)
from batchcorr.errors import InputError, MissingKeyError, did_you_mean, some

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["differential"]

FDR = 0.05

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


def differential(
    source: options.Source,
    target: Annotated[
        Path,
        typer.Argument(
            metavar="OUT", help="Table to write: .csv, .tsv, .txt; also .gz."
        ),
    ],
    *,
    batch: Annotated[
        list[str],
        typer.Option(
            metavar="KEY",
            help="Column of obs (or SHEET) with the batch. Repeat for several.",
        ),
    ],
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
    layer: options.LayerRead = None,
    log_normalize: options.LogNormalize = None,
    samples: options.Samples = None,
    sample_column: options.SampleColumn = None,
    sep: options.Separator = None,
    decimal: options.Decimal = None,
    force: options.Force = False,
) -> None:
    """Test uncorrected values for differences, batch in the model.

    A table of moderated t tests, a row a feature: what testing corrected values gets
    wrong, in one step.

    \b
    batchcorr test in.h5ad results.csv --batch day --test group:treated-control
    batchcorr test counts.txt results.csv --samples sheet.csv --batch day \\
        --test group --log-normalize --trend
    """  # noqa: D301 - \b keeps typer from joining lines
    tables = TableOptions.of_options(samples, sample_column, sep, decimal)
    check_data(source, tables)
    check_one_matrix(source, "--layer", layer)
    check_kind(target, tuple(TABLES))
    normalization = Normalization.of_options(log_normalize, quantile=False)
    given = kept(covariates, formula)
    with reporting():
        check_target(target, [source, samples], force=force)
        adata, layout = open_data(source, tables)
        contrast = _contrast(tested, adata.obs)
        _, layer = normalize(adata, normalization, layer)
        import batchcorr as bc

        with working("Testing"):
            table = bc.tl.differential(
                adata,
                batch[0] if len(batch) == 1 else batch,
                contrast,
                nuisance=nuisances,
                layer=layer,
                trend=trend,
                robust=robust,
                equal_variances=not unequal_variances,
                **given,
            )
        _write(table, target, layout)
        text = f"Wrote {target}: {adata.n_vars:,} features tested for {tested}, on "
        say(f"{text}{adata.n_obs:,} samples, {some(batch)} in the model.")
        _show(table, contrast, adata.obs)


def _contrast(text: str, obs: pd.DataFrame) -> str | tuple[str, str, str]:
    """A column, or a column with the two levels that are compared.

    Names may hold a colon, and levels a dash: what the samples have decides.

    Raises
    ------
    MissingKeyError
        If there is no such column, or it has no such levels.
    InputError
        If the text can be read in two ways.
    """
    if text in obs:
        return text
    columns = [name for name in map(str, obs) if text.startswith(f"{name}:")]
    if not columns:
        name = text.partition(":")[0]
        msg = f"{name!r} is not a column of obs (or SHEET). {did_you_mean(name, obs)}"
        raise MissingKeyError(msg)
    column = max(columns, key=len)
    pair = text.removeprefix(f"{column}:")
    levels = sorted({str(level) for level in obs[column].dropna()})
    cuts = [k for k, letter in enumerate(pair) if letter == "-"]
    ways = [(pair[:k].strip(), pair[k + 1 :].strip()) for k in cuts]
    known = [way for way in ways if set(way) <= set(levels)]
    if len(known) > 1:
        msg = f"--test {text!r} can be read in two ways: {some(map(' and '.join, known))}."
        raise InputError(msg)
    if not known or known[0][0] == known[0][1]:
        msg = (
            f"--test {text!r} must be {column}:A-B, with two levels of {column!r}: "
            f"{some(map(repr, levels))}."
        )
        raise MissingKeyError(msg)
    return (column, *known[0])


def _write(table: pd.DataFrame, target: Path, layout: Layout | None) -> None:
    """Write a row a feature, with the separators of the table that was read."""
    from batchcorr.cli.dialects import Style
    from batchcorr.cli.table_writing import write_table
    from batchcorr.cli.tables import Table as Numbers

    style = layout.style if layout else Style("\t")
    style = style._replace(corner="feature")
    rows, columns = list(map(str, table.index)), list(map(str, table.columns))
    write_table(target, Numbers(rows, columns, table.to_numpy(float), style))


def _show(table: pd.DataFrame, contrast: str | tuple[str, str, str], obs: Any) -> None:
    """Say how many features are found by each contrast, and in which direction."""
    shown = Table(box=None, padding=(0, 3, 0, 0), pad_edge=False)
    shown.add_column(Text(f"features at {FDR:.0%} false discoveries"))
    for header in ("in all", "up", "down"):
        shown.add_column(header, justify="right")
    alone, others = _contrasts(contrast, obs)
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


def _contrasts(contrast: str | tuple[str, str, str], obs: Any) -> tuple[str, str]:
    """What the test of one contrast or of all compares, and the others' reference."""
    if not isinstance(contrast, str):
        return f"{contrast[1]} against {contrast[2]}", ""
    from batchcorr.design.variables import Variable

    levels = Variable.fit(obs[contrast], contrast, quiet=True).levels
    if levels is None:
        return f"slope of {contrast}", ""
    against = f" against {levels[0]}"
    if len(levels) == 2:
        return f"{levels[1]}{against}", against
    return f"any difference in {contrast}", against
