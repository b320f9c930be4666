"""What a run of the tests and examples leaves out, and with how many threads they run.

The bridge is left out where there is no torch. Beside other workers each has one thread:
threads that wait for each other's cores take three times as long.
"""

from __future__ import annotations

import os
from importlib.util import find_spec

import pytest

NAMES = ("batchcorr/bridge", "tests/bridge")

collect_ignore = [] if find_spec("torch") else list(NAMES)

WORKER = "PYTEST_XDIST_WORKER" in os.environ


def pytest_sessionstart() -> None:
    """Give kernels and BLAS one thread in a worker; tests of threads ask for more."""
    if WORKER:
        import numba
        from threadpoolctl import threadpool_limits

        for name in ("OPENBLAS", "OMP", "MKL"):  # of what is loaded later
            os.environ.setdefault(f"{name}_NUM_THREADS", "1")
        threadpool_limits(1)
        numba.set_num_threads(1)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Examples of claims are slow ones: they measure what tests of claims measure."""
    for item in items:
        if item.nodeid.startswith("batchcorr/bridge/claims/"):
            item.add_marker(pytest.mark.slow)


def pytest_report_header() -> list[str]:
    """Say so at the top of the output."""
    left_out = f"{' and '.join(NAMES)} are left out: there is no torch"
    return [left_out] if collect_ignore else []
