"""Time and memory of things that take turns, and the machine in words.

Machines drift and are shared. So all contenders take turns in one process, and figures
are ratios of medians; CPU seconds say how much of the time was work of this process.
"""

from __future__ import annotations

import gc
import os
import platform
import resource
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

import psutil

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

MIB = 1 << 20


class Cost(NamedTuple):
    """What one call took: seconds, CPU seconds, and bytes added at the peak."""

    seconds: float
    cpu: float
    added: int


def cost(run: Callable[[], Any]) -> tuple[Cost, Any]:
    """Run once; give what it took, and its result."""
    peak, cpu, start = Peak(), _cpu(), time.perf_counter()
    result = run()
    took = time.perf_counter() - start
    return Cost(took, _cpu() - cpu, peak.added()), result


def _cpu() -> float:
    """CPU seconds of this process and of children that ended."""
    return time.process_time() + sum(os.times()[2:4])


def middle(costs: Sequence[Cost]) -> Cost:
    """The median of each figure."""
    return Cost(*(median(values) for values in zip(*costs, strict=True)))


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a Markdown table."""
    print(f"\n{markdown(header, rows)}\n", flush=True)


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


class Peak:
    """Memory added since this was made, at its peak, in bytes.

    Linux: the process's high-water mark, which is reset here. `ru_maxrss` would not do
    there: a child starts with the mark of the parent it was forked from.
    """

    def __init__(self) -> None:
        gc.collect()
        clear = Path("/proc/self/clear_refs")
        if clear.exists():
            clear.write_text("5")
        self._start = psutil.Process().memory_info().rss

    def added(self) -> int:
        return max(0, self._peak() - self._start)

    @staticmethod
    def _peak() -> int:
        status = Path("/proc/self/status")
        if status.exists():
            mark = status.read_text().partition("VmHWM:")[2]
            return int(mark.split()[0]) * 1024
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    for line in lines:
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def machine(packages: Sequence[str]) -> str:
    """Name the machine and the versions."""
    found = []
    for package in packages:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    memory = psutil.virtual_memory().total / 2**30
    return (
        f"{_processor()}, {psutil.cpu_count()} cores, {memory:.0f} GiB, "
        f"{platform.system()}; Python {platform.python_version()}, {', '.join(found)}"
    )
