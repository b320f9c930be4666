"""What stands on the page is what the analyses say, and nothing in it can run."""

from __future__ import annotations

import base64
import json
import re
import zlib
from html.parser import HTMLParser

import anndata
import numpy as np
import pandas as pd
import pytest

import batchcorr as bc
from batchcorr._report.scores import _drawn
from batchcorr.errors import FileError, InputError, MissingKeyError


class Page(HTMLParser):
    """The tags of a page, its text, and the data its script reads."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.texts, self.hidden = [], [], ""
        self.feed(text)
        self.text = " ".join("".join(self.texts).split())
        self.data = json.loads(re.search(r'id="data">(.*?)</script>', text, re.S)[1])

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.hidden = tag

    def handle_endtag(self, tag):  # noqa: ARG002
        self.hidden = ""

    def handle_data(self, data):
        if self.hidden not in {"script", "style"}:
            self.texts.append(data)


def unpacked(packed):
    """The values of a packed array."""
    kind = np.uint8 if packed["bytes"] == 1 else np.uint16
    return np.frombuffer(zlib.decompress(base64.b64decode(packed["data"])), kind)


@pytest.fixture
def adata():
    rng = np.random.default_rng(3)
    obs = pd.DataFrame(
        {"batch": np.repeat(["a", "b", "c"], 12), "group": np.resize(list("xxy"), 36)},
        index=[f"s{i}" for i in range(36)],
    )
    obs["age"] = np.linspace(20, 80, 36)[rng.permutation(36)]
    x = rng.normal(8, 1, (36, 50)) + 2 * (obs["batch"] == "b").to_numpy()[:, None]
    x[:, :5] += 3 * (obs["group"] == "y").to_numpy()[:, None]
    return anndata.AnnData(x, obs, pd.DataFrame(index=[f"g{i}" for i in range(50)]))


@pytest.fixture
def report(tmp_path):
    def made(adata, *args, **options):
        path = bc.report(adata, tmp_path / "report.html", *args, **options)
        return Page(path.read_text("utf-8"))

    return made


def test_numbers_are_those_of_the_analyses(adata, report):
    before = adata.copy()
    bc.pp.combat(adata, "batch", covariates="group", key_added="corrected")
    page = report(adata, test="group")
    audit = bc.tl.audit(before, "batch", covariates="group", test="group")
    for rate in audit.predicted["false_positive_rate"]:
        assert f"{100 * rate:.1f}".removesuffix(".0") + "%" in page.text
    table = bc.tl.differential(before, "batch", "group").sort_values("p_value")
    rows = page.data["features"]["rows"]
    assert [row[0] for row in rows] == list(table.index)
    place = page.data["features"]["columns"].index("adjusted p")
    np.testing.assert_allclose(
        [row[place] for row in rows], table["p_adjusted"], rtol=1e-3
    )
    scores = bc.tl.evaluate(
        adata, "batch", covariates=["group"], layers=[None, "corrected"]
    )
    for score in ("batch_beyond_covariates", "batch_predicted", "variance[group]"):
        for layer in ("X", "corrected"):
            cell = [
                frame[score][layer]
                for frame in (scores.scores, scores.low, scores.high)
            ]
            text = f"{cell[0]:.2f} ±{(cell[2] - cell[1]) / 2:.2f}"
            assert text.replace("-0.00", "0.00").replace("-", "−") in page.text
    share = bc.metrics.variance_explained(
        adata, "batch", covariates="group", layer="corrected"
    )
    assert share.batch_beyond_covariates < 0
    assert (
        "After correction by ComBat, batch explains none of the variance" in page.text
    )
    assert "removed by ComBat [1] with parametric priors, keeping group." in page.text
    assert "bc.tl.differential(adata, 'batch', 'group')" in page.text


def test_points_are_principal_components(adata, report):
    page = report(adata, "batch")
    (panel,) = page.data["panels"]
    centred = adata.X - adata.X.mean(axis=0)
    u, s, _ = np.linalg.svd(centred, full_matrices=False)
    for axis, k in (("x", 0), ("y", 1)):
        steps = unpacked(panel[axis]) / 65534
        assert abs(np.corrcoef(steps, u[:, k])[0, 1]) > 0.999
    assert f"PC1 ({s[0] ** 2 / (s**2).sum():.0%})" in page.text
    age = next(c for c in page.data["columns"] if c["name"] == "age")
    values = age["min"] + unpacked(age) / 65534 * (age["max"] - age["min"])
    np.testing.assert_allclose(values, adata.obs["age"], atol=1e-3)
    assert [c["name"] for c in page.data["columns"]] == ["batch", "group", "age"]


def test_values_before_are_found_where_they_were_kept(adata, report):
    adata.layers["kept"] = adata.X.copy()
    adata.layers["other"] = adata.X + 1
    bc.pp.standardize(adata, "batch")
    assert "values: layer kept, X" in report(adata).text
    del adata.layers["kept"]
    page = report(adata, test="group")
    assert "no uncorrected values, and corrected ones are not tested" in page.text
    assert len(page.data["panels"]) == 1


@pytest.fixture
def counted():
    rng = np.random.default_rng(5)
    obs = pd.DataFrame(
        {"run": np.repeat(["a", "b"], 12), "kind": list("xy") * 12},
        index=[f"s{k}" for k in range(24)],
    )
    counts = rng.poisson(rng.gamma(2, 20, 60), (24, 60)).astype(float)
    return anndata.AnnData(
        counts, obs, pd.DataFrame(index=[f"g{k}" for k in range(60)])
    )


def made_in_place(adata):
    adata.layers["counts"] = adata.X.copy()
    bc.pp.log_normalize(adata, method="tmm")
    bc.pp.combat(adata, "run")
    return "counts"


def made_beside(adata):
    bc.pp.log_normalize(adata, method="tmm", key_added="corrected")
    bc.pp.combat(adata, "run", layer="corrected")


def made_of_logs_that_are_gone(adata):
    bc.pp.log_normalize(adata, method="tmm", key_added="logs")
    bc.pp.combat(adata, "run", layer="logs", key_added="corrected")
    del adata.layers["logs"]


@pytest.mark.parametrize(
    "make", [made_in_place, made_beside, made_of_logs_that_are_gone]
)
def test_counts_are_normalized_as_they_were_and_tested_by_voom(counted, report, make):
    """Whatever became of the logarithms: the counts are what was not corrected."""
    logs = bc.pp.log_normalize(counted, method="tmm", copy=True)
    wanted = bc.tl.differential(counted, "run", "kind", voom="tmm")
    share = bc.metrics.variance_explained(logs, "run", covariates="kind")
    layer = make(counted)
    page = report(counted, test="kind")
    assert f"(before: {share.batch_beyond_covariates:.0%}" in page.text.replace(
        "none", "0%"
    )
    assert "divided by TMM factors" in page.text
    where = f", layer={layer!r}" if layer else ""
    call = f"bc.tl.differential(adata, 'run', 'kind', voom='tmm'{where})"
    assert call in page.text
    assert "weighted by voom (libraries by TMM factors)" in page.text
    place = page.data["features"]["columns"].index("p")
    found = {row[0]: row[place] for row in page.data["features"]["rows"]}
    np.testing.assert_allclose(
        [found[g] for g in wanted.index], wanted["p_value"], 1e-3
    )


def test_what_was_removed_is_in_the_model_of_the_test(adata, report):
    bc.pp.remove_batch_effect(
        adata, "batch", nuisance=["age"], covariates=["group"], key_added="clean"
    )
    page = report(adata, test="group")
    call = "bc.tl.differential(adata, 'batch', 'group', nuisance=['age'])"
    assert call in page.text
    wanted = bc.tl.differential(adata, "batch", "group", nuisance=["age"])
    assert page.data["features"]["rows"][0][0] == wanted["p_value"].idxmin()


def test_which_correction_is_meant_must_be_said(adata, report):
    bc.pp.standardize(adata, "batch", key_added="one")
    bc.pp.combat(adata, "batch", key_added="two")
    with pytest.raises(InputError, match=r"'one', 'two'.*corrected="):
        report(adata)
    assert "removed by ComBat" in report(adata, corrected="two").text
    with pytest.raises(MissingKeyError, match="Did you mean 'two'"):
        report(adata, corrected="twoo")


def test_surrogate_variables_are_no_correction(adata, report):
    bc.tl.surrogate_variables(adata, covariates=["group"], n_variables=1)
    assert "Nothing was corrected yet" in report(adata, "batch").text


def test_an_embedding_is_shown_beside_the_values_it_was_made_of(adata, report):
    bc.tl.pca(adata, "batch", n_comps=3)
    page = report(adata)
    assert "X_pca 1 →" in page.text
    assert len(page.data["panels"]) == 2


def test_a_corrected_embedding_is_shown_beside_the_one_before(adata, report):
    adata.obsm["X_e"] = adata.X[:, :4]
    bc.pp.combat(adata, "batch", obsm="X_e", mean_only=True, key_added="X_c")
    page = report(adata)
    assert "Before X_e 1 →" in page.text
    assert "After X_c 1 →" in page.text


def test_missing_labels_are_the_level_they_were_corrected_as(adata, report):
    adata.obs.loc[adata.obs_names[::6], "group"] = None
    bc.pp.combat(
        adata, "batch", covariates="group", missing="level", key_added="corrected"
    )
    page = report(adata, test="group")
    group = next(c for c in page.data["columns"] if c["name"] == "group")
    assert group["levels"] == ["missing", "x", "y"]
    assert group["counts"] == [6, 18, 12]
    assert adata.obs["group"].isna().sum() == 6


def test_nothing_is_corrected_where_nothing_can_be(adata, report):
    adata.obs["group"] = adata.obs["batch"]
    page = report(adata, "batch", covariates="group", test="group")
    assert "These data cannot be corrected for batch." in page.text
    assert "Do not correct these data" in page.text


def test_values_without_a_batch_effect_need_no_correction(adata, report):
    adata.X = np.random.default_rng(1).normal(8, 1, (36, 50))
    page = report(adata, "batch")
    assert "batches of 36 samples need no correction. No batch" in page.text


def test_the_batch_must_be_known(adata, tmp_path):
    with pytest.raises(InputError, match="batch_key must name the column"):
        bc.report(adata, tmp_path / "a.html")
    with pytest.raises(FileError, match="cannot be written"):
        bc.report(adata, tmp_path / "no" / "a.html", "batch")
    assert list(tmp_path.iterdir()) == []


def test_labels_are_shown_and_do_nothing(adata, report):
    evil = """</script><script>alert("1")</script><img src=x onerror='a()'>"""
    adata.obs["batch"] = adata.obs["batch"].replace({"a": evil, "b": "\u202eabc"})
    adata.obs[evil] = adata.obs["group"].replace({"x": "{{ 7 * 7 }}"})
    adata.obs_names = [f"{evil}{i}" for i in range(36)]
    adata.var_names = [f"g{i}{evil}" for i in range(50)]
    adata.obs.loc[adata.obs_names[:3], "age"] = np.nan
    bc.pp.combat(adata, "batch", key_added=evil)
    page = report(adata, title=evil, test=evil)
    scripts = [attrs for tag, attrs in page.tags if tag == "script"]
    assert scripts == [{"type": "application/json", "id": "data"}, {}]
    assert not [tag for tag, _ in page.tags if tag == "img"]
    assert "</script><script>alert" in page.text
    assert "\u202e" not in page.text
    assert "49" not in page.data["columns"][1]["levels"]


def test_of_many_samples_some_of_every_batch_are_evaluated(adata, monkeypatch):
    monkeypatch.setattr("batchcorr._report.scores.MOST_SAMPLES", 10)
    monkeypatch.setattr("batchcorr._report.scores.LEAST", 3)
    rows = _drawn(adata.obs["batch"])
    assert len(set(rows)) == 10
    assert adata.obs["batch"].iloc[rows].value_counts().min() >= 3


def test_a_correction_without_a_record_is_said_and_not_tested(adata, tmp_path):
    bc.pp.remove_batch_effect(adata, "batch")
    del adata.uns["batchcorr"]
    about = {"batch_key": "batch", "covariates": ["group"], "test": "group"}
    bc.report(adata, tmp_path / "page.html", **about)
    page = Page((tmp_path / "page.html").read_text("utf-8"))
    assert "look corrected already, though no record" in page.text
    assert "look corrected already, and corrected ones are not tested" in page.text
    assert "Nothing was corrected yet: " not in page.text
    assert "were tested on values" not in page.text
