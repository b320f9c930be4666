"""The `batchcorr` command, which `python -m batchcorr` is too."""

from __future__ import annotations

from batchcorr.cli import app
from batchcorr.estimators.plain import in_command

__all__ = ["main"]


def main() -> None:
    """Run the command in a process of its own, which has no other use for estimators."""
    in_command.set(True)
    app(prog_name="batchcorr")


if __name__ == "__main__":
    main()
