"""The demo: real data, and what combat gives."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import numpy as np
import pytest

import batchcorr as bc
from batchcorr._anndata import records
from tests.cli.commands import (
    ROOT,
    done,
    names_in,
    read,
    refused,
)


@pytest.mark.slow
def test_demo_from_the_shell(tmp_path):
    process = subprocess.run(
        [sys.executable, "-m", "batchcorr", "demo"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "80"},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert process.returncode == 0, process.stderr
    assert process.stderr == ""
    lines = process.stdout.splitlines()
    assert len(lines) <= 35
    assert max(map(len, lines)) <= 80
    assert "\x1b" not in process.stdout
    assert names_in(tmp_path) == [
        "bladder_corrected.h5ad",
        "bladder_corrected.html",
    ]


@pytest.mark.slow
def test_demo_writes_what_combat_gives(folder):
    (folder / "bladder_corrected.h5ad").write_text("an earlier one")
    said = done("demo").stdout
    assert "strongly associated with batch (0.78" in said
    assert re.search(r"batch, beyond cancer +16% +-7%", said)
    corrected, plain = read(folder / "bladder_corrected.h5ad"), bc.datasets.bladder()
    np.testing.assert_array_equal(corrected.layers["uncorrected"], plain.X)
    with pytest.warns(bc.errors.AssociationWarning):
        bc.pp.combat(plain, "batch", covariates="cancer")
    np.testing.assert_array_equal(corrected.X, plain.X)
    assert records.read(corrected, "X")["kept"] == ["cancer"]
    assert re.search("exists already", refused("demo", "--output", "in.h5ad"))
    (folder / "free.html").write_text("mine")
    assert "free.html exists" in refused("demo", "--output", "free.h5ad")
    assert (folder / "free.html").read_text() == "mine"
    assert "Wrote in.h5ad" in done("demo", "--output", "in.h5ad", "--force").stdout
