"""Run commands and look at what they leave, for all tests of the command line."""

from __future__ import annotations

import csv
import gzip
import os
import re
import subprocess
import sys
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from batchcorr.cli import app
from batchcorr.cli.dialects import Given
from batchcorr.cli.tables import read_table, to_numbers

ROOT = Path(__file__).resolve().parents[2]


needs_posix = pytest.mark.skipif(os.name != "posix", reason="signals and limits differ")


LIMITED = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
from batchcorr.cli import app
app()
"""


KEEP = ["--batch", "day", "--covariate", "group"]


SHEET = ["--samples", "sheet.csv"]


def batchcorr(*arguments):
    return CliRunner().invoke(app, list(map(str, arguments)))


def done(*arguments):
    """Run a command that must succeed; return what it printed."""
    result = batchcorr(*arguments)
    assert result.exit_code == 0, result.output
    assert result.exception is None
    return result


def refused(*arguments, code=1):
    """Run a command that must fail with one error line; return the line."""
    result = batchcorr(*arguments)
    assert result.exit_code == code, result.output
    assert isinstance(result.exception, SystemExit)
    assert result.stdout == ""
    if code == 1:
        lines = result.stderr.splitlines()
        assert [line[:7] for line in lines if "Warning" not in line] == ["Error: "]
        return lines[-1]
    return " ".join(re.sub("[│╭╮╰╯─]", " ", result.stderr).split())


def shell(
    *arguments, cwd, code="from batchcorr.__main__ import main; main()", **options
):
    """Start a command in a process of its own."""
    search = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": search},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        **options,
    )


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def read(path):
    return (anndata.read_zarr if path.suffix == ".zarr" else anndata.read_h5ad)(path)


def read_numbers(path, **given):
    """The numbers of a table, as the commands read them."""
    return to_numbers(path, read_table(path, Given(**given)))


def make_samples():
    """Values with every digit in use, labels of both kinds, samples in no order."""
    rng = np.random.default_rng(0)
    adata = anndata.AnnData(
        rng.normal(8, 2, (24, 30)) / 3,
        obs=pd.DataFrame(
            {"day": [1, 2, 10] * 8, "group": np.resize(list("abba"), 24)},
            index=[f"s {i}" for i in rng.permutation(24)],
        ),
        var=pd.DataFrame(index=[f"g{i}" for i in range(30)]),
    )
    adata.obs["age"] = np.linspace(20, 80, 24)[rng.permutation(24)]
    return adata


def put(path, adata, *, x=None, in_columns=True, quote=csv.QUOTE_MINIMAL, r=False):
    """Write a table as pandas does, or as R's write.table, which leaves the corner out."""
    x = adata.X if x is None else x
    frame = pd.DataFrame(x, adata.obs_names, adata.var_names)
    frame = frame.T if in_columns else frame
    separator = {"csv": ",", "tsv": "\t", "txt": " "}[path.name.split(".")[1]]
    text = frame.to_csv(sep=separator, quoting=quote, na_rep="NA")
    text = text.partition(separator)[2] if r else text
    packed = path.suffix == ".gz"
    path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
