"""The `batchcorr` command: files in, corrected files out.

No mathematics: the commands read a file, call a face and write a file. Heavy libraries
are imported inside the commands, so that `batchcorr --help` is quick.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from batchcorr import __version__
from batchcorr.cli import bridge, correct, demo, methods, sites
from batchcorr.cli.console import out

__all__ = ["app"]

app = typer.Typer(
    name="batchcorr",
    help="Batch-effect correction for RNA-seq, arrays and single cells.",
    epilog="Start with: batchcorr demo",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (
    demo.demo,
    correct.correct,
    correct.fit,
    correct.apply,
    sites.schema,
    sites.moments,
    sites.fit_moments,
    methods.methods,
    bridge.bridge,
):
    app.command()(command)


def _show_version(wanted: bool) -> None:
    if wanted:
        out.print(f"batchcorr {__version__}")
        raise typer.Exit


@app.callback()
def main(
    _version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_show_version,
            is_eager=True,
            help="Show the version and exit.",
        ),
    ] = False,
) -> None:
    """Batch-effect correction for RNA-seq, arrays and single cells."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a terminal may not know × and …
            stream.reconfigure(errors="replace")
