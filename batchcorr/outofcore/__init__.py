"""Correct files larger than memory, block by block or with Dask."""

from __future__ import annotations
