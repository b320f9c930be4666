"""`report`: one page of design, correction, result and test."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from batchcorr.cli import options
from batchcorr.cli.arguments import kept
from batchcorr.cli.console import say
from batchcorr.cli.contrasts import read_test
from batchcorr.cli.files import ANNDATA, SOURCES, check_target, ending
from batchcorr.cli.missing import treat_missing
from batchcorr.cli.normalizing import Normalization
from batchcorr.cli.samples import Source
from batchcorr.cli.words import as_typed
from batchcorr.cli.working import working
from batchcorr.cli.writing import writing
from batchcorr.errors import InputError, some

if TYPE_CHECKING:
    from anndata import AnnData

__all__ = ["report"]


def report(
    source: options.Source,
    target: Annotated[
        Path, typer.Argument(metavar="OUT", help="Report to write (.html).")
    ],
    *,
    batch: Annotated[
        str | None,
        typer.Option(
            metavar="KEY",
            help="Column of obs (or SHEET) with the batch. Default: that of the "
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
            help="Column of obs (or SHEET) to test on uncorrected values, or two of its "
            "levels.",
        ),
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(
            metavar="KEY",
            help=(
                "Column of obs (or SHEET) with groups that should stay separate, such "
                "as cell types."
            ),
        ),
    ] = None,
    layer: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Layer with the uncorrected values, if no record names it.",
        ),
    ] = None,
    corrected: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Layer or embedding with the corrected values, X, or a file with them. "
            "Default: the one with a record of a correction.",
        ),
    ] = None,
    title: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT", help=("Title of the report. Default: the name of IN.")
        ),
    ] = None,
    min_count: options.MinCount = None,
    missing: options.Missing = "error",
    log_normalize: options.LogNormalize = None,
    quantile_normalize: options.QuantileNormalize = False,
    samples: options.Samples = None,
    sample_column: options.SampleColumn = None,
    sep: options.Separator = None,
    decimal: options.Decimal = None,
    force: options.Force = False,
) -> None:
    """Write an HTML report of design, correction, evaluation and test.

    IN is a file written by batchcorr correct (with --key-added, or with its input as
    IN and the file itself as --corrected), or a file that is not corrected yet. The
    report is one file that loads nothing from the network.

    \b
    batchcorr report corrected.h5ad report.html --test group
    batchcorr report genes.csv report.html --samples sheet.csv --batch day
    """  # noqa: D301 - \b keeps typer from joining lines
    of_tables = samples, sample_column, sep, decimal
    normalization = Normalization.of_options(log_normalize, quantile=quantile_normalize)
    file = _file_of(corrected, source)
    of_anndata = {"--layer": layer, "--corrected": None if file else corrected}
    files = Source.of_options(source, *of_tables, of_anndata=of_anndata)
    sources = [source, file, samples]
    check_target(target, (".html",), sources, force=force)
    after = Source.of_options(file, *of_tables) if file else None
    given = kept(covariates, formula)
    adata, _ = files.open()
    other = after.open()[0] if after else None
    named = {"batch_key": batch, "test": (tested or "").partition(":")[0], **given}
    if missing == "error":
        missing, used = _missing_in(adata if other is None else other)
        named = used | {name: value for name, value in named.items() if value}
    adata = treat_missing(adata, named, missing)
    if after is not None:
        corrected = _beside(adata, other, after.path)
    from batchcorr._report.report import page_of

    with working("Reporting"):
        page = page_of(
            adata,
            batch,
            covariates=given.get("covariates"),
            test=None if tested is None else read_test(tested, adata.obs),
            labels=labels,
            layer=layer,
            corrected=corrected,
            title=title or source.name,
            min_count=min_count,
            normalizations=normalization.steps(),
            words=partial(as_typed, files=files.typed("results.csv", missing)),
        )
    with writing(target) as part:
        part.write_bytes(page.encode("utf-8"))
    say(f"Wrote {target}: open it in a browser. It needs no network.")


def _missing_in(
    adata: AnnData,
) -> tuple[Literal["error", "level", "drop"], dict[str, Any]]:
    """What a correction made of samples without labels, and the columns it looked at."""
    from batchcorr._anndata import records

    for key in adata.uns.get(records.RECORDS, {}):
        step = records.read(adata, key) or {}
        left_out, level = step.get("samples_left_out"), step.get("missing")
        if left_out or level:
            columns = {name: step.get(name) for name in ("covariates", "nuisance")}
            columns["batch_key"] = step.get("batch")
            return "drop" if left_out else "level", columns
    return "error", {}


def _file_of(corrected: str | None, source: Path) -> Path | None:
    """The file that --corrected names: one that is there, or any, as a table has no layer."""
    path = Path(corrected or "")
    is_file = path.exists() or ending(source) not in ANNDATA
    return path if corrected and ending(path) in SOURCES and is_file else None


def _beside(adata: AnnData, other: AnnData, path: Path) -> str:
    """Put the corrected values of another file beside those before; the layer's name."""
    for what, here, there in (
        ("samples", adata.obs_names, other.obs_names),
        ("features", adata.var_names, other.var_names),
    ):
        lacking = here.difference(there)
        if len(lacking) or len(here) != len(there):
            msg = (
                f"{path} has {len(there):,} {what} and IN {len(here):,}, of which "
                f"{len(lacking):,} are not in {path.name} "
                f"({some(map(repr, lacking))}): --corrected needs a file with the same "
                "samples and features."
            )
            raise InputError(msg)
    name = path.name
    adata.layers[name] = other[adata.obs_names, adata.var_names].X
    record = other.uns.get("batchcorr", {}).get("X")
    if record is not None:
        adata.uns["batchcorr"] = {**adata.uns.get("batchcorr", {}), name: record}
    return name
