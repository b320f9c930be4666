"""`fit` a correction, on a file or on the moments of sites, and `apply` it to a file."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from batchcorr.cli import options
from batchcorr.cli.arguments import arguments
from batchcorr.cli.console import reporting, say
from batchcorr.cli.correct import check_options, columns_used, tell
from batchcorr.cli.files import SOURCES, check_kind, check_target, writing
from batchcorr.cli.missing import Missing, drop_missing
from batchcorr.cli.normalizing import Normalization, normalize, normalize_as_fitted
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

    from anndata import AnnData

    from batchcorr.estimators.base import Corrector

__all__ = ["apply", "fit"]

MOMENTS = ".npz"

Correction = Annotated[
    Path, typer.Argument(metavar="CORRECTION", help="The correction: .npz.")
]


def fit(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="IN… CORRECTION",
            help=f"To learn from: one {options.SOURCES}, or the moments of all sites "
            "(.npz). Then the correction to write (.npz), if not with -o.",
        ),
    ],
    *,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="CORRECTION", help="To write: .npz."),
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
    missing: Missing = "error",
    subject: options.Subject = None,
    layer: options.Layer = None,
    log_normalize: options.LogNormalize = None,
    quantile_normalize: options.QuantileNormalize = False,
    settings: options.Settings = None,
    force: options.Force = False,
) -> None:
    """Learn a correction and freeze it.

    \b
    batchcorr fit in.h5ad correction.npz --batch day --method standardize
    batchcorr fit genes.csv correction.npz --samples sheet.csv --batch day
    batchcorr fit site*.npz -o correction.npz        # see: batchcorr moments
    """  # noqa: D301 - \b keeps typer from joining lines
    tables = TableOptions.of_options(samples, sample_column, sep, decimal)
    normalization = Normalization.of_options(
        log_normalize, method, quantile=quantile_normalize
    )
    sources, target = (paths, output) if output else (paths[:-1], paths[-1])
    _check_sources(sources, target)
    of_sites = all(_is_moments(path) for path in sources)
    labels: dict[str, object] = {
        "--samples": samples,
        "--sample-column": sample_column,
        "--sep": sep,
        "--decimal": decimal,
        "--batch": batch,
        "--covariate": covariates,
        "--formula": formula,
        "--nuisance": nuisances,
        "--subject": subject,
        "--missing": None if missing == "error" else missing,
        "--layer": layer,
        "--log-normalize": log_normalize,
        "--quantile-normalize": quantile_normalize,
    }
    if of_sites:
        _check_options_of_sites(labels, must_name=force and output is None)
    else:
        check_data(sources[0], tables)
        check_one_matrix(sources[0], "--layer", layer)
    with reporting():
        check_target(target, [*sources, samples], force=force)
        given = arguments(
            method,
            batch=["batch"] if of_sites else batch,  # the schema of the sites knows it
            covariates=covariates,
            formula=formula,
            nuisances=nuisances,
            reference=reference,
            settings=settings,
        )
        if subject is not None:
            given["subject"] = subject
        if of_sites:
            del given["batch_key"]
            fitted, learned = _fit_sites(sources, given)
        else:
            of_file = partial(open_data, sources[0], tables)
            fitted, learned = _fit_samples(
                of_file, layer, normalization, given, missing
            )
        with writing(target):
            fitted.save(target)
        text = f"Wrote {target}: {method}, learned from {learned}{_left(fitted)}"
        text += f"{columns_used(fitted.summary())}."
        say(text)


def _fit_samples(
    read: Callable[[], tuple[AnnData, Any]],
    layer: str | None,
    normalization: Normalization,
    given: dict[str, Any],
    missing: str,
) -> tuple[Corrector, str]:
    """Learn from the samples of one file, and say from how many."""
    import batchcorr as bc

    adata, _ = drop_missing(read()[0], given, missing)
    steps, layer = normalize(adata, normalization, layer)
    fitted = bc.fit(adata, layer=layer, **given)
    fitted.normalized_by_ = steps
    return fitted, f"{adata.n_obs:,} samples × {adata.n_vars:,} features"


def _fit_sites(sites: list[Path], given: dict[str, Any]) -> tuple[Corrector, str]:
    """Learn from the moments of sites, and say from how many samples."""
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
    """Refuse, as wrong usage, files that no correction can be learned from at once."""
    if not sources:
        msg = f"{target} is the only file: name the correction to write after it."
        raise typer.BadParameter(msg, param_hint="CORRECTION")
    check_kind(target, (MOMENTS,))
    for path in sources:
        check_kind(path, (*SOURCES, MOMENTS))
    files = [path for path in sources if not _is_moments(path)]
    if files and len(files) < len(sources):
        msg = (
            f"{files[0]} holds samples and {MOMENTS} files moments of sites, which do "
            "not mix: make its moments too, with batchcorr moments."
        )
        raise typer.BadParameter(msg, param_hint="IN")
    if len(files) > 1:
        msg = (
            f"{some(files)} are {len(files)} files of samples, and one is "
            "learned from: join them before, with anndata.concat in Python; or make "
            "moments of each, with batchcorr moments, and learn from these."
        )
        raise typer.BadParameter(msg, param_hint="IN")


def _check_options_of_sites(labels: dict[str, object], *, must_name: bool) -> None:
    """Refuse, as wrong usage, what the schema of the sites says, and a lost site."""
    for option, given in labels.items():
        if given:
            msg = "moments are learned from as they are: their schema holds the labels."
            raise typer.BadParameter(msg, param_hint=option)
    if must_name:
        msg = "with --force name the correction with -o: a site could be overwritten."
        raise typer.BadParameter(msg, param_hint="CORRECTION")


def _is_moments(path: Path) -> bool:
    return path.suffix.lower() == MOMENTS


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
    layer: options.Layer = None,
    key_added: options.KeyAdded = None,
    dense: options.Dense = None,
    compress: options.Compress = False,
    force: options.Force = False,
) -> None:
    """Correct a file with a frozen correction.

    Batch and covariates are read from the columns that it was learned from.
    What was normalized first is normalized here too, against the same samples.

    \b
    batchcorr apply correction.npz new.h5ad out.h5ad
    batchcorr apply correction.npz new.csv out.csv --samples sheet.csv
    """  # noqa: D301 - \b keeps typer from joining lines
    tables = TableOptions.of_options(samples, sample_column, sep, decimal)
    check_options(source, tables, target, layer, key_added, compress=compress)
    with reporting():
        check_target(target, [source, samples, correction], force=force)
        import batchcorr as bc

        learned = bc.load(correction)
        adata, layout = open_data(source, tables)
        adata, layer = normalize_as_fitted(adata, learned, layer, key_added)
        bc.pp.apply(
            adata,
            learned,
            batch_key=batch[0] if batch and len(batch) == 1 else batch or None,
            layer=layer,
            key_added=key_added,
            dense=dense,
        )
        save_data(adata, target, layout, layer=layer, compress=compress)
        tell(adata, target, key_added or layer)
