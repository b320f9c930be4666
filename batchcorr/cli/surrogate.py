"""`surrogate`: surrogate variables for unrecorded batches."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

import typer
from rich.text import Text

from batchcorr._files.damage import reading_or
from batchcorr.cli import options
from batchcorr.cli.arguments import kept
from batchcorr.cli.console import new_table, print_table, say
from batchcorr.cli.files import DATA, TABLES, check_target, ending
from batchcorr.cli.normalizing import Normalization, normalize
from batchcorr.cli.samples import Source, save
from batchcorr.cli.working import working
from batchcorr.cli.writing import writing
from batchcorr.errors import some

if TYPE_CHECKING:
    from anndata import AnnData

__all__ = ["surrogate"]

KEY = "X_sv"
SHOWN = 6
"""Columns that variables are compared with, those they go with most."""

Way = Literal["sva", "two_step", "supervised", "ruvg", "ruvs", "ruvr"]


def surrogate(
    source: options.Source,
    target: Annotated[
        Path,
        typer.Argument(
            metavar="OUT",
            help="File to write: a sample sheet with the columns sv1, sv2, … (.csv, "
            ".tsv, .txt; also .gz), or an AnnData with obsm X_sv (.h5ad, .zarr).",
        ),
    ],
    *,
    covariates: Annotated[
        list[str] | None,
        typer.Option(
            "--covariate",
            metavar="KEY",
            help=(
                "Column of obs (or SHEET) with a known variable: of interest, or a "
                "batch. Repeatable."
            ),
        ),
    ] = None,
    formula: Annotated[
        str | None,
        typer.Option(
            metavar="F",
            help=('Formula of the known variables, such as "~ group + age".'),
        ),
    ] = None,
    null: Annotated[
        list[str] | None,
        typer.Option(
            "--null",
            metavar="KEY",
            help=(
                "Known variable that is not of interest, such as a batch. Repeatable."
            ),
        ),
    ] = None,
    number: Annotated[
        int | None,
        typer.Option(
            "--number",
            metavar="K",
            help="Number of surrogate variables. Default: chosen by permutation (sva).",
        ),
    ] = None,
    method: Annotated[
        Way, typer.Option(metavar="NAME", help=f"{', '.join(get_args(Way))}.")
    ] = "sva",
    controls: Annotated[
        str | None,
        typer.Option(
            metavar="KEY|FILE",
            help="Negative controls, features that do not depend on the variables of "
            "interest (ruvg, supervised): column of var, or a file with one name per line.",
        ),
    ] = None,
    replicates: Annotated[
        str | None,
        typer.Option(
            metavar="KEY",
            help=(
                "Column of obs (or SHEET): samples with the same label are replicates "
                "(ruvs)."
            ),
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option(metavar="N", help=("Seed of the permutations."))
    ] = 0,
    layer: options.LayerRead = None,
    log_normalize: options.LogNormalize = None,
    samples: options.Samples = None,
    sample_column: options.SampleColumn = None,
    sep: options.Separator = None,
    decimal: options.Decimal = None,
    force: options.Force = False,
) -> None:
    """Estimate surrogate variables for unrecorded batches (sva, RUV).

    Give them to other commands with --nuisance or --covariate.

    \b
    batchcorr surrogate in.h5ad out.h5ad --covariate group
    batchcorr test out.h5ad results.csv --batch day --test group --nuisance X_sv
    batchcorr surrogate genes.csv sheet2.csv --samples sheet.csv --covariate group
    """  # noqa: D301 - \b keeps typer from joining lines
    normalization = Normalization.of_options(log_normalize)
    files = Source.of_options(
        source, samples, sample_column, sep, decimal, of_anndata={"--layer": layer}
    )
    check_target(target, DATA, [source, samples], force=force)
    given = kept(covariates, formula)
    adata, layout = files.open()
    logs = adata if log_normalize is None else adata.copy()
    _, read = normalize(logs, normalization, layer)
    from batchcorr import tl

    with working("Looking for surrogate variables"):
        found = tl.surrogate_variables(
            logs,
            null=null,
            n_variables=number,
            method=method,
            controls=_controls(controls, logs),
            replicates=replicates,
            layer=read,
            key_added=KEY,
            random_state=seed,
            **given,
        )
    record = _record(logs, adata)
    names = [f"sv{k + 1}" for k in range(found.columns_.shape[1])]
    if ending(target) in TABLES:
        sheet = adata.obs.assign(**dict(zip(names, found.columns_.T, strict=True)))
        mark = TABLES[ending(target)] or "\t"
        with writing(target) as part:
            sheet.to_csv(part, sep=mark, na_rep="NA", index_label="sample")
        use = " ".join(f"--nuisance {name}" for name in names)
    else:
        save(adata, target, layout)
        use = f"--nuisance {KEY}"
    several = "variable" if len(names) == 1 else "variables"
    say(
        f"Wrote {target}: {len(names)} surrogate {several} of {adata.n_obs:,} samples × "
        f"{adata.n_vars:,} features, by {method}."
    )
    if names:
        _show(names, record["explained_by"])
        say(remark=f"Remove them with {use}; in a test adjust for them with the same.")


def _controls(given: str | None, adata: AnnData) -> object:
    """A column of var by its name, or the names of features that a file holds."""
    if given is None or given in adata.var.columns:
        return given
    if not Path(given).is_file():
        columns = some(map(repr, adata.var.columns)) or "none"
        msg = f"{given!r} is no column of var (these are: {columns}), and no such file "
        msg += "with a name of a feature in each line is there."
        raise typer.BadParameter(msg, param_hint="--controls")
    with reading_or(f"{given} cannot be read: it is no text in UTF-8"):
        lines = Path(given).read_text("utf-8-sig").splitlines()
    return [line.strip() for line in lines if line.strip()]


def _record(logs: AnnData, adata: AnnData) -> dict[str, Any]:
    """The record of what was found in the logarithms, which goes with it to the data."""
    from batchcorr._anndata import records

    key = records.key_of(obsm=KEY)
    record = records.read(logs, key) or {}
    if logs is not adata:
        adata.obsm[KEY] = logs.obsm[KEY]
        records.write(adata, key, record)
    return record


def _show(names: list[str], shares: dict[str, list[float]]) -> None:
    """Say what the variables go with."""
    known = sorted(shares, key=lambda name: -max(shares[name]))[:SHOWN]
    if known:
        table = new_table("variance explained by", *known)
        for k, name in enumerate(names):
            table.add_row(Text(name), *(f"{shares[each][k]:.0%}" for each in known))
        print_table(table)
