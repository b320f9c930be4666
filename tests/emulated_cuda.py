"""CUDA kernels compiled as C++: the very same text, run on the processor.

A few lines stand for what CUDA brings: the indices of a thread, and a barrier. Threads
of a kernel that never waits run one after the other; those of one that does are real
threads, block by block. Arguments are checked against the kernel's own parameters,
which CuPy does not do.
"""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from batchcorr.arrays.cupy_kernels import SOURCE

if TYPE_CHECKING:
    from pathlib import Path

COMPILER = shutil.which("g++") or shutil.which("c++")
FLAGS = ["-std=c++20", "-O1", "-ffp-contract=off", "-shared", "-fPIC", "-pthread"]
DTYPES = {"int": np.int32, "int64": np.int64, "float": np.float32, "double": np.float64}

SHIM = """
#include <barrier>
#include <thread>
#include <vector>
struct Index { unsigned x; };
static thread_local Index threadIdx, blockIdx;
static Index blockDim, gridDim;
static std::barrier<> *together;
#define __global__
#define __device__
static void __syncthreads() { together->arrive_and_wait(); }
"""

LOOP = """
template <typename Work>
static void every_thread(unsigned grid, unsigned block, bool waits, Work work) {
    gridDim.x = grid;
    blockDim.x = block;
    for (unsigned b = 0; b < grid; ++b) {
        std::barrier<> barrier(block);
        together = &barrier;
        std::vector<std::thread> threads;
        for (unsigned t = 0; t < block; ++t) {
            auto one = [=] { blockIdx.x = b; threadIdx.x = t; work(); };
            if (waits) threads.emplace_back(one); else one();
        }
        for (auto &thread : threads) thread.join();
    }
}
"""


def kernels() -> dict[str, tuple[list[tuple[str, str]], str]]:
    """Read each kernel's parameters, (type, name), and its body."""
    text = re.sub(r"//[^\n]*", "", SOURCE.read_text("utf-8"))
    found = {}
    for name, parameters, body in re.findall(
        r"__global__ void (\w+)\((.*?)\) \{(.*?)\n\}", text, re.DOTALL
    ):
        pairs = [re.fullmatch(r"\s*(.+?)(\w+)", part) for part in parameters.split(",")]
        found[name] = ([(pair[1].strip(), pair[2]) for pair in pairs], body)
    return found


def wrapper(name: str, parameters: list[tuple[str, str]], body: str) -> str:
    taken = ", ".join(f"{kind} {parameter}" for kind, parameter in parameters)
    given = ", ".join(parameter for _, parameter in parameters)
    waits = str("__syncthreads" in body).lower()
    return (
        f'extern "C" void run_{name}(unsigned grid, unsigned block, {taken}) {{\n'
        f"    every_thread(grid, block, {waits}, [=] {{ {name}({given}); }});\n}}\n"
    )


@dataclass
class Emulated:
    """Launches kernels as CuPy does; `cut` replaces grid and block of every launch."""

    folder: Path
    cut: tuple[int, int] | None = None
    libraries: dict[Any, Any] = field(default_factory=dict)
    launched: list[str] = field(default_factory=list)

    def __call__(self, name, types, grid, block, args):
        parameters, body = kernels()[name]
        grid, block = self.cut or (grid[0], block[0])
        if "__syncthreads" in body:
            block = min(block, 3)
        values = [
            self._argument(*pair, types) for pair in zip(args, parameters, strict=True)
        ]
        self.launched.append(name)
        getattr(self._library(types), f"run_{name}")(grid, block, *values)

    def _argument(self, value, parameter, types):
        kind, name = parameter
        wanted = kind.replace("const ", "").replace(" *", "")
        wanted = dict(zip(("REAL", "INDEX"), types, strict=True)).get(wanted, wanted)
        if isinstance(value, np.ndarray):
            assert "*" in kind, name
            assert value.dtype == DTYPES[wanted], name
            return ctypes.c_void_p(value.ctypes.data)
        if "*" in kind:
            assert isinstance(value, np.uint64), name
            assert value == 0, name
            return ctypes.c_void_p(0)
        assert isinstance(value, np.int64), name
        assert wanted == "int64", name
        return ctypes.c_longlong(int(value))

    def _library(self, types):
        if types not in self.libraries:
            text = [SHIM, SOURCE.read_text("utf-8"), LOOP]
            text += [wrapper(name, *known) for name, known in kernels().items()]
            source = self.folder / f"{'_'.join(types)}.cpp"
            source.write_text("\n".join(text), encoding="utf-8")
            made = source.with_suffix(".so")
            macros = [f"-DREAL={types[0]}", f"-DINDEX={types[1]}"]
            subprocess.run(
                [COMPILER, *FLAGS, *macros, "-o", made, source], check=True, timeout=120
            )
            self.libraries[types] = ctypes.CDLL(made)
        return self.libraries[types]
