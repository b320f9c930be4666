"""The command of the benchmarks runs, and says who took part and how far they agree."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.slow
def test_the_command_runs_all_cases():
    pytest.importorskip("psutil")
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--quick"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    page = done.stdout.partition("### ")[2]
    assert page.count("###") == 6
    rows = [line.split(" | ") for line in page.splitlines() if line.count(" | ") == 6]
    found = {(row[1], row[0]): row for row in rows}
    scanpy = found["scanpy", "| 500 × 500 × 10"]
    assert float(scanpy[6].strip(" |")) < 1e-3
    assert float(scanpy[3].strip("×")) > 0
