"""`demo`: real data in, corrected file and report out."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.padding import Padding
from rich.text import Text

from batchcorr.cli.console import new_table, out
from batchcorr.cli.files import ANNDATA, check_target
from batchcorr.cli.working import working
from batchcorr.cli.writing import write_anndata

if TYPE_CHECKING:
    from anndata import AnnData

    from batchcorr._anndata.records import Record
    from batchcorr.metrics import VarianceShare

__all__ = ["demo"]

DEFAULT = Path("bladder_corrected.h5ad")
WIDTH = 80

FEW = 6
"""Samples under which a batch is remarked on."""


def demo(
    output: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help=f"File to write. Default: {DEFAULT}."),
    ] = None,
    *,
    force: Annotated[
        bool, typer.Option("--force", metavar="", help="Replace FILE if it exists.")
    ] = False,
) -> None:
    """Correct example data and show what changed.

    Corrects 57 bladder-cancer arrays, processed in five batches, with ComBat, and
    writes an HTML report.
    """
    target = output or DEFAULT
    page = target.with_suffix(".html")
    force = force or output is None
    check_target(target, ANNDATA, [], force=force)
    check_target(page, (".html",), [], force=force)
    with working("Correcting"):
        adata, record, before, after = _correct()
    write_anndata(adata, target, compress=True)
    _report(adata, page)
    _show_design(adata)
    _show_result(record, before, after)
    _show_next(target, page)


def _correct() -> tuple[AnnData, dict[str, Any], VarianceShare, VarianceShare]:
    """Correct the bladder data, and measure batch and biology before and after."""
    import batchcorr as bc
    from batchcorr._anndata import records

    adata = bc.datasets.bladder()
    before = bc.metrics.variance_explained(adata, "batch", covariates="cancer")
    adata.layers["uncorrected"] = adata.X.copy()
    with warnings.catch_warnings(action="ignore"):  # shown below, from the record
        bc.pp.combat(adata, "batch", covariates="cancer")
    after = bc.metrics.variance_explained(adata, "batch", covariates="cancer")
    return adata, records.read(adata, records.key_of()) or {}, before, after


def _report(adata: AnnData, page: Path) -> None:
    """Write the page beside the corrected file."""
    import batchcorr as bc

    title = "Bladder cancer arrays in five batches"
    with working("Reporting"), warnings.catch_warnings(action="ignore"):
        bc.report(adata, page, test="cancer", title=title)


def _show_design(adata: AnnData) -> None:
    import pandas as pd

    counts = pd.crosstab(adata.obs["batch"], adata.obs["cancer"])
    _say(
        f"Real data: {adata.n_obs} bladder samples × {adata.n_vars:,} probes, processed "
        f"in {len(counts)} batches.",
        style="bold",
    )
    _say("Batch and tissue are partly confounded: batches hold different tissues.")
    table = new_table("batch", *map(str, counts.columns), "")
    for batch, row in counts.iterrows():
        kinds = counts.columns[row > 0]
        remarks = [f"{kinds[0]} only"] if len(kinds) == 1 else []
        remarks += [f"{row.sum()} samples"] if row.sum() < FEW else []
        cells = [str(count) if count else "·" for count in row]
        table.add_row(str(batch), *cells, ", ".join(remarks))
    out.print(Padding(table, (1, 2), expand=False))


def _show_result(record: Record, before: VarianceShare, after: VarianceShare) -> None:
    _say(
        "ComBat removed each batch's shift and scale, and kept the differences between tissues.",
        style="bold",
    )
    table = new_table("variance of a probe explained by", "before", "after")
    for label, name in (
        ("batch, beyond cancer", "batch_beyond_covariates"),
        ("cancer, within batches", "covariates"),
    ):
        shares = [f"{getattr(share, name):.0%}" for share in (before, after)]
        table.add_row(label, *shares)
    out.print(Padding(table, (1, 2), expand=False))
    _say("Adjusted R²: 0% is expected by chance; negative means less than by chance.")
    for warning in record["warnings"]:
        out.print()
        _say(warning.partition(": ")[2], label="Warning: ")
    out.print()


def _show_next(target: Path, page: Path) -> None:
    wrote = Text.assemble(("Wrote ", "bold green"), f"{target}: corrected values in X,")
    out.print(wrote, soft_wrap=True)
    _say(
        "uncorrected values in layers['uncorrected'], record of the correction in "
        "uns['batchcorr']."
    )
    wrote = Text.assemble(
        ("Wrote ", "bold green"), f"{page}: the same as an HTML report."
    )
    out.print(wrote, soft_wrap=True)
    out.print()
    _say("Next", style="bold")
    for line in (
        "batchcorr correct IN.h5ad OUT.h5ad --batch KEY --covariate KEY",
        "batchcorr report OUT.h5ad OUT.html --test KEY",
        "batchcorr methods               all methods and their parameters",
        "import batchcorr as bc          the same in Python: bc.pp.combat(adata, …)",
    ):
        out.print(f"  {line}", soft_wrap=True)


def _say(text: str, *, label: str = "", style: str = "") -> None:
    whole = Text.assemble((label, "bold yellow"), (text, style))
    out.print(whole, width=min(out.width, WIDTH))
