"""A training step taken apart: its samples, its BatchNorm calls, its random numbers."""

from __future__ import annotations
