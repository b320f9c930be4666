"""Evaluations: each score of each layer once, with its interval, beside chance."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

import batchcorr as bc
from batchcorr.errors import InputError, MissingKeyError


@pytest.fixture
def result():
    rows, scores = ["X", "combat"], ["ilisi", "batch_predicted", "clisi", "ari", "nmi"]
    value = pd.DataFrame(np.arange(10.0).reshape(2, 5), rows, scores)
    value.loc["X", "nmi"] = np.nan
    empty = value.assign(structure_kept=np.nan)
    return bc.tl.Evaluation(empty, empty - 1, empty + 2, empty / 2, pd.DataFrame())


def test_a_panel_a_score_and_a_row_a_layer(result):
    axes = bc.pl.evaluation(result)
    assert axes.shape == (2, 4)
    drawn = [ax for ax in axes.flat if ax.axison]
    assert [ax.get_title() for ax in drawn] == list(result.scores.columns[:5])
    for ax, score in zip(drawn, result.scores, strict=False):
        dots, chance = (line for line in ax.lines if line.get_marker() in {"o", "|"})
        np.testing.assert_array_equal(dots.get_xdata(), result.scores[score])
        np.testing.assert_array_equal(chance.get_xdata(), result.chance[score])
        ends = [line.get_xdata() for line in ax.lines if line.get_linewidth() == 1.6]
        wanted = np.stack([result.low[score], result.high[score]], axis=1)
        np.testing.assert_array_equal(ends, wanted)
    for row in axes[:, 0]:
        assert [t.get_text() for t in row.get_yticklabels()] == ["X", "combat"]
    assert not axes[0, 1].get_yticklabels()


def test_scores_of_batch_and_of_biology_differ_in_colour(result):
    axes = bc.pl.evaluation(result)
    colour = [to_hex(ax.lines[-2].get_color()) for ax in axes.flat[:5]]
    assert len(set(colour[:2])) == len(set(colour[2:])) == 1
    assert colour[0] != colour[2]


def test_scores_are_picked_and_axes_given(result):
    _, two = plt.subplots(2, 1)
    axes = bc.pl.evaluation(result, scores=["ari", "ilisi"], ax=two)
    assert [ax.get_title() for ax in axes.flat] == ["ari", "ilisi"]
    assert [len(ax.get_yticklabels()) for ax in two] == [2, 2]
    _, more = plt.subplots(2, 3)
    assert bc.pl.evaluation(result, ax=more).size == 6
    assert [ax.axison for ax in more.flat] == [True] * 5 + [False]


def test_a_long_score_is_written_on_two_lines_in_a_narrow_figure(result):
    _, two = plt.subplots(1, 2, figsize=(1.8, 1.5))
    axes = bc.pl.evaluation(result, scores=["ari", "batch_predicted"], ax=two)
    assert [ax.get_title() for ax in axes.flat] == ["ari", "batch_\npredicted"]


def test_what_cannot_be_drawn_is_said(result):
    with pytest.raises(MissingKeyError, match=r"no score 'asw'.*'ari'"):
        bc.pl.evaluation(result, scores=["asw"])
    with pytest.raises(MissingKeyError, match="no score 'structure_kept'"):
        bc.pl.evaluation(result, scores=["structure_kept"])
    with pytest.raises(InputError, match="not a DataFrame"):
        bc.pl.evaluation(result.scores)
    with pytest.raises(InputError, match="no scores"):
        bc.pl.evaluation(result, scores=[])
    with pytest.raises(
        InputError, match=r"5 scores.*1 axes.*scores=.*subplots\(2, 4\)"
    ):
        bc.pl.evaluation(result, ax=plt.figure().add_subplot())
