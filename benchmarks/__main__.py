"""Every package that is installed, on the same inputs: time, memory and agreement.

    python -m benchmarks                  all, under ten minutes on two quiet cores
    python -m benchmarks --quick          the smallest sizes, once: does it run?
    python -m benchmarks --only pca variable
    python -m benchmarks --write          and refresh the table and picture of the docs

All contenders take turns in one process, on fresh copies of the same data, after one
call on small data that is not counted; ratios are of medians, within the run. Who would
take longer than `PATIENCE` seconds, judged by the size before, does not run.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import io
import logging
import sys
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numba
import numpy as np
import scipy.sparse as sp

from benchmarks import measure
from benchmarks.cases import CASES, Case, Contender, Size
from benchmarks.measure import Cost, cost, middle

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent
TABLE, PICTURE = HERE / "measured.md", HERE.parent / "docs" / "benchmarks.svg"
PACKAGES = [
    "batchcorr", "numpy", "scipy", "numba", "anndata", "scanpy", "scikit-learn", "zarr",
    "inmoose", "combatlearn", "combaters", "combat", "neuroCombat", "harmonypy",
]  # fmt: skip
TURNS, PATIENCE = 3, 40


class Figure(NamedTuple):
    """What one contender took at one size, and how far its result is from ours."""

    case: str
    axis: str
    size: Size
    name: str
    cost: Cost | None
    difference: float | None = None


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Others speak, warn and log; only figures are printed here."""
    logging.disable(logging.INFO)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


def difference(ours: Any, theirs: Any) -> float | None:
    """The largest difference, in standard deviations of the gene."""
    if any(isinstance(each, sp.csr_matrix) for each in (ours, theirs)):
        return float(abs(ours - theirs).max() / ours.data.std())
    if not all(isinstance(each, np.ndarray) for each in (ours, theirs)):
        return None
    if ours.shape != theirs.shape:
        return None
    return float(np.max(np.abs(ours - theirs) / np.maximum(ours.std(axis=0), 1e-12)))


def run_size(
    name: str, axis: str, size: Size, contenders: list[Contender], *, turns: int
) -> list[Figure]:
    """All contenders at one size, turn by turn."""
    data = CASES[name].make(size)
    costs: dict[str, list[Cost]] = {each.name: [] for each in contenders}
    results: dict[str, Any] = {}
    for turn in range(turns):
        for each in contenders:
            if turn and sum(one.seconds for one in costs[each.name]) > PATIENCE / 4:
                continue  # it is slow enough to be measured once
            fresh = copy.deepcopy(data)
            with silence():
                found, result = cost(lambda each=each, fresh=fresh: each.run(fresh))
            costs[each.name].append(found)
            results.setdefault(each.name, result)
    ours = results[contenders[0].name]
    return [
        Figure(
            name,
            axis,
            size,
            each.name,
            middle(costs[each.name]),
            difference(ours, results[each.name]) if each is not contenders[0] else None,
        )
        for each in contenders
    ]


