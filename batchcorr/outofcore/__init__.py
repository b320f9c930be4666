"""From file to file: matrices larger than memory, block by block or through Dask."""

from __future__ import annotations
