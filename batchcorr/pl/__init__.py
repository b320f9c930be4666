"""Figures, in colours that colour-blind readers can distinguish.

Each function draws on the axes given, or on those of a new figure, and returns the
axes. They need matplotlib.
"""

from __future__ import annotations

from batchcorr.pl._calibration import calibration
from batchcorr.pl._design import design
from batchcorr.pl._embedding import embedding
from batchcorr.pl._evaluation import evaluation
from batchcorr.pl._p_values import p_values
from batchcorr.pl._predicted_error import predicted_error
from batchcorr.pl._priors import priors
from batchcorr.pl._relative_log_expression import relative_log_expression
from batchcorr.pl._shrinkage import shrinkage
from batchcorr.pl._variance_explained import variance_explained
from batchcorr.pl._volcano import volcano

__all__ = [
    "calibration",
    "design",
    "embedding",
    "evaluation",
    "p_values",
    "predicted_error",
    "priors",
    "relative_log_expression",
    "shrinkage",
    "variance_explained",
    "volcano",
]
