"""Relative log expression: each sample's quantiles, batch after batch."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from matplotlib.colors import to_rgba

import batchcorr as bc
from batchcorr.errors import InputError, MissingKeyError
from batchcorr.pl._looks import colours


def boxes(ax):
    """Ends of the thin and the thick lines, and medians: (n, 2), (n, 2), (n,)."""
    thin, thick, dots = ax.collections[:3]
    ends = [np.array(c.get_segments())[:, :, 1] for c in (thin, thick)]
    return *ends, np.asarray(dots.get_offsets())[:, 1]


@pytest.mark.parametrize("kind", [np.asarray, sp.csr_matrix])
def test_boxes_are_quantiles_of_deviations_batch_after_batch(small, kind):
    small.X = kind(small.X)
    ax = bc.pl.relative_log_expression(small, "batch")[0, 0]
    x = small.X.toarray() if sp.issparse(small.X) else small.X
    order = np.argsort(small.obs["batch"].cat.codes.to_numpy(), kind="stable")
    deviations = (x - np.median(x, axis=0))[order]
    thin, thick, dots = boxes(ax)
    np.testing.assert_allclose(thin.T, np.quantile(deviations, [0.05, 0.95], axis=1))
    np.testing.assert_allclose(thick.T, np.quantile(deviations, [0.25, 0.75], axis=1))
    np.testing.assert_allclose(dots, np.median(deviations, axis=1))
    drawn = [tuple(c) for c in ax.collections[0].get_colors()]
    assert drawn == [to_rgba(c) for c in colours(2) for _ in range(30)]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["run 00", "run 01"]


def test_layers_are_rows_on_one_scale(small):
    bc.pp.standardize(small, "batch", key_added="after")
    axes = bc.pl.relative_log_expression(small, "batch", layers=[None, "after"])
    assert axes.shape == (2, 1)
    assert [ax.get_title() for ax in axes[:, 0]] == ["X", "after"]
    assert axes[0, 0].get_ylim() == axes[1, 0].get_ylim()
    low, high = axes[0, 0].get_ylim()
    assert low == -high


def test_of_many_samples_each_batch_shows_some(many):
    ax = bc.pl.relative_log_expression(many, "batch", max_samples=200)[0, 0]
    drawn = np.array(ax.collections[0].get_colors())
    _, counts = np.unique(drawn, axis=0, return_counts=True)
    assert counts.tolist() == [5] * 40
    assert len(ax.get_legend().get_texts()) == 40


def test_small_batches_are_drawn_whole(small):
    small.obs["batch"] = np.repeat(["a", "b"], [4, 56])
    ax = bc.pl.relative_log_expression(small, "batch", max_samples=20)[0, 0]
    drawn = np.array(ax.collections[0].get_colors())
    counts = [(drawn == to_rgba(c)).all(axis=1).sum() for c in colours(2)]
    assert counts == [4, 16]


def test_missing_values_and_labels_do_no_harm(small):
    small.X[3, :5] = np.nan
    small.X[:, 7] = np.nan
    small.obs["batch"] = small.obs["batch"].where(np.arange(60) > 4)
    ax = bc.pl.relative_log_expression(small, "batch")[0, 0]
    assert np.isfinite(boxes(ax)[2]).all()
    assert len(boxes(ax)[2]) == 60


def test_what_cannot_be_drawn_is_said(small):
    with pytest.raises(MissingKeyError, match="batch key 'bach'"):
        bc.pl.relative_log_expression(small, "bach")
    with pytest.raises(MissingKeyError, match="no layer 'x'"):
        bc.pl.relative_log_expression(small, "batch", layers="x")
    with pytest.raises(InputError, match="max_samples=1"):
        bc.pl.relative_log_expression(small, "batch", max_samples=1)
    small.X[:] = 0
    with pytest.raises(InputError, match="all values are 0 or missing"):
        bc.pl.relative_log_expression(small, "batch")
