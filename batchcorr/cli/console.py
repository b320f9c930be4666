"""What the commands say, and where: results on stdout, messages on stderr.

Errors that a user can mend are one red line and exit code 1, Ctrl-C is 130, warnings
are yellow lines. A traceback is shown with --debug, and by a mistake in batchcorr itself.
"""

from __future__ import annotations

import errno
import re
import traceback
import warnings
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.text import Text

from batchcorr.errors import BatchCorrError, BatchCorrWarning

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["debugging", "err", "out", "reporting", "working"]

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

debugging: ContextVar[bool] = ContextVar("debugging", default=False)
"""Whether errors show where they come from."""


@contextmanager
def reporting() -> Iterator[None]:
    """Turn warnings into lines, and errors into a line and an exit code."""
    shown = set()

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        if str(message) not in shown:
            shown.add(str(message))
            _say("Warning", "yellow", str(message))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what libraries tell their developers
        warnings.simplefilter("always", BatchCorrWarning)
        warnings.showwarning = show
        try:
            yield
        except KeyboardInterrupt:
            _say("Stopped", "bold red", "no file is half written.")
            raise typer.Exit(130) from None
        except (BatchCorrError, MemoryError, OSError) as error:
            if getattr(error, "errno", None) == errno.EPIPE:
                raise
            if debugging.get():
                err.out("".join(traceback.format_exception(error)), end="")
            _say("Error", "bold red", str(error) or "not enough memory.")
            raise typer.Exit(1) from error


@contextmanager
def working(what: str) -> Iterator[None]:
    """Show on a terminal what is being done."""
    if err.is_terminal:
        with err.status(Text(f"{what} …")):
            yield
    else:
        yield


def _say(kind: str, style: str, message: str) -> None:
    """Print one line, however long: the terminal wraps it, and grep finds it whole."""
    text = Text.assemble(
        (f"{kind}:", style), " ", _as_options(" ".join(message.split()))
    )
    err.print(text, soft_wrap=True)


def _as_options(message: str) -> str:
    """Name options and columns as they are typed here and not as in Python."""
    message = re.sub(r"\badata\.obs\b", "obs (or SHEET)", message)
    message = message.replace("dense=True", "--dense")
    message = re.sub(r"\bkey_added=(?!\w)", "--key-added", message)
    return re.sub(r"\b(\w+=(?:True|False))\b", r"--set \1", message)
