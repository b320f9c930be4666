"""Analyses of an AnnData: design, tests, surrogate variables, components, evaluation."""

from __future__ import annotations

from batchcorr.tl._audit import audit
from batchcorr.tl._audited import Audit
from batchcorr.tl._calibration import NullCalibration
from batchcorr.tl._differential import differential
from batchcorr.tl._evaluate import evaluate
from batchcorr.tl._evaluation import Evaluation
from batchcorr.tl._null_calibration import null_calibration
from batchcorr.tl._pca import pca
from batchcorr.tl._surrogate_variables import surrogate_variables

__all__ = [
    "Audit",
    "Evaluation",
    "NullCalibration",
    "audit",
    "differential",
    "evaluate",
    "null_calibration",
    "pca",
    "surrogate_variables",
]
