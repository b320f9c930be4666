"""What a run of the tests and examples leaves out: the bridge, where there is no torch."""

from __future__ import annotations

from importlib.util import find_spec

NAMES = ("batchcorr/bridge", "tests/bridge")

collect_ignore = [] if find_spec("torch") else list(NAMES)


def pytest_report_header() -> list[str]:
    """Say so at the top of the output."""
    left_out = f"{' and '.join(NAMES)} are left out: there is no torch"
    return [left_out] if collect_ignore else []
