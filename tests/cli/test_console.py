"""What reaches the terminal: one line a message, and nothing that steers it."""

from __future__ import annotations

import anndata
import numpy as np
import pytest

from batchcorr.cli import console
from tests.cli.commands import done, refused

ESCAPE = "\x1b[31m"


@pytest.fixture
def hostile(tmp_path, monkeypatch):
    """Files whose names, labels, columns and features hold escape sequences."""
    monkeypatch.chdir(tmp_path)
    x = np.random.default_rng(0).normal(5, 1, (60, 12))
    data = anndata.AnnData(x)
    data.var_names = [f"{ESCAPE}[bold]g{i}" for i in range(12)]
    data.obs[f"{ESCAPE}batch"] = [f"{ESCAPE}a\nError: b", f"b\u202e{ESCAPE}"] * 30
    data.write_h5ad(f"{ESCAPE}in.h5ad")
    data[:, :11].copy().write_h5ad("few.h5ad")
    return tmp_path


@pytest.mark.usefixtures("hostile")
def test_no_escape_sequence_reaches_the_terminal():
    source, batch = f"{ESCAPE}in.h5ad", ["--batch", f"{ESCAPE}batch"]
    said = [
        done("correct", source, f"{ESCAPE}out.h5ad", *batch),
        done("fit", source, "c.npz", *batch),
        done("schema", source, "-o", "s.json", *batch, "--units", f"{ESCAPE}u"),
    ]
    text = "".join(result.stdout + result.stderr for result in said)
    text += refused("apply", "c.npz", "few.h5ad", "o.h5ad")
    text += refused("correct", source, "o.h5ad", "--batch", ESCAPE)
    text += refused("correct", source, f"{ESCAPE}o.xls", *batch, code=2)
    text += refused("correct", source, "o.h5ad", ESCAPE, code=2)
    text += refused(f"--{ESCAPE}", code=2)
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "␛[31m" in text
    assert "[bold]g11" in text  # and rich's markup is no markup
    assert not any(line.startswith("Error: b") for line in text.splitlines())


def test_what_is_drawn_in_color_is_still_safe(monkeypatch, capsys):
    monkeypatch.setattr(console.out, "_color_system", 1)
    monkeypatch.setattr(console.out, "_force_terminal", True)
    console.say(remark=f"{ESCAPE}a")
    assert capsys.readouterr().out == "\x1b[2m␛[31ma\x1b[0m\n"
