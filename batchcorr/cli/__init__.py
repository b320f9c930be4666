"""The `batchcorr` command: files in, corrected files out.

No mathematics: the commands read a file, call a face and write a file. Heavy libraries
are imported inside the commands, so that `batchcorr --help` is quick.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from typer.core import TyperCommand, TyperGroup

from batchcorr import __version__
from batchcorr.cli import (
    audit,
    bridge,
    correct,
    demo,
    differential,
    evaluate,
    fit,
    methods,
    report,
    sites,
    surrogate,
)
from batchcorr.cli.console import complain, debugging, err, out, reporting
from batchcorr.cli.normalizing import METHODS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["app"]


UsageError = cast("type[typer.BadParameter]", typer.BadParameter.__bases__[0])


class _Command(TyperCommand):
    """The help shows --help without a type, as it shows other flags."""

    def get_help_option(self, ctx: Any) -> Any:
        return _plain(super().get_help_option(ctx))


class _Commands(TyperGroup):
    """Wrong usage is told like every error; --debug may stand after a command too."""

    def get_help_option(self, ctx: Any) -> Any:
        return _plain(super().get_help_option(ctx))

    def make_context(self, *args: Any, **extra: Any) -> Any:
        with _telling_wrong_usage():
            return super().make_context(*args, **extra)

    def invoke(self, ctx: Any) -> Any:
        with _telling_wrong_usage(), reporting():
            return super().invoke(ctx)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if "--debug" in args:
            args = ["--debug", *(each for each in args if each != "--debug")]
        return super().parse_args(ctx, _with_values(args))


def _plain(flag: Any) -> Any:
    """A flag that shows no type in the help."""
    if flag is not None:
        flag.metavar = ""
    return flag


def _with_values(args: list[str]) -> list[str]:
    """Give --log-normalize and --voom their value where alone, or one blank before it."""
    whole: list[str] = []
    for each in args:
        if whole and whole[-1] in MAY_STAND_ALONE:
            alone = each not in METHODS
            whole[-1] += f"={'total' if alone else each}"
            if not alone:
                continue
        whole.append(each)
    if whole and whole[-1] in MAY_STAND_ALONE:
        whole[-1] += "=total"
    return whole


MAY_STAND_ALONE = ("--log-normalize", "--voom")
"""Options whose value, a method of library sizes, may be left out."""


@contextmanager
def _telling_wrong_usage() -> Iterator[None]:
    """Turn wrong usage into two lines and exit code 2."""
    try:
        yield
    except UsageError as error:
        if error.ctx is None or type(error).__name__ == "NoArgsIsHelpError":
            raise
        complain("Error", error.format_message())
        command = f"{error.ctx.command_path} --help"
        err.print(f"Options are shown by: {command}", style="dim", soft_wrap=True)
        raise typer.Exit(error.exit_code) from error


app = typer.Typer(
    name="batchcorr",
    cls=_Commands,
    help="Batch-effect correction for RNA-seq, arrays and single cells.",
    epilog="Start with: batchcorr demo",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
COMMANDS: dict[str, Callable[..., None]] = {
    "demo": demo.demo,
    "audit": audit.audit,
    "surrogate": surrogate.surrogate,
    "correct": correct.correct,
    "test": differential.differential,
    "evaluate": evaluate.evaluate,
    "report": report.report,
    "fit": fit.fit,
    "apply": fit.apply,
    "schema": sites.schema,
    "moments": sites.moments,
    "methods": methods.methods,
    "bridge": bridge.bridge,
}
for name, command in COMMANDS.items():
    app.command(name, cls=_Command)(command)


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
            help="Show the traceback of errors. Also accepted after the command.",
        ),
    ] = False,
) -> None:
    """Batch-effect correction for RNA-seq, arrays and single cells."""
    debugging.set(debug)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a terminal may not know × and …
            stream.reconfigure(errors="replace")
