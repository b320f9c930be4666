"""Messages speak of options and files: every message of the package is looked at."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import batchcorr
from batchcorr.cli.words import as_typed
from tests.cli.commands import done, refused

ROOT = Path(batchcorr.__file__).parent

PYTHON = re.compile(
    r"batchcorr\.\w|\bbc\.|\badata\b|\bbatch_key\b|\bkey_added\b|\bvar_names\b|"
    r"(?<!set )\b[a-z_]+=(?![\w<])|\b(np|pandas|pd)\.|\best\.|\bestimator\b|\.astype|"
    r"(?<!--set )\b[a-z_]+=(True|False)|\bDataFrame\b|`"
)
"""Words of the functions, which nobody types on the command line."""

NOT_OF_COMMANDS = ("bridge", "cli", "datasets", "metrics", "pl", "pp", "tl")

OF_PYTHON = (
    "The estimators take matrices, not an AnnData",
    "The first argument must be an AnnData",
    "This AnnData is in backed mode",
    "adata is a view of another AnnData",
    "This Dask array",
    "A Dask array cannot be changed in place",
    "The data must be a matrix",
    "The data must be real numbers",
    "The data must be in memory",
    "correction must be a fitted estimator",
    "The correction was not fitted to an AnnData",
    "is not a location-scale method, so that its result",
    "is not an index of",
    "needs the batch of each sample: give batch=",
    "batch_column and covariate_columns name columns",
    "The features are in another order than in fit",
    "The index of",
    "table has an index that does not match",
    "must be a DataFrame, a Series or an array",
    "given as an array must be a 2-D array",
    "needs the columns of a DataFrame",
    "needs a table with the columns that it names",
    "were a DataFrame in fit",
    "partial_fit",
    "The first call declared",
    "Each site must be a SiteMoments",
    "A schema needs a list of feature names",
    "must be text, such as units=",
    "Counts are corrected on the CPU, not in a",
    "needs the batch of each sample: give batch= to fit",
    "fit(X)",
    "pandas.read_csv",
    "prior_count needs the mean library size",
    "is a normalization and does not correct batches",
    "To leave out samples with missing labels, subset first",
    "estimates columns for nuisance= and does not correct values",
    "Give layer= or obsm=, not both",
    "different permutations of the tested column within batches",
    r"| [^\W\d]",
)
"""Messages about what only callers in Python can give: arrays, tables, other objects."""


def text_of(node):
    """The text of a message in the source, with <> for what is filled in."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else "<>"
    if isinstance(node, ast.JoinedStr):
        return "".join(map(text_of, node.values))
    if isinstance(node, ast.BinOp):
        return text_of(node.left) + text_of(node.right)
    return "<>"


def messages():
    """Every sentence of the package that is no docstring, with its place."""
    for path in sorted(ROOT.rglob("*.py")):
        inner = path.relative_to(ROOT)
        if inner.parts[0] in NOT_OF_COMMANDS:
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        skipped = {
            id(part)
            for node in ast.walk(tree)
            if isinstance(node, ast.Expr)
            for part in ast.walk(node.value)
            if isinstance(node.value, ast.Constant)
        }
        for node in ast.walk(tree):
            if id(node) in skipped:
                continue
            if isinstance(node, ast.JoinedStr | ast.Constant | ast.BinOp):
                skipped |= {id(part) for part in ast.walk(node)}
                text = text_of(node)
                if len(text.split()) > 3:
                    yield f"{inner}:{node.lineno}", text


def test_every_message_can_be_followed_on_the_command_line():
    found = dict(messages())
    assert len(found) > 200
    foreign = {
        place: as_typed(text)
        for place, text in found.items()
        if PYTHON.search(as_typed(text)) and not any(one in text for one in OF_PYTHON)
    }
    assert not foreign


@pytest.mark.parametrize(
    ("message", "wanted"),
    [
        ("only x, with nuisance=. Y", "only x, with --nuisance. Y"),
        ("batch_key must name the column", "--batch must name the column"),
        ("keep them by giving key_added=.", "keep them by giving --key-added."),
        ("give nuisance= with the columns 'a'", "give --nuisance with the columns 'a'"),
        ("with mean_only=True or RemoveBatchEffect", "with --set mean_only=True or --method remove_batch_effect"),
        ("or give dense=True to make", "or give --dense to make"),
        ("Use method='poscounts', which", "Use --log-normalize=poscounts, which"),
        ("use batchcorr.pp.quantile_normalize.", "use --quantile-normalize."),
        ("'x' is not a column of adata.obs. Did", "'x' is not a column of obs. Did"),
        ("batchcorr.tl.differential(adata, batch_key, 'my group').", "batchcorr test … --test 'my group'."),
        ("Keep it: covariates=['cancer']; and", "Keep it: --covariate 'cancer'; and"),
        ("a batch called batch=1 stays", "a batch called batch=1 stays"),
    ],
)  # fmt: skip
def test_words_of_options(message, wanted):
    assert as_typed(message) == wanted


def test_raw_counts_are_told_what_to_do(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    names = [f"s{i}" for i in range(12)]
    pd.DataFrame(rng.negative_binomial(5, 0.01, (30, 12)), columns=names).to_csv(
        "c.csv"
    )
    sheet = pd.DataFrame(
        {"batch": list("ab") * 6, "age": rng.uniform(20, 60, 12)}, names
    )
    sheet.to_csv("s.csv")
    options = ["--samples", "s.csv", "--batch", "batch"]
    said = done("correct", "c.csv", "o.csv", *options, "--covariate", "age")
    assert "take logarithms first, with --log-normalize, or correct" in said.stderr
    assert "keeping age (numeric)" in said.stdout
    sheet.loc["s2", "batch"] = None
    sheet.to_csv("s.csv")
    assert "s2" in refused("correct", "c.csv", "p.csv", *options, "--log-normalize")
