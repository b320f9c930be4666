"""`batchcorr evaluate`: what is left of batch, as text and as JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import batchcorr as bc
from tests.cli.commands import SHEET, done, refused


@pytest.mark.usefixtures("tables")
def test_a_file_and_a_table_are_evaluated_alike_and_as_in_python(adata):
    scores = []
    for k, source in enumerate([["in.h5ad"], ["in.csv", *SHEET]]):
        options = ["--batch", "day", "--labels", "group", "--json", f"{k}.json"]
        said = done("evaluate", *source, *options).stdout
        assert "batch_predicted" in said
        scores.append(json.loads(Path(f"{k}.json").read_text("utf-8"))["scores"]["X"])
    found = bc.tl.evaluate(adata, "day", labels="group")
    for name, value in found.scores.loc["X"].items():
        for one in scores:
            assert one[name]["value"] == pytest.approx(value, abs=1e-6, nan_ok=True)


@pytest.mark.usefixtures("tables")
def test_layers_are_compared_and_what_is_lost_is_told_as_it_is_typed(adata):
    changed = adata.X.copy()
    changed[:8, ::2] *= 0.05
    adata.layers["changed"] = changed
    adata.write_h5ad("two.h5ad")
    layers = ["--layer", "X", "--layer", "changed"]
    said = " ".join(
        done("evaluate", "two.h5ad", "--batch", "day", *layers).stdout.split()
    )
    assert "'changed' changes differences" in said
    assert "--method remove_batch_effect does not change them" in said


@pytest.mark.usefixtures("tables")
@pytest.mark.parametrize(
    ("options", "words", "code"),
    [
        (["--batch", "dya"], "Did you mean 'day'", 1),
        (["--batch", "day", "--labels", "grp"], "Did you mean 'group'", 1),
        (["--batch", "day", "--layer", "logs"], "no layer 'logs'", 1),
        (["--batch", "day", "--embedding", "X_pca"], "no embedding 'X_pca'", 1),
        (["--batch", "day", "--json", "scores.txt"], ".json", 2),
        ([], "--batch", 2),
    ],
)
def test_what_is_refused(options, words, code):
    said = refused("evaluate", "in.h5ad", *options, code=code)
    assert words in " ".join(str(said).split())
