"""Working folders with the same data as AnnData, and as table and sheet."""

from __future__ import annotations

import pytest

import batchcorr as bc
from tests.cli.commands import (
    make_samples,
    put,
)


@pytest.fixture(scope="session")
def bladder():
    return bc.datasets.bladder()[:, :60].copy()


@pytest.fixture
def folder(bladder, tmp_path, monkeypatch):
    """A working folder with the bladder data in `in.h5ad`."""
    bladder.write_h5ad(tmp_path / "in.h5ad")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def adata():
    return make_samples()


@pytest.fixture
def tables(adata, tmp_path, monkeypatch):
    """A working folder with the same data as AnnData, and as table and sheet."""
    monkeypatch.chdir(tmp_path)
    adata.write_h5ad("in.h5ad")
    put(tmp_path / "in.csv", adata)
    adata.obs.iloc[::-1].to_csv("sheet.csv")
    return tmp_path
