"""Figures of wrong rates: QQ plots and an audit's predictions."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from scipy import stats

import batchcorr as bc
from batchcorr.errors import InputError


def test_observed_p_values_are_drawn_at_their_ranks():
    p = np.random.default_rng(0).uniform(size=500) ** 2
    ax = bc.pl.calibration(p)
    x, y = ax.lines[0].get_data()
    np.testing.assert_allclose(x, -np.log10((np.arange(1, 501) - 0.5) / 500))
    np.testing.assert_allclose(y, -np.log10(np.sort(p)))
    (text,) = ax.get_legend().get_texts()
    assert text.get_text() == f"{(p <= 0.05).mean():.1%} at p ≤ 0.05"


def test_the_band_is_where_ranks_lie_by_chance():
    ax = bc.pl.calibration({"a": np.linspace(0, 1, 200), "b": np.linspace(0, 1, 50)})
    corners = ax.collections[0].get_paths()[0].vertices
    first = np.isclose(corners[:, 0], -np.log10(0.5 / 50))
    band = stats.beta.ppf([0.025, 0.975], 1, 50)
    assert corners[first, 1].min() == pytest.approx(-np.log10(band[1]))
    assert corners[first, 1].max() == pytest.approx(-np.log10(band[0]))


def test_many_p_values_are_thinned_and_the_smallest_kept():
    p = np.sort(np.random.default_rng(0).uniform(size=100_000))
    ax = bc.pl.calibration(p)
    y = ax.lines[0].get_ydata()
    assert len(y) <= 3000
    np.testing.assert_allclose(y[:20], -np.log10(p[:20]))
    assert y[-1] == pytest.approx(-np.log10(p[-1]))


def test_tests_are_named_in_colours_of_their_own():
    table = pd.DataFrame({"p_value": [0.1, 0.5, np.nan]})
    ax = bc.pl.calibration({"one": table, "$two": [0.0, 0.3]}, alpha=0.1)
    texts = [text.get_text() for text in ax.get_legend().get_texts()]
    assert texts == ["one: 50.0% at p ≤ 0.1", r"\$two: 50.0% at p ≤ 0.1"]
    assert ax.lines[0].get_color() != ax.lines[1].get_color()
    assert np.isfinite(ax.lines[1].get_ydata()).all()


def test_no_tests_are_refused():
    with pytest.raises(InputError, match="is empty"):
        bc.pl.calibration({})
    with pytest.raises(InputError, match="alpha"):
        bc.pl.calibration([0.5], alpha=5)
    assert not plt.get_fignums()


def audited(adata, **what):
    return bc.tl.audit(adata, "batch", **what)


def test_bars_are_the_predicted_rates(small):
    small.obs["group"] = np.where(np.arange(60) % 7 < 2, "a", "b")
    small.obs.loc[small.obs_names[::2][:24], "group"] = "a"
    audit = audited(small, test="group")
    ax = bc.pl.predicted_error(audit)
    rates = audit.predicted["false_positive_rate"]
    assert [bar.get_width() for bar in ax.patches] == list(rates)
    assert [text.get_text() for text in ax.texts] == [f"{rate:.1%}" for rate in rates]
    assert ax.lines[0].get_xdata()[0] == audit.alpha
    assert len(ax.get_yticklabels()) == 4
    high = {bar.get_facecolor() for bar in ax.patches if bar.get_width() > 0.08}
    low = {bar.get_facecolor() for bar in ax.patches if bar.get_width() < 0.08}
    assert high
    assert low
    assert not high & low


def test_an_audit_without_a_test_predicts_nothing(small):
    with pytest.raises(InputError, match="test="):
        bc.pl.predicted_error(audited(small))
    small.obs["same"] = small.obs["batch"].astype(str)
    with pytest.raises(InputError, match="a finding makes"):
        bc.pl.predicted_error(audited(small, test="same"))
    with pytest.raises(InputError, match="not a dict"):
        bc.pl.predicted_error({})
