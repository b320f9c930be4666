"""What a killed process left beside a file that it was writing, and who may delete it.

Such a file is called `.name-host-process-random.suffix`. It is deleted when the same
name is written again on the same machine and its process has ended.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import time
from contextlib import suppress
from pathlib import Path
from zlib import crc32

from batchcorr.errors import FileWarning, some, warn

__all__ = ["OLD", "clean", "delete"]

OLD = ".old"
"""What ends the name of a folder that was moved aside."""


def clean(target: Path) -> str:
    """Delete what processes left that were killed while they wrote `target`.

    A folder that was moved aside for a new one that did not come is moved back.

    Returns
    -------
    How the name of a file begins that this process writes in place of `target`.

    Warns
    -----
    FileWarning
        Names what is of another machine, of which nobody here knows who is at work, and
        what may not be deleted.
    """
    prefix = f".{target.stem}-{_host()}-{os.getpid()}-"
    stem, suffix = re.escape(target.stem), re.escape(target.suffix)
    name = re.compile(rf"\.{stem}-([0-9a-f]{{8}})-(\d+)-\w{{8}}{suffix}(\{OLD})?")
    try:
        names = sorted(path.name for path in target.parent.iterdir())
    except OSError:  # writing there will say why
        return prefix
    kept = []
    for match in filter(None, map(name.fullmatch, names)):
        left = target.with_name(match[0])
        if match[1] == _host():
            if _runs(int(match[2])):
                continue
            with suppress(PermissionError):
                if match[3] and not os.path.lexists(target):
                    left.rename(target)
                delete(left)
        if os.path.lexists(left):
            kept.append(left.name)
    if kept:
        msg = (
            f"{target.parent} contains temporary files of {target.name}, from runs "
            f"that are still writing or were killed: {some(kept)}. Delete them if no "
            "such run is active."
        )
        warn(msg, FileWarning)
    return prefix


def delete(path: Path) -> None:
    """Delete a file, link or folder; again where other threads still write into it."""
    if not os.path.lexists(path):
        return
    for _ in range(100):
        if path.is_symlink() or path.is_file():
            path.unlink()
        shutil.rmtree(path, ignore_errors=True)
        if not os.path.lexists(path):
            return
        time.sleep(0.01)


def _host() -> str:
    """What tells machines apart, and containers that count processes anew."""
    numbering = Path("/proc/self/ns/pid")
    inode = numbering.stat().st_ino if numbering.exists() else 0
    return f"{crc32(f'{platform.node()} {inode}'.encode()):08x}"


def _runs(process: int) -> bool:
    """Whether a process of this machine has not ended, or cannot be asked."""
    if os.name != "posix":
        return True
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True
