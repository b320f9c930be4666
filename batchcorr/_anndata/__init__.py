"""AnnData in and out: get a matrix, read labels, set a result, keep its record."""

from __future__ import annotations
