"""Say on a terminal what is being done, and let Ctrl-C end it, wherever it comes in.

Python drops a KeyboardInterrupt that is raised in a callback, which is where h5py often
is when a long write returns; and zarr writes from a thread of its own, which Ctrl-C does
not reach.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from contextlib import contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING

from rich.text import Text

from batchcorr.cli.console import err

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["working"]


@contextmanager
def working(what: str) -> Iterator[None]:
    """Show what is being done; raise a dropped KeyboardInterrupt when the block ends.

    From then on Ctrl-C is ignored, so that the process cleans up and ends in peace.
    """
    dropped: list[sys.UnraisableHookArgs] = []
    report = sys.unraisablehook
    sys.unraisablehook = dropped.append  # no Python code, which could be interrupted
    try:
        with err.status(Text(f"{what} …")) if err.is_terminal else nullcontext():
            yield
        if any(each.exc_type is KeyboardInterrupt for each in dropped):
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        _stop_zarr()
        raise
    except Exception:
        _stop_zarr()
        raise
    finally:
        sys.unraisablehook = report
        for each in dropped:
            if each.exc_type is not KeyboardInterrupt:
                report(each)


def _stop_zarr() -> None:
    """Cancel what zarr's thread has still to do, and wait for what it is doing."""
    loop = getattr(sys.modules.get("zarr.core.sync"), "loop", [None])[0]
    if loop is not None:
        with suppress(TimeoutError):
            asyncio.run_coroutine_threadsafe(_cancel_others(), loop).result(timeout=10)


async def _cancel_others() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
