"""`python -m batchcorr` is the `batchcorr` command."""

from __future__ import annotations

from batchcorr.cli import app

if __name__ == "__main__":
    app(prog_name="batchcorr")
