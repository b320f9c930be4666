"""Time, memory, the machine, and how much of it others were using meanwhile.

Machines drift and are shared. So every time is taken beside a floor in the same process,
turn by turn; a round of turns is repeated until the machine was quiet in one; and every
figure is a median with its range.
"""

from __future__ import annotations

import gc
import os
import platform
import resource
import statistics
import sys
import time
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import psutil

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

MIB = 1 << 20
QUIET = 0.05
"""Share of the cores that others may use in a turn that counts."""


@dataclass(frozen=True)
class Settings:
    """How much is measured, and how many seconds to wait for quiet turns."""

    quick: bool = False
    repetitions: int = 7
    patience: float = 120

    def size(self, full: int, quick: int) -> int:
        return quick if self.quick else full


class Task(NamedTuple):
    """What is timed, and what is done before it, untimed, each time."""

    run: Callable[[], Any]
    before: Callable[[], Any] = lambda: None


class Turn(NamedTuple):
    """Seconds of each task, run one after the other, and what others used meanwhile."""

    seconds: dict[str, float]
    others: float


@dataclass(frozen=True)
class Comparison:
    """The turns that count, of all that were taken."""

    turns: list[Turn]
    taken: int

    def times(self, name: str) -> list[float]:
        return [turn.seconds[name] for turn in self.turns]

    def ratio(self, name: str, to: str = "floor") -> list[float]:
        """Return one task's times in parts of another's, turn by turn."""
        return [turn.seconds[name] / turn.seconds[to] for turn in self.turns]

    def more(self, name: str, than: str) -> list[float]:
        """Return what one task took beyond another, turn by turn."""
        return [turn.seconds[name] - turn.seconds[than] for turn in self.turns]

    def remark(self) -> str:
        worst = max(turn.others for turn in self.turns)
        state = "" if worst <= QUIET else ", which is NOT quiet"
        return (
            f"{len(self.turns)} of {self.taken} turns count; in them other processes "
            f"used at most {worst:.0%} of the cores{state}"
        )


class Others:
    """The share of all cores that processes other than this one and its children use."""

    def __init__(self) -> None:
        self._start = self._now()

    @staticmethod
    def _now() -> tuple[float, float, float]:
        times = psutil.cpu_times()._asdict()
        idle = ("idle", "iowait", "guest", "guest_nice")
        return (
            time.perf_counter(),
            sum(seconds for name, seconds in times.items() if name not in idle),
            sum(os.times()[:4]),
        )

    def share(self) -> float:
        wall, busy, own = (b - a for a, b in zip(self._start, self._now(), strict=True))
        cores = psutil.cpu_count() or 1
        return max(0.0, (busy - own) / (wall * cores))


def wait_until_quiet(limit: float) -> None:
    """Wait until others leave the machine alone, but not for ever."""
    end = time.monotonic() + limit
    while time.monotonic() < end:
        others = Others()
        time.sleep(0.5)
        if others.share() < QUIET:
            return


def compare(
    tasks: dict[str, Task], settings: Settings, *, warm: bool = False
) -> Comparison:
    """Run tasks turn by turn until enough turns were quiet.

    If patience ends before that, the quietest turns count. The choice looks at what
    other processes did and never at the times. Unless `warm`, all tasks run once
    before, untimed.
    """
    for task in () if warm else tasks.values():  # compile, and touch all memory
        task.before()
        task.run()
    turns: list[Turn] = []
    end = time.monotonic() + settings.patience
    while True:
        turns.append(_turn(tasks))
        quiet = [turn for turn in turns if turn.others <= QUIET]
        if len(quiet) == settings.repetitions:
            return Comparison(quiet, len(turns))
        if len(turns) >= settings.repetitions and time.monotonic() > end:
            turns.sort(key=lambda turn: turn.others)
            return Comparison(turns[: settings.repetitions], len(turns))
        if turns[-1].others > QUIET:
            wait_until_quiet(min(20, end - time.monotonic()))


def _turn(tasks: dict[str, Task]) -> Turn:
    found = {}
    others = Others()
    for name, task in tasks.items():
        task.before()
        gc.collect()
        start = time.perf_counter()
        task.run()
        found[name] = time.perf_counter() - start
    return Turn(found, others.share())


def seconds(values: Sequence[float]) -> str:
    """Write times as median and range."""
    low, mid, high = min(values), statistics.median(values), max(values)
    if mid < 1:
        return f"{mid * 1e3:.0f} ms ({low * 1e3:.0f}–{high * 1e3:.0f})"
    return f"{mid:.2f} s ({low:.2f}–{high:.2f})"


def times_floor(values: Sequence[float]) -> str:
    """Write ratios as median and range."""
    return (
        f"{statistics.median(values):.2f}× ({min(values):.2f}–{max(values):.2f})"
        if statistics.median(values) < 20
        else f"{statistics.median(values):.0f}× ({min(values):.0f}–{max(values):.0f})"
    )


def verdict(values: Sequence[float], target: float) -> str:
    """Say whether the median keeps a target."""
    return "yes" if statistics.median(values) <= target else "**no**"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a Markdown table."""
    print()
    print(f"| {' | '.join(header)} |")
    print(f"|{'---|' * len(header)}")
    for row in rows:
        print(f"| {' | '.join(row)} |")
    print(flush=True)


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
    load = os.getloadavg()[0]
    return (
        f"{_processor()}, {psutil.cpu_count()} cores, {memory:.0f} GiB, "
        f"{platform.system()}; Python {platform.python_version()}, "
        f"{', '.join(found)}; load average at the start {load:.2f}"
    )
