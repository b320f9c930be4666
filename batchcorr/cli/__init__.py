"""The `batchcorr` command: files in, corrected files out.

No mathematics: the commands read a file, call a face and write a file. Heavy libraries
are imported inside the commands, so that `batchcorr --help` is quick.
"""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from batchcorr import __version__
from batchcorr.cli import bridge, correct, demo, fit, methods, sites
from batchcorr.cli.console import debugging, out

__all__ = ["app"]


class _DebugAnywhere(TyperGroup):
    """Take --debug after a command too, where it is typed once something failed."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if "--debug" in args:
            args = ["--debug", *(each for each in args if each != "--debug")]
        return super().parse_args(ctx, args)


app = typer.Typer(
    name="batchcorr",
    cls=_DebugAnywhere,
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
    fit.fit,
    fit.apply,
    sites.schema,
    sites.moments,
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
            metavar="",
            callback=_show_version,
            is_eager=True,
            help="Show the version and exit.",
        ),
    ] = False,
    debug: Annotated[
        bool,
        typer.Option(
            "--debug",
            metavar="",
            help="Show where an error comes from. Also after a command.",
        ),
    ] = False,
) -> None:
    """Batch-effect correction for RNA-seq, arrays and single cells."""
    debugging.set(debug)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a terminal may not know × and …
            stream.reconfigure(errors="replace")
