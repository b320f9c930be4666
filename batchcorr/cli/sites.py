"""Sites that cannot share rows: `schema` for all, `moments` at each; then `fit`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from batchcorr.cli import options
from batchcorr.cli.console import say
from batchcorr.cli.files import check_target, kind_of
from batchcorr.cli.samples import Source
from batchcorr.cli.writing import writing
from batchcorr.errors import some

if TYPE_CHECKING:
    from batchcorr.sites.schema import Schema

__all__ = ["moments", "schema"]

SchemaFile = Annotated[
    Path,
    typer.Option("--schema", metavar="FILE", help="Schema of all sites (.json)."),
]


SchemaOut = Annotated[
    Path,
    typer.Option("--output", "-o", metavar="FILE", help=("Schema to write (.json).")),
]
MomentsOut = Annotated[
    Path,
    typer.Option("--output", "-o", metavar="FILE", help=("Moments to write (.npz).")),
]


def schema(
    source: options.Source,
    *,
    output: SchemaOut,
    samples: options.Samples = None,
    sample_column: options.SampleColumn = None,
    sep: options.Separator = None,
    decimal: options.Decimal = None,
    batch: options.OneBatch,
    units: Annotated[
        str,
        typer.Option(metavar="TEXT", help=('Units of the values, such as "log2 CPM".')),
    ],
    covariates: options.Covariates = None,
    levels: Annotated[
        list[str] | None,
        typer.Option(
            "--level",
            metavar="KEY=LABEL",
            help="Batch, or level of a covariate, that other sites have and IN does "
            "not. Repeatable.",
        ),
    ] = None,
    force: options.Force = False,
) -> None:
    """Make the schema for sites that cannot share their samples.

    \b
    batchcorr schema in.h5ad -o schema.json --batch run --covariate sex \\
        --units "log2 CPM" --level run=oslo
    """  # noqa: D301 - \b keeps typer from joining lines
    files = Source.of_options(source, samples, sample_column, sep, decimal)
    check_target(output, (".json",), [source, samples], force=force)
    import batchcorr as bc

    adata, _ = files.open()
    made = bc.make_schema(adata, batch, units=units, covariates=covariates)
    made = _with_levels(made, levels or [])
    with writing(output) as part:
        made.save(part)
    text = f"Wrote {output}: {len(made.features):,} features in {made.units}; "
    text += f"batches {some(made.batches)}"
    if made.covariates:
        kept = (
            f"{name} ({given if isinstance(given, str) else ', '.join(map(str, given))})"
            for name, given in made.covariates.items()
        )
        text += f"; keeping {some(kept)}"
    say(f"{text}.", "All sites need this file, and the labels of all must be in it.")


def moments(
    source: options.Source,
    *,
    schema: SchemaFile,
    output: MomentsOut,
    samples: options.Samples = None,
    sample_column: options.SampleColumn = None,
    sep: options.Separator = None,
    decimal: options.Decimal = None,
    batch: Annotated[
        str | None,
        typer.Option(
            metavar="KEY",
            help=(
                "Column of obs (or SHEET) with the batch. Default: that of the schema."
            ),
        ),
    ] = None,
    layer: options.LayerRead = None,
    exact: Annotated[
        bool,
        typer.Option(
            "--exact",
            metavar="",
            help="Do not round sums. Only for sites you trust: values can be computed "
            "from exact sums.",
        ),
    ] = False,
    force: options.Force = False,
) -> None:
    """Compute the moments of one site, rounded sums that it can share.

    No sample leaves the site. It is an error if fewer than 5 samples share a batch and
    all levels. Features that could disclose samples are left out, with a warning.

    \b
    batchcorr moments in.h5ad --schema schema.json -o oslo.npz
    batchcorr moments in.csv --samples sheet.csv --schema schema.json -o oslo.npz
    """  # noqa: D301 - \b keeps typer from joining lines
    files = Source.of_options(
        source, samples, sample_column, sep, decimal, of_anndata={"--layer": layer}
    )
    kind_of(schema, (".json",))
    check_target(output, (".npz",), [source, samples, schema], force=force)
    import batchcorr as bc

    known = bc.Schema.load(schema)
    adata, _ = files.open()
    site = bc.moments(adata, known, batch_key=batch, layer=layer, exact=exact)
    with writing(output) as part:
        site.save(part)
    batches = ", ".join(f"{level} ({n:,})" for level, n in site.samples.items())
    text = f"Wrote {output}: sums over {site.n_rows:,} samples × "
    text += f"{len(known.features):,} features, of batches {batches}."
    say(text)


def _with_levels(schema: Schema, given: list[str]) -> Schema:
    """Add batches and levels of other sites after those that were found."""
    from batchcorr.sites.schema import NUMERIC, Schema

    batches, covariates = list(schema.batches), dict(schema.covariates)
    for text in given:
        key, equals, label = (part.strip() for part in text.partition("="))
        if not equals or not label or key not in {schema.batch_key, *covariates}:
            msg = (
                f"{text!r} must be KEY=LABEL, where KEY is the column of the batch or "
                "of a covariate."
            )
            raise typer.BadParameter(msg, param_hint="--level")
        known = batches if key == schema.batch_key else covariates[key]
        if known == NUMERIC:
            msg = f"{key!r} contains numbers, which have no levels."
            raise typer.BadParameter(msg, param_hint="--level")
        level = _like(label, list(known))
        if level in known:
            continue
        if key == schema.batch_key:
            batches.append(level)
        else:
            covariates[key] = (*known, level)
    return Schema(
        schema.features,
        batches,
        units=schema.units,
        covariates=covariates,
        batch_key=schema.batch_key,
    )


def _like(label: str, known: list[object]) -> str | int:
    """Read a label as a whole number where all others are."""
    whole = all(type(level) is int for level in known)
    return int(label) if whole and label.lstrip("-").isdecimal() else label
