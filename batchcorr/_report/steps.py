"""What was done, from the records: a list of steps with their parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from batchcorr._report.methods_text import method_name
from batchcorr.errors import some

if TYPE_CHECKING:
    from batchcorr._anndata.records import Record

__all__ = ["Step", "step_of"]


class Step(NamedTuple):
    """One step of what was done, as the page lists it."""

    method: str
    source: str
    details: list[tuple[str, str]]
    warnings: list[str]


def step_of(record: Record) -> Step:
    """A record in words."""
    details: list[tuple[str, str]] = []
    if record.get("batch"):
        details.append(("batch", _written(record["batch"])))
        details.append(("batches", _written(record.get("batches"))))
    for name in ("kept", "nuisance"):
        if record.get(name):
            details += [(name, _written(record[name]))]
    details += [
        (name, _written(value))
        for name, value in record.get("parameters", {}).items()
        if value is not None
    ]
    size = f"{record.get('n_obs', 0):,} samples × {record.get('n_vars', 0):,} features"
    details.append(("size", size))
    unchanged = record.get("features_unchanged")
    if unchanged:
        names = some(record.get("features_unchanged_names") or [])
        details.append(("left unchanged", f"{unchanged:,} features: {names}"))
    versions = record.get("versions", {})
    details.append(("versions", ", ".join(f"{k} {v}" for k, v in versions.items())))
    warned = [text.partition(": ")[2] or text for text in record.get("warnings", [])]
    return Step(method_name(record), str(record.get("source", "")), details, warned)


def _written(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return some(value, 12) if isinstance(value, list) else str(value)
