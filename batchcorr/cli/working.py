"""Let Ctrl-C end reading and writing, wherever in the libraries it comes in.

Python drops a KeyboardInterrupt that is raised in a callback, which is where h5py often
is when a long write returns; and zarr writes from a thread of its own, which Ctrl-C does
not reach.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["interruptible"]


@contextmanager
def interruptible() -> Iterator[None]:
    """Raise a dropped KeyboardInterrupt when the block ends, if it was not heard before.

    From then on Ctrl-C is ignored, so that the process cleans up and ends in peace.
    """
    dropped: list[sys.UnraisableHookArgs] = []
    report = sys.unraisablehook
    sys.unraisablehook = dropped.append  # no Python code, which could be interrupted
    try:
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
