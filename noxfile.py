"""The tests on the oldest and the newest versions: `nox`, or `nox -s oldest`."""

from __future__ import annotations

import tomllib
from pathlib import Path

import nox

PROJECT = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
nox.options.default_venv_backend = "venv"


def floors() -> list[str]:
    """Each requirement at the lowest version that pyproject.toml allows."""
    extras = PROJECT["optional-dependencies"]
    named = [*PROJECT["dependencies"], *extras["dask"], *extras["report"]]
    return [each.replace(">=", "==") for each in named]


@nox.session(python="3.11")
def oldest(session: nox.Session) -> None:
    """Everything as old as it may be."""
    session.install(".[test]", *floors())
    session.run("pytest", "-n", "2", *session.posargs)


@nox.session(python=["3.11", "3.12", "3.13"])
def newest(session: nox.Session) -> None:
    """Everything as new as there is."""
    session.install("--upgrade", ".[test]")
    session.run("pytest", "-n", "2", *session.posargs)
