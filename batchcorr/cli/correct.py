"""`correct`: fit a correction to a file and write the corrected file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import typer

from batchcorr.cli import options
from batchcorr.cli.arguments import arguments, memory_bytes
from batchcorr.cli.console import say
from batchcorr.cli.files import DATA, TABLES, check_target, ending
from batchcorr.cli.missing import drop_missing
from batchcorr.cli.normalizing import Normalization, normalize
from batchcorr.cli.samples import Source, save
from batchcorr.cli.table_records import record_path
from batchcorr.errors import some

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData

    from batchcorr._anndata.step import Place
    from batchcorr.outofcore.source import Resources

__all__ = ["columns_used", "correct", "described"]

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
    missing: options.Missing = "error",
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
    """Remove batch effects from a file and write the corrected file.

    \b
    batchcorr correct in.h5ad out.h5ad --batch day --covariate cell_type
    batchcorr correct genes.csv out.csv --samples sheet.csv --batch day
    """  # noqa: D301 - \b keeps typer from joining lines
    normalization = Normalization.of_options(
        log_normalize, method, quantile=quantile_normalize
    )
    stream = {"--memory": memory, "--scheduler": scheduler}
    files = Source.of_options(
        source,
        samples,
        sample_column,
        sep,
        decimal,
        of_anndata={"--layer": layer} | stream,
    )
    check_target(
        target,
        DATA,
        [source, samples],
        force=force,
        compress=compress,
        of_anndata={"--key-added": key_added} | stream,
    )
    given = arguments(
        method,
        batch=batch,
        covariates=covariates,
        formula=formula,
        nuisances=nuisances,
        reference=reference,
        subject=subject,
        settings=settings,
    )
    if any(value is not None for value in stream.values()):
        _check_streams(normalization, missing)
        from batchcorr._anndata.step import Place
        from batchcorr.outofcore.source import Resources

        given |= {"missing": missing, "log_normalize": normalization.log is not None}
        resources = Resources(
            memory_bytes(DEFAULT_MEMORY if memory is None else memory), scheduler
        )
        place = Place(layer, key_added, dense)
        adata = _stream(source, target, resources, place, given, compress=compress)
        lines, remark = described(adata, target, key_added or layer)
    else:
        from batchcorr import pp

        opened, layout = files.open_data()
        adata = cast("AnnData", opened)
        adata, left_out = drop_missing(adata, given, missing)
        _, layer = normalize(adata, normalization, layer, key_added)
        pp.correct(adata, layer=layer, key_added=key_added, dense=dense, **given)
        lines, remark = described(adata, target, key_added or layer, left_out)
        save(adata, target, layout, layer=layer, compress=compress)
    say(*lines, remark=remark)


def _check_streams(normalization: Normalization, missing: str) -> None:
    """Refuse, as wrong usage, what is not done in blocks."""
    if normalization.quantile:
        msg = (
            "this needs the whole matrix in memory: leave out --memory and --scheduler."
        )
        raise typer.BadParameter(msg, param_hint="--quantile-normalize")
    if normalization.log not in {None, "total"}:
        msg = (
            "with --memory or --scheduler samples can only be scaled by their total: "
            "give --log-normalize without a method."
        )
        raise typer.BadParameter(msg, param_hint="--log-normalize")
    if missing == "drop":
        msg = (
            "with --memory or --scheduler samples cannot be dropped: use error or "
            "level."
        )
        raise typer.BadParameter(msg, param_hint="--missing")


def _stream(
    source: Path,
    target: Path,
    resources: Resources,
    place: Place,
    given: dict[str, Any],
    *,
    compress: bool,
) -> AnnData:
    """Correct from file to file; all that the new one holds but matrices."""
    from batchcorr.cli.working import working
    from batchcorr.cli.writing import writing
    from batchcorr.outofcore.correct import fit_file

    with working(f"Learning from {source}"):
        fitted = fit_file(source, resources=resources, place=place, **given)
    try:
        with writing(target) as part:
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


def described(
    adata: AnnData, target: Path, layer: str | None, left_out: int = 0
) -> tuple[list[str], str]:
    """What is in the file, and a remark, from the record that is in it too.

    The record is given the number of samples that were left out.
    """
    from batchcorr._anndata import records

    key = records.key_of(layer)
    record = records.read(adata, key) or {}
    if left_out:
        records.write(adata, key, record | {"samples_left_out": left_out})
    is_table = ending(target) in TABLES
    where = "X " if layer is None else f"layer {layer!r} "
    text = f"Wrote {target}: {adata.n_obs:,} samples × {adata.n_vars:,} features, "
    text += f"{'' if is_table else where}corrected by {record.get('method')}"
    if record.get("batch") and record.get("batches"):
        text += f" for {len(record['batches'])} batches"
    lines = [f"{text}{columns_used(record)}."]
    if record.get("features_unchanged"):
        text = f"{record['features_unchanged']:,} features could not be corrected, and "
        lines.append(f"{text}stay as they were.")
    if is_table:
        lines.append(
            f"How it was made is in {record_path(target)}: keep them together."
        )
    return lines, record.get("note", "")
