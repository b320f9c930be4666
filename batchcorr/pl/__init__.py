"""Figures: axes in, axes out, in colours that everybody can tell apart.

Each function draws on the axes it is given, or on those of a new figure, and returns
them. They need matplotlib.
"""

from __future__ import annotations

from batchcorr.pl._design import design
from batchcorr.pl._embedding import embedding
from batchcorr.pl._p_values import p_values
from batchcorr.pl._volcano import volcano

__all__ = ["design", "embedding", "p_values", "volcano"]
