"""`correct`: learn from a file and write it corrected."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import typer

from batchcorr._files.atomic import replacing, replacing_folder
from batchcorr.cli import options
from batchcorr.cli.arguments import arguments, memory_bytes
from batchcorr.cli.console import reporting, say, working
from batchcorr.cli.files import DATA, check_kind, check_target, is_table, writing
from batchcorr.cli.working import interruptible
from batchcorr.cli.missing import Missing, drop_missing, note_left_out
from batchcorr.cli.normalizing import Normalization, normalize
from batchcorr.cli.samples import (
    TableOptions,
    check_data,
    check_one_matrix,
    open_data,
    save_data,
)
from batchcorr.errors import some

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from anndata import AnnData

    from batchcorr.outofcore.correct import FileCorrection

__all__ = ["check_options", "correct", "tell"]

DEFAULT_MEMORY = "2GiB"


def correct(
    source: options.Source,
    target: options.Target,
    *,
    samples: options.Samples = None,
    sample_column: options.SampleColumn = None,
    sep: options.Separator = None,
    decimal: options.Decimal = None,
    batch: options.Batch = None,
    method: options.Method = "combat",
    covariates: options.Covariates = None,
    formula: options.Formula = None,
    nuisances: options.Nuisances = None,
    reference: options.Reference = None,
    missing: Missing = "error",
    subject: options.Subject = None,
    layer: options.Layer = None,
    key_added: options.KeyAdded = None,
    settings: options.Settings = None,
    log_normalize: options.LogNormalize = None,
    quantile_normalize: options.QuantileNormalize = False,
    dense: options.Dense = None,
    memory: options.Memory = None,
    scheduler: options.Scheduler = None,
    compress: options.Compress = False,
    force: options.Force = False,
) -> None:
    """Remove batch effects from a file and write another.

    \b
    batchcorr correct in.h5ad out.h5ad --batch day --covariate cell_type
    batchcorr correct genes.csv out.csv --samples sheet.csv --batch day
    """  # noqa: D301 - \b keeps typer from joining lines
    tables = TableOptions.of_options(samples, sample_column, sep, decimal)
    check_options(source, tables, target, layer, key_added, compress=compress)
    normalization = Normalization.of_options(
        log_normalize, method, quantile=quantile_normalize
    )
    stream = memory is not None or scheduler is not None
    if stream and quantile_normalize:
        msg = "this needs the whole matrix in memory: leave out --memory, --scheduler."
        raise typer.BadParameter(msg, param_hint="--quantile-normalize")
    if stream and log_normalize not in {None, "total"}:
        msg = (
            "in blocks, samples are scaled by their total: give --log-normalize alone."
        )
        raise typer.BadParameter(msg, param_hint="--log-normalize")
    for path in (source, target):
        check_one_matrix(path, "--memory", memory)
        check_one_matrix(path, "--scheduler", scheduler)
    allowed = memory_bytes(DEFAULT_MEMORY if memory is None else memory)
    with reporting():
        check_target(target, [source, samples], force=force)
        given = arguments(
            method,
            batch=batch,
            covariates=covariates,
            formula=formula,
            nuisances=nuisances,
            reference=reference,
            settings=settings,
        )
        if subject is not None:
            given["subject"] = subject
        if stream:
            if missing == "drop":
                msg = "samples of files are not left out in blocks: error or level."
                raise typer.BadParameter(msg, param_hint="--missing")
            given["missing"] = missing
            from batchcorr._anndata.step import Place
            from batchcorr.outofcore.correct import fit_file
            from batchcorr.outofcore.source import Resources

            fit = partial(
                fit_file,
                source,
                resources=Resources(allowed, scheduler),
                place=Place(layer, key_added, dense),
                log_normalize=log_normalize is not None,
                **given,
            )
            adata = _stream(fit, source, target, compress=compress)
            tell(adata, target, key_added or layer)
            return
        from batchcorr import pp

        adata, layout = open_data(source, tables)
        adata, left_out = drop_missing(adata, given, missing)
        _, layer = normalize(adata, normalization, layer, key_added)
        pp.correct(adata, layer=layer, key_added=key_added, dense=dense, **given)
        note_left_out(adata, key_added or layer or "X", left_out)
        save_data(adata, target, layout, layer=layer, compress=compress)
        tell(adata, target, key_added or layer)


def check_options(
    source: Path,
    tables: TableOptions,
    target: Path,
    layer: str | None,
    key_added: str | None,
    *,
    compress: bool,
) -> None:
    """Refuse, as wrong usage, options that do not go with these kinds of files."""
    check_data(source, tables)
    check_kind(target, DATA)
    check_one_matrix(source, "--layer", layer)
    check_one_matrix(target, "--key-added", key_added)
    if compress and is_table(target):
        msg = f"a table is packed if its name ends in .gz, such as {target.name}.gz."
        raise typer.BadParameter(msg, param_hint="--compress")


def _stream(
    fit: Callable[[], FileCorrection], source: Path, target: Path, *, compress: bool
) -> AnnData:
    """Correct from file to file; all that the new one holds but matrices."""
    with working(f"Learning from {source}"), interruptible():
        fitted = fit()
    replace = replacing_folder if target.suffix.lower() == ".zarr" else replacing
    try:
        with (
            working(f"Writing {target}"),
            writing(target),
            replace(target) as part,
            interruptible(),
        ):
            fitted.write(part, compress=compress)
    finally:
        fitted.close()
    return fitted.adata


def columns_used(summary: dict[str, Any]) -> str:
    """Say what was kept and removed, and what each column was read as."""
    said = summary.get("read_as", {})
    kinds = {
        name: "numeric" if levels == "numeric" else f"category: {some(levels)}"
        for name, levels in said.items()
    }
    text = ""
    named: set[str] = set()
    for verb, key in (("keeping", "kept"), ("removing", "nuisance")):
        names = summary.get(key) or []
        named.update(names)
        given = [f"{name} ({kinds[name]})" if name in kinds else name for name in names]
        text += f", {verb} {some(given, 20)}" if names else ""
    others = [f"{name} {kind}" for name, kind in kinds.items() if name not in named]
    if others:  # columns that only terms of a formula name
        text += f" (of {some(others, 20)})"
    return text


def tell(adata: AnnData, target: Path, layer: str | None) -> None:
    """Say what is in the file, from the record that is in it too."""
    from batchcorr._anndata import records

    record = records.read(adata, records.key_of(layer)) or {}
    where = "X" if layer is None else f"layer {layer!r}"
    text = f"Wrote {target}: {adata.n_obs:,} samples × {adata.n_vars:,} features, "
    text += f"{where} corrected by {record.get('method')}"
    if record.get("batches"):
        text += f" for {len(record['batches'])} batches"
    say(f"{text}{columns_used(record)}.")
    if record.get("features_unchanged"):
        text = f"{record['features_unchanged']:,} features could not be corrected, and "
        say(f"{text}stay as they were.")
    if record.get("note"):
        say(record["note"], style="dim")
