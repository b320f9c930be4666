"""What the commands say, and where: results on stdout, messages on stderr.

Errors that a user can mend are one red line and exit code 1, wrong usage is exit code 2,
Ctrl-C is 130, warnings are yellow lines. A traceback is shown with --debug, and by a
mistake in batchcorr itself.
"""

from __future__ import annotations

import errno
import re
import traceback
import warnings
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.padding import Padding
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from batchcorr.cli.words import as_typed, labels_in
from batchcorr.errors import BatchCorrError, BatchCorrWarning

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rich.console import ConsoleOptions, RenderableType

__all__ = [
    "complain",
    "debugging",
    "err",
    "new_table",
    "note",
    "out",
    "print_table",
    "reporting",
    "say",
]

CONTROLS = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""Characters that move the cursor, color the text or turn its direction."""


class _SafeConsole(Console):
    """A terminal that shows control characters of names and labels, and obeys none."""

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            if segment.control or not CONTROLS.search(segment.text):
                yield segment
            else:
                yield Segment(CONTROLS.sub(_shown, segment.text), segment.style)


def _shown(found: re.Match[str]) -> str:
    """The Unicode picture of a control character."""
    code = ord(found[0])
    return chr(0x2400 + code) if code < 0x20 else "\ufffd"


out = _SafeConsole(highlight=False, markup=False, emoji=False)
err = _SafeConsole(stderr=True, highlight=False, markup=False, emoji=False)

debugging: ContextVar[bool] = ContextVar("debugging", default=False)
"""Whether errors show where they come from."""


@contextmanager
def reporting() -> Iterator[None]:
    """Turn warnings into lines, and errors into a line and an exit code."""
    shown = set()
    labels = labels_in.set("obs")

    def show(message: Warning | str, *_: object, **__: object) -> None:
        if str(message) not in shown:
            shown.add(str(message))
            complain("Warning", str(message), "yellow")

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what libraries tell their developers
        warnings.simplefilter("always", BatchCorrWarning)
        warnings.showwarning = show
        try:
            yield
        except KeyboardInterrupt:
            complain("Stopped", "no file was partly written.")
            raise typer.Exit(130) from None
        except (BatchCorrError, MemoryError, OSError) as error:
            if getattr(error, "errno", None) == errno.EPIPE:
                raise
            if debugging.get():
                text = "".join(traceback.format_exception(error))
                err.print(text, end="", soft_wrap=True)
            complain("Error", str(error) or "not enough memory.")
            raise typer.Exit(1) from error
        finally:
            labels_in.reset(labels)


def say(*lines: str, remark: str = "") -> None:
    """Print results, each as one line, however long: the terminal wraps it."""
    for text in lines:
        out.print(Text(_one_line(text)), soft_wrap=True)
    if remark:
        out.print(Text(_one_line(remark), style="dim"), soft_wrap=True)


def new_table(first: str, *others: str) -> Table:
    """A table without lines: labels in the first column, numbers in the others."""
    table = Table(box=None, padding=(0, 3, 0, 0), pad_edge=False)
    table.add_column(Text(first))
    for header in others:
        table.add_column(Text(header), justify="right" if header else "left")
    return table


def print_table(table: Table, heading: str = "") -> None:
    """Print a table, after a blank line under a heading."""
    if heading:
        out.print()
        out.print(Text(heading, style="bold"))
    out.print(Padding(table, (0, 2), expand=False))


def note(text: str) -> None:
    """Say on stderr how the input was understood."""
    complain("Note", text, "cyan")


def complain(kind: str, message: str, style: str = "bold red") -> None:
    """Print a message as one line, which grep finds whole."""
    text = Text.assemble((f"{kind}:", style), " ", as_typed(_one_line(message)))
    err.print(text, soft_wrap=True)


def _one_line(text: str) -> str:
    return " ".join(text.split())
