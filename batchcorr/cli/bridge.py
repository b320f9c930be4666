"""`bridge`: the seven claims about BatchNorm, measured on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from batchcorr.cli.console import new_table, out, print_table, say
from batchcorr.cli.files import check_place
from batchcorr.cli.working import working
from batchcorr.cli.writing import writing
from batchcorr.errors import FileError

if TYPE_CHECKING:
    from batchcorr.bridge.claims import Claim

__all__ = ["bridge"]

DPI = 300


def bridge(
    figures: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder for a figure of each claim."),
    ] = None,
    *,
    force: Annotated[
        bool,
        typer.Option("--force", metavar="", help="Replace figures that exist."),
    ] = False,
) -> None:
    """Check by measurement that batch normalization is batch-effect removal.

    Seven claims on small networks and on 57 bladder-cancer arrays, in about a
    minute; needs torch. The exit code is 1 if a claim does not hold.
    """
    from batchcorr import datasets
    from batchcorr.bridge import claims
    from batchcorr.pl._matplotlib import require_matplotlib

    names = [claim.__name__ for claim in claims.CLAIMS]
    if figures is not None:
        require_matplotlib()
        targets = _targets(figures, names, force=force)
    arrays = datasets.bladder()
    measuring = claims.measure(arrays.X, arrays.obs["batch"].tolist())
    holding = judged = 0
    for number, name in enumerate(names, start=1):
        with working(f"Measuring claim {number} of {len(names)}: {name}"):
            claim = next(measuring)
        judged += _show(number, claim)
        holding += claim.holds
        if figures is not None:
            with writing(targets[number - 1]) as part:
                claim.figure().savefig(part, format="png", dpi=DPI)
    style = "bold green" if holding == len(names) else "bold red"
    text = f"{holding} of {len(names)} claims hold; {judged} numbers were compared."
    out.print(Text(text, style=style))
    if figures is not None:
        say(f"Wrote the figures to {figures}.")
    if holding < len(names):
        raise typer.Exit(1)


def _targets(folder: Path, names: list[str], *, force: bool) -> list[Path]:
    """Where each figure goes; the folder is made, and what is in the way refused."""
    if folder.exists() and not folder.is_dir():
        msg = f"{folder} is a file: give a folder for the figures."
        raise FileError(msg)
    targets = [folder / f"{k}_{name}.png" for k, name in enumerate(names, start=1)]
    for place in targets if folder.exists() else [folder]:
        check_place(place, [], force=force)
    folder.mkdir(exist_ok=True)
    return targets


def _show(number: int, claim: Claim) -> int:
    """Print a claim and its numbers, and count those that are judged."""
    verdict = ("holds", "green") if claim.holds else ("does not hold", "bold red")
    heading = Text.assemble((f"{number}  {claim.title}: ", "bold"), verdict)
    out.print(heading, soft_wrap=True)
    table, judged = new_table("", "measured", "expected", ""), 0
    for measured in claim.measured.values():
        expected, mark = "only reported", ("", "")
        if measured.expected is not None:
            expected = f"{measured.expected:.3g} ± {measured.tolerance:.2g}"
            mark = ("ok", "green") if measured.holds else ("off", "bold red")
            judged += 1
        value = f"{measured.value:.3g}"
        table.add_row(Text(measured.what), value, expected, Text(*mark))
    print_table(table)
    out.print()
    return judged
