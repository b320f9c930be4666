"""Scores: how much batch effect remains, and how much biology is kept."""

from __future__ import annotations

from batchcorr.metrics._batch_predicted import batch_predicted
from batchcorr.metrics._cluster_agreement import ClusterAgreement, cluster_agreement
from batchcorr.metrics._lisi import lisi
from batchcorr.metrics._pc_regression import pc_regression
from batchcorr.metrics._structure_kept import structure_kept
from batchcorr.metrics._variance_explained import VarianceShare, variance_explained

__all__ = [
    "ClusterAgreement",
    "VarianceShare",
    "batch_predicted",
    "cluster_agreement",
    "lisi",
    "pc_regression",
    "structure_kept",
    "variance_explained",
]
