"""`bridge`: the seven claims about BatchNorm, measured on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from batchcorr.cli.console import out, say
from batchcorr.cli.files import check_place
from batchcorr.cli.working import working
from batchcorr.cli.writing import writing
from batchcorr.errors import FileError

if TYPE_CHECKING:
    from batchcorr.bridge.claims import Claim, Measured

__all__ = ["bridge"]

DPI = 300

NAMES = (
    "bias",
    "folding",
    "scale_invariance",
    "dropout",
    "accumulation",
    "few_shot",
    "unity",
)


def bridge(
    figures: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder to write a figure of each claim to."),
    ] = None,
    *,
    force: Annotated[
        bool,
        typer.Option("--force", metavar="", help="Replace figures that are there."),
    ] = False,
) -> None:
    """Measure that batch normalization is batch-effect removal.

    Seven claims on small networks and on 57 bladder-cancer arrays, in about a
    minute; needs torch. The exit code is 1 if a claim does not hold.
    """
    from batchcorr.bridge import claims
    from batchcorr.pl._matplotlib import require_matplotlib

    targets = _targets(figures, force=force)
    if figures is not None:
        require_matplotlib()
        figures.mkdir(exist_ok=True)
    from batchcorr import datasets

    arrays = datasets.bladder()
    measuring = claims.measure(arrays.X, arrays.obs["batch"].tolist())
    found = []
    for number, name in enumerate(NAMES, start=1):
        with working(f"Measuring claim {number} of {len(NAMES)}: {name}"):
            claim = next(measuring)
        _show(number, claim)
        if figures is not None:
            with writing(targets[name]) as part:
                claim.figure().savefig(part, format="png", dpi=DPI)
        found.append(claim)
    _conclude(found, figures)


def _targets(folder: Path | None, *, force: bool) -> dict[str, Path]:
    """Return where each figure goes, and refuse what is in the way, before any work."""
    if folder is None:
        return {}
    if folder.exists() and not folder.is_dir():
        msg = f"{folder} is a file: give a folder for the figures."
        raise FileError(msg)
    if not folder.exists():
        check_place(folder, [], force=False)
    targets = {
        name: folder / f"{number}_{name}.png"
        for number, name in enumerate(NAMES, start=1)
    }
    if folder.exists():
        for target in targets.values():
            check_place(target, [], force=force)
    return targets


def _show(number: int, claim: Claim) -> None:
    """Print a claim and its numbers."""
    heading = Text.assemble(
        (f"{number}  {claim.title}: ", "bold"),
        ("holds", "green") if claim.holds else ("does not hold", "bold red"),
    )
    out.print(heading, soft_wrap=True)
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column("")
    table.add_column("measured", justify="right", no_wrap=True)
    table.add_column("expected", justify="right", no_wrap=True)
    table.add_column("")
    for measured in claim.measured.values():
        mark = ("", "") if measured.expected is None else ("ok", "green")
        if not measured.holds:
            mark = ("off", "bold red")
        table.add_row(
            Text(measured.what),
            f"{measured.value:.3g}",
            _expected(measured),
            Text(*mark),
        )
    out.print(Padding(table, (0, 0, 1, 3), expand=False))


def _expected(measured: Measured) -> str:
    if measured.expected is None:
        return "only reported"
    return f"{measured.expected:.3g} ± {measured.tolerance:.2g}"


def _conclude(found: list[Claim], figures: Path | None) -> None:
    """Print the outcome, and exit with 1 if a claim does not hold."""
    holding = sum(claim.holds for claim in found)
    judged = sum(
        number.expected is not None
        for claim in found
        for number in claim.measured.values()
    )
    out.print(
        Text(
            f"{holding} of {len(found)} claims hold; {judged} numbers were compared.",
            style="bold green" if holding == len(found) else "bold red",
        )
    )
    if figures is not None:
        say(f"Wrote the figures to {figures}.")
    if holding < len(found):
        raise typer.Exit(1)
