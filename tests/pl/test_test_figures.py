"""Figures of tests: what is called, what chance would call, what is named."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import batchcorr as bc
from batchcorr._report.features import top_of_test
from batchcorr.errors import InputError, MissingKeyError


def result(n=1000, seed=0):
    rng = np.random.default_rng(seed)
    p = rng.uniform(size=n)
    p[:50] = 10.0 ** -rng.uniform(6, 12, 50)
    effect = rng.normal(size=n)
    effect[:50] = np.where(np.arange(50) < 20, -3, 3) + 0.1 * effect[:50]
    adjusted = np.minimum(p * 20, 1)
    table = {"coefficient": effect, "p_value": p, "p_adjusted": adjusted}
    return pd.DataFrame(table, index=[f"g{k}" for k in range(n)])


def test_a_volcano_colours_what_is_called_and_counts_it():
    table = result()
    called = table["p_adjusted"] <= 0.05
    ax = bc.pl.volcano(table)
    rest, lower, higher = (c.get_offsets() for c in ax.collections)
    assert len(rest) == (~called).sum()
    assert len(lower) == (called & (table["coefficient"] < 0)).sum()
    assert len(higher) == (called & (table["coefficient"] > 0)).sum()
    names = [text.get_text() for text in ax.get_legend().get_texts()]
    assert names == [f"lower: {len(lower)}", f"higher: {len(higher)}"]
    everything = np.concatenate([rest, lower, higher])
    np.testing.assert_allclose(
        np.sort(everything[:, 1]), np.sort(-np.log10(table["p_value"]))
    )
    low, high = ax.get_xlim()
    assert low == -high
    line = ax.lines[0].get_ydata()[0]
    assert line == pytest.approx(-np.log10(table["p_value"][called].max()))


def test_a_volcano_names_the_smallest_p_values_and_no_name_covers_another():
    table = result()
    ax = bc.pl.volcano(table, n_labels=15)
    names = [text.get_text() for text in ax.texts]
    assert names[0] == table["p_value"].idxmin()
    assert set(names) <= set(table["p_value"].nsmallest(15).index)
    ax.figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in ax.texts]
    pairs = [(a, b) for k, a in enumerate(boxes) for b in boxes[:k]]
    assert not any(a.overlaps(b) for a, b in pairs)
    assert not bc.pl.volcano(table, n_labels=0).texts


def test_of_p_values_that_are_0_the_largest_statistic_comes_first():
    table = result().assign(t=lambda t: 40 * t["coefficient"])
    table.iloc[:50, 1:3] = 0.0
    most = table["t"].abs().idxmax()
    assert bc.pl.volcano(table).texts[0].get_text() == most
    top = top_of_test(table.assign(mean=0.0, ci_low=0.0, ci_high=0.0))
    assert top.index[0] == most
    assert (top["p"] == "< 1e−300").all()


def test_fold_changes_are_drawn_where_they_are_known():
    table = result().assign(log2_fold_change=lambda t: 2 * t["coefficient"])
    ax = bc.pl.volcano(table)
    assert ax.get_xlabel() == "log2 fold change"
    assert ax.get_xlim()[1] > 2 * table["coefficient"].abs().max()


def test_p_values_of_zero_and_missing_ones_are_drawn_or_left_out():
    table = result()
    table.iloc[0, 1] = 0.0
    table.iloc[5:8, 1] = np.nan
    table.iloc[8, 0] = np.inf
    ax = bc.pl.volcano(table)
    assert sum(len(c.get_offsets()) for c in ax.collections) == 996
    assert np.isfinite(ax.get_ylim()).all()


def test_of_several_contrasts_one_is_named():
    table = pd.concat([result().add_suffix(f"[{k}]") for k in "bc"], axis=1)
    ax = bc.pl.volcano(table, contrast="c")
    assert ax.get_xlabel() == "coefficient, c"
    with pytest.raises(MissingKeyError, match="Available: 'b', 'c'"):
        bc.pl.volcano(table)
    with pytest.raises(MissingKeyError, match="Available: 'b', 'c'"):
        bc.pl.p_values(table, contrast="d")


def test_bars_are_shares_and_chance_is_a_line():
    p = np.concatenate([np.linspace(0.0005, 0.9995, 1000), np.full(1000, 0.01)])
    ax = bc.pl.p_values(p)
    heights = [bar.get_height() for bar in ax.patches]
    assert heights[0] == pytest.approx(52.5)
    assert sum(heights) == pytest.approx(100)
    assert ax.lines[0].get_ydata()[0] == 5
    assert ax.texts[0].get_text().startswith("52.5% of 2,000")
    assert ax.get_xlim() == (0, 1)


@pytest.mark.parametrize("change", [{"bins": 0}, {"bins": 2.5}, {"alpha": "5%"}])
def test_bars_and_rates_are_numbers(change):
    with pytest.raises(InputError, match=next(iter(change))):
        bc.pl.p_values([0.5], **change)


@pytest.mark.parametrize(
    ("given", "error", "says"),
    [
        ([0.5, 1.5], InputError, "one is 1.5"),
        ([np.nan], InputError, "no p-value"),
        ("p", InputError, "numbers from 0 to 1"),
        (pd.DataFrame({"pval": [0.5]}), MissingKeyError, "no column 'p_value'"),
        ({"one": [0.5]}, InputError, "calibration"),
    ],
)
def test_what_are_no_p_values_is_said(given, error, says):
    with pytest.raises(error, match=says):
        bc.pl.p_values(given)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"alpha": 0}, "alpha.* must lie"),
        ({"n_labels": "all"}, "n_labels must be a whole number"),
        ({"table": [1, 2]}, "must be a result"),
        ({"table": result().drop(columns="p_value")}, "no column 'p_value'"),
        (
            {"table": result().assign(p_value=np.nan)},
            "no feature with an effect and a p-value",
        ),
    ],
)
def test_a_volcano_says_what_it_lacks(change, says):
    with pytest.raises((InputError, MissingKeyError), match=says):
        bc.pl.volcano(**({"table": result()} | change))
