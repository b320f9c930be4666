"""`fit` a correction, on a file or on the moments of sites, and `apply` it to a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from batchcorr.cli import options
from batchcorr.cli.arguments import arguments, batch_key, only_options
from batchcorr.cli.console import say
from batchcorr.cli.correct import columns_used, described
from batchcorr.cli.files import DATA, SOURCES, check_target, kind_of
from batchcorr.cli.missing import drop_missing
from batchcorr.cli.normalizing import Normalization, normalize, normalize_as_fitted
from batchcorr.cli.samples import Source, save
from batchcorr.cli.writing import writing
from batchcorr.errors import some

if TYPE_CHECKING:
    from batchcorr.estimators.base import Corrector

__all__ = ["apply", "fit"]

MOMENTS = ".npz"

Correction = Annotated[
    Path, typer.Argument(metavar="CORRECTION", help="Correction to apply (.npz).")
]


def fit(
    ctx: typer.Context,
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="IN… CORRECTION",
            help=f"File to fit to: {options.SOURCES}; or the moments of all sites "
            "(.npz). Last the correction to write (.npz), unless given with -o.",
        ),
    ],
    *,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="CORRECTION", help=("Correction to write (.npz).")
        ),
    ] = None,
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
    log_normalize: options.LogNormalize = None,
    quantile_normalize: options.QuantileNormalize = False,
    settings: options.Settings = None,
    force: options.Force = False,
) -> None:
    """Fit a correction and save it, to apply it to other files.

    \b
    batchcorr fit in.h5ad correction.npz --batch day --method standardize
    batchcorr fit genes.csv correction.npz --samples sheet.csv --batch day
    batchcorr fit site*.npz -o correction.npz        # see: batchcorr moments
    """  # noqa: D301 - \b keeps typer from joining lines
    sources, target = (paths, output) if output else (paths[:-1], paths[-1])
    _check_sources(sources, target)
    normalization = Normalization.of_options(
        log_normalize, method, quantile=quantile_normalize
    )
    of_sites = sources[0].suffix.lower() == MOMENTS
    if of_sites:
        only_options(
            ctx,
            {"paths", "output", "method", "reference", "settings", "force"},
            "moments are used as they are: their schema defines batch and covariates.",
        )
        if force and output is None:
            msg = (
                "with --force give the correction with -o: otherwise moments of a site "
                "could be overwritten."
            )
            raise typer.BadParameter(msg, param_hint="CORRECTION")
    check_target(target, (MOMENTS,), [*sources, samples], force=force)
    given = arguments(
        method,
        batch=["batch"] if of_sites else batch,  # the schema of the sites knows it
        covariates=covariates,
        formula=formula,
        nuisances=nuisances,
        reference=reference,
        subject=subject,
        settings=settings,
    )
    if of_sites:
        del given["batch_key"]
        fitted, learned = _fit_sites(sources, given)
    else:
        files = Source.of_options(
            sources[0],
            samples,
            sample_column,
            sep,
            decimal,
            of_anndata={"--layer": layer},
        )
        import batchcorr as bc

        adata, _ = drop_missing(files.open()[0], given, missing)
        steps, layer = normalize(adata, normalization, layer)
        fitted = bc.fit(adata, layer=layer, **given)
        fitted.normalized_by_ = steps
        learned = f"{adata.n_obs:,} samples × {adata.n_vars:,} features"
    with writing(target) as part:
        fitted.save(part)
    text = f"Wrote {target}: {method}, fitted to {learned}{_left(fitted)}"
    say(f"{text}{columns_used(fitted.summary())}.")


def _fit_sites(sites: list[Path], given: dict[str, Any]) -> tuple[Corrector, str]:
    """Fit to the moments of sites, and say to how many samples."""
    import batchcorr as bc

    fitted = bc.fit_moments(sites, **given)
    rows = int(fitted.moments_.rows.sum()) if fitted.moments_ else 0
    text = f"the sums of {len(sites)} {'site' if len(sites) == 1 else 'sites'} over "
    return fitted, f"{text}{rows:,} samples × {fitted.n_features_in_:,} features"


def _left(fitted: Corrector) -> str:
    """Say how many features cannot be corrected, if any."""
    aim = getattr(fitted, "aim_", None)
    left = 0 if aim is None else int((~aim.adjustable).sum())
    return f", {left:,} of which cannot be corrected" if left else ""


def _check_sources(sources: list[Path], target: Path) -> None:
    """Refuse, as wrong usage, files that no correction can be fitted to at once."""
    if not sources:
        msg = (
            f"{target} is the only file given: name the correction to write after the "
            "file to read."
        )
        raise typer.BadParameter(msg, param_hint="CORRECTION")
    kinds = [kind_of(path, (*SOURCES, MOMENTS)) for path in sources]
    files = [path for path, kind in zip(sources, kinds, strict=True) if kind != MOMENTS]
    if files and len(files) < len(sources):
        msg = (
            f"{files[0]} contains samples, but {MOMENTS} files contain moments of "
            "sites, which cannot be combined: compute its moments too, with batchcorr "
            "moments."
        )
        raise typer.BadParameter(msg, param_hint="IN")
    if len(files) > 1:
        msg = (
            f"{some(files)} are {len(files)} files of samples, but a correction is "
            "fitted to only one: join them first with anndata.concat in Python, or "
            "compute moments of each with batchcorr moments and fit to these."
        )
        raise typer.BadParameter(msg, param_hint="IN")


def apply(
    correction: Correction,
    source: options.Source,
    target: options.Target,
    *,
    samples: options.Samples = None,
    sample_column: options.SampleColumn = None,
    sep: options.Separator = None,
    decimal: options.Decimal = None,
    batch: options.Batch = None,
    add_batches: Annotated[
        bool,
        typer.Option(
            "--add-batches",
            metavar="",
            help="Estimate the effects of batches that are new in IN; everything else "
            "stays frozen.",
        ),
    ] = False,
    layer: options.Layer = None,
    key_added: options.KeyAdded = None,
    dense: options.Dense = None,
    compress: options.Compress = False,
    force: options.Force = False,
) -> None:
    """Correct a file with a saved correction.

    Batch and covariates are read from the same columns as in batchcorr fit. If values
    were normalized first there, they are here too, with the same reference.

    \b
    batchcorr apply correction.npz new.h5ad out.h5ad
    batchcorr apply correction.npz new.csv out.csv --samples sheet.csv --add-batches
    """  # noqa: D301 - \b keeps typer from joining lines
    files = Source.of_options(
        source, samples, sample_column, sep, decimal, of_anndata={"--layer": layer}
    )
    check_target(
        target,
        DATA,
        [source, samples, correction],
        force=force,
        compress=compress,
        of_anndata={"--key-added": key_added},
    )
    import batchcorr as bc
    from batchcorr._anndata.fit import with_new_batches

    learned, key = bc.load(correction), batch_key(batch)
    adata, layout = files.open()
    adata, layer = normalize_as_fitted(adata, learned, layer, key_added)
    if add_batches:
        learned, new = with_new_batches(adata, learned, key, layer)
        say(f"Added to the correction: {some(map(repr, new)) or 'no new batch'}.")
    bc.pp.apply(
        adata, learned, batch_key=key, layer=layer, key_added=key_added, dense=dense
    )
    save(adata, target, layout, layer=layer, compress=compress)
    lines, remark = described(adata, target, key_added or layer)
    say(*lines, remark=remark)
