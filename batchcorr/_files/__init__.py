"""Whole files or none: atomic writes, small states, HDF5 files and zarr chunks."""

from __future__ import annotations