def run_case(name: str, case: Case, *, quick: bool) -> list[Figure]:
    """A case at all its sizes, by all who are installed."""
    there = [each for each in case.contenders if find_spec(each.module) is not None]
    figures: list[Figure] = []
    for axis, sizes in case.sizes.items():
        last: dict[str, tuple[float, int]] = {}
        for n, n_features, batches in sizes[:1] if quick else sizes:
            size = (
                (n // 2, n_features // 4, batches)
                if quick
                else (n, n_features, batches)
            )
            values = size[0] * size[1]
            able = [
                each
                for each in there
                if each.name not in last
                or last[each.name][0] * values / last[each.name][1] < PATIENCE
            ]
            if not last and not quick:  # compile, import, touch
                run_size(name, axis, size, able, turns=1)
            found = run_size(name, axis, size, able, turns=1 if quick else TURNS)
            last |= {
                each.name: (each.cost.seconds, values) for each in found if each.cost
            }
            figures += found
            figures += [
                Figure(name, axis, size, each.name, None)
                for each in there
                if each not in able
            ]
            print(
                f"{name}, {axis}, {' × '.join(f'{part:,}' for part in size)}",
                flush=True,
            )
    return figures


def seconds(value: float) -> str:
    return f"{value * 1e3:.0f} ms" if value < 1 else f"{value:.1f} s"


def ratio(one: float, other: float) -> str:
    return f"{one / other:.1f}×" if one < 10 * other else f"{one / other:.0f}×"


def rows_of(case: Case, figures: list[Figure]) -> list[list[str]]:
    """A line for each size and contender."""
    ours = {
        each.size: each.cost for each in figures if each.name == case.contenders[0].name
    }
    rows = []
    for each in figures:
        size = " × ".join(f"{part:,}" for part in each.size)
        own = ours[each.size]
        if each.cost is None or own is None:
            rows.append([size, each.name, f"over {PATIENCE} s", "", "", "", ""])
            continue
        rows.append(
            [
                size,
                f"**{each.name}**" if each.cost is own else each.name,
                seconds(each.cost.seconds),
                ratio(each.cost.seconds, own.seconds),
                ratio(each.cost.cpu, max(own.cpu, 1e-3)),
                f"{each.cost.added / measure.MIB:,.0f} MiB",
                "" if each.difference is None else f"{each.difference:.0e}",
            ]
        )
    return rows


def report(figures: list[Figure]) -> str:
    """The page: the machine, a table for each case, who was absent."""
    header = ["samples × genes × batches", "", "time", "ratio", "CPU ratio", "added memory",
              "difference"]  # fmt: skip
    about = f"{measure.machine(PACKAGES)}; threads of numba: {numba.get_num_threads()}"
    how = (
        f"Medians of {TURNS} turns, of one where a call took long; ratios to batchcorr"
    )
    parts = [f"{about}. {how}."]
    for name, case in CASES.items():
        own = [each for each in figures if each.case == name]
        if own:
            unique = list({(each.size, each.name): each for each in own}.values())
            parts += [
                f"### {case.title}",
                measure.markdown(header, rows_of(case, unique)),
            ]
            parts += [case.note] if case.note else []
    absent = {
        each.module
        for case in CASES.values()
        for each in case.contenders
        if find_spec(each.module) is None
    }
    if absent:
        parts.append(f"Not installed, so not run: {', '.join(sorted(absent))}.")
    return "\n\n".join(parts) + "\n"


def draw(figures: list[Figure], path: Path) -> None:
    """Time of ComBat as samples, genes and batches grow."""
    import matplotlib as mpl
    import matplotlib.pyplot as plt

    mpl.use("svg")
    mpl.rcParams |= {"svg.hashsalt": "batchcorr", "svg.fonttype": "path"}
    case = CASES["combat"]
    drawn, axes = plt.subplots(
        1, 3, figsize=(9.5, 3.4), sharey=True, layout="constrained"
    )
    colours = plt.get_cmap("tab10").colors
    for part, (ax, axis) in enumerate(zip(axes, case.sizes, strict=True)):
        for k, each in enumerate(case.contenders):
            own = [f for f in figures if f[0] == "combat" and f.axis == axis and f.cost]
            own = [f for f in own if f.name == each.name]
            if own:
                ax.plot(
                    [f.size[part] for f in own],
                    [f.cost.seconds for f in own if f.cost],
                    marker="osD^v<>P"[k],
                    markersize=4,
                    linewidth=2.5 if k == 0 else 1.2,
                    linestyle=":" if each.module == "numpy" else "-",
                    color="black" if k == 0 else colours[k],
                    label=each.name,
                )
        ax.set(xscale="log", yscale="log", xlabel=axis)
        ticks = sorted({f.size[part] for f in figures if f[:2] == ("combat", axis)})
        ax.set_xticks(ticks, labels=[f"{tick:,}" for tick in ticks])
        ax.set_xticks([], minor=True)
        ax.grid(visible=True, which="major", alpha=0.3)
    axes[0].set_ylabel("seconds")
    handles, labels = axes[0].get_legend_handles_labels()
    drawn.legend(handles, labels, loc="outside right center", frameon=False, fontsize=8)
    drawn.savefig(path, metadata={"Date": None})


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("--quick", action="store_true", help="the smallest sizes, once")
    parser.add_argument("--only", nargs="+", choices=CASES, default=[*CASES])
    parser.add_argument(
        "--write", action="store_true", help="refresh table and picture"
    )
    given = parser.parse_args(arguments)
    if given.write and (given.quick or [*given.only] != [*CASES]):
        sys.exit("--write is of all cases in full: leave out --quick and --only.")
    figures = [
        figure
        for name in given.only
        for figure in run_case(name, CASES[name], quick=given.quick)
    ]
    page = report(figures)
    print(f"\n{page}", flush=True)
    if given.write:
        TABLE.write_text(page, encoding="utf-8")
        draw(figures, PICTURE)


if __name__ == "__main__":
    main()
