"""What methods are made of: reading a matrix and its labels, estimating, saving."""

from __future__ import annotations
