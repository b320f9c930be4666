"""`correct` a file; or `fit` a correction on one file and `apply` it to another."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from batchcorr._files import replacing, replacing_folder
from batchcorr.cli import options
from batchcorr.cli.console import out, reporting, working
from batchcorr.cli.files import check_kind, check_target, read, write, writing
from batchcorr.cli.interrupt import interruptible

if TYPE_CHECKING:
    from anndata import AnnData

__all__ = ["apply", "correct", "fit"]

DEFAULT_MEMORY = "2GiB"

Correction = Annotated[
    Path, typer.Argument(metavar="CORRECTION", help="The correction: .npz.")
]


def correct(
    source: options.Source,
    target: options.Target,
    *,
    batch: options.Batch = None,
    method: options.Method = "combat",
    covariates: options.Covariates = None,
    formula: options.Formula = None,
    nuisances: options.Nuisances = None,
    reference: options.Reference = None,
    layer: options.Layer = None,
    key_added: options.KeyAdded = None,
    settings: options.Settings = None,
    log_normalize: options.LogNormalize = False,
    dense: options.Dense = None,
    memory: options.Memory = None,
    scheduler: options.Scheduler = None,
    compress: options.Compress = False,
    force: options.Force = False,
) -> None:
    """Remove batch effects from a file and write another.

    Example: batchcorr correct in.h5ad out.h5ad --batch day --covariate cell_type
    """
    check_kind(source)
    check_kind(target)
    stream = memory is not None or scheduler is not None
    allowed = options.memory_bytes(DEFAULT_MEMORY if memory is None else memory)
    with reporting():
        check_target(target, [source], force=force)
        given = options.arguments(
            method,
            batch=batch,
            covariates=covariates,
            formula=formula,
            nuisances=nuisances,
            reference=reference,
            settings=settings,
        )
        if stream:
            given |= {"layer": layer, "key_added": key_added, "dense": dense}
            given |= {"memory": allowed, "scheduler": scheduler}
            given["log_normalize"] = log_normalize
            adata = _stream(source, target, given, compress=compress)
            _tell(adata, target, key_added or layer)
            return
        from batchcorr import pp

        adata = read(source)
        if log_normalize:
            pp.log_normalize(adata, layer=layer, key_added=key_added)
            layer = key_added or layer
        pp.correct(adata, layer=layer, key_added=key_added, dense=dense, **given)
        write(adata, target, compress=compress)
        _tell(adata, target, key_added or layer)


def _stream(
    source: Path, target: Path, given: dict[str, Any], *, compress: bool
) -> AnnData:
    """Correct from file to file, and return what is in the new one but matrices."""
    from batchcorr._stream import learn

    with working(f"Learning from {source}"), interruptible():
        learned = learn(source, **given)
    replace = replacing_folder if target.suffix.lower() == ".zarr" else replacing
    try:
        with (
            working(f"Writing {target}"),
            writing(target),
            replace(target) as part,
            interruptible(),
        ):
            learned.write(part, compress=compress)
    finally:
        learned.close()
    return learned.adata


def fit(
    source: options.Source,
    correction: Correction,
    *,
    batch: options.Batch = None,
    method: options.Method = "combat",
    covariates: options.Covariates = None,
    formula: options.Formula = None,
    nuisances: options.Nuisances = None,
    reference: options.Reference = None,
    layer: options.Layer = None,
    settings: options.Settings = None,
    force: options.Force = False,
) -> None:
    """Learn a correction from a file and freeze it.

    Example: batchcorr fit in.h5ad correction.npz --batch day --method standardize
    """
    check_kind(source)
    check_kind(correction, (".npz",))
    with reporting():
        check_target(correction, [source], force=force)
        given = options.arguments(
            method,
            batch=batch,
            covariates=covariates,
            formula=formula,
            nuisances=nuisances,
            reference=reference,
            settings=settings,
        )
        import batchcorr as bc

        adata = read(source)
        fitted = bc.fit(adata, layer=layer, **given)
        with writing(correction):
            fitted.save(correction)
        text = f"Wrote {correction}: {method}, learned from {adata.n_obs:,} samples × "
        text += f"{adata.n_vars:,} features."
        out.print(Text(text), soft_wrap=True)


def apply(
    correction: Correction,
    source: options.Source,
    target: options.Target,
    *,
    batch: options.Batch = None,
    layer: options.Layer = None,
    key_added: options.KeyAdded = None,
    dense: options.Dense = None,
    compress: options.Compress = False,
    force: options.Force = False,
) -> None:
    """Correct a file with a frozen correction.

    Batch and covariates are read from the columns of obs that the correction was
    learned from. Example: batchcorr apply correction.npz new.h5ad out.h5ad
    """
    check_kind(source)
    check_kind(target)
    with reporting():
        check_target(target, [source, correction], force=force)
        import batchcorr as bc

        learned = bc.load(correction)
        adata = read(source)
        bc.pp.apply(
            adata,
            learned,
            batch_key=batch[0] if batch and len(batch) == 1 else batch or None,
            layer=layer,
            key_added=key_added,
            dense=dense,
        )
        write(adata, target, compress=compress)
        _tell(adata, target, key_added or layer)


def _tell(adata: AnnData, target: Path, layer: str | None) -> None:
    """Say what is in the file, from the record that is in it too."""
    from batchcorr._adata import read_record

    record = read_record(adata, layer) or {}
    where = "X" if layer is None else f"layer {layer!r}"
    text = f"Wrote {target}: {adata.n_obs:,} samples × {adata.n_vars:,} features, "
    text += f"{where} corrected by {record.get('method')}"
    if record.get("batches"):
        text += f" for {len(record['batches'])} batches"
    if record.get("kept"):
        text += f", keeping {', '.join(record['kept'])}"
    out.print(Text(f"{text}."), soft_wrap=True)
    if record.get("features_unchanged"):
        text = f"{record['features_unchanged']:,} features could not be corrected, and "
        out.print(f"{text}stay as they were.", soft_wrap=True)
    if record.get("note"):
        out.print(Text(record["note"], style="dim"), soft_wrap=True)
