"""Pure statistics of counts: negative-binomial models and size factors."""

from __future__ import annotations
