"""Whatever happens, files are whole or as they were."""

from __future__ import annotations

import re
import signal
import time
from pathlib import Path

import anndata
import numpy as np
import pytest

import batchcorr as bc
from batchcorr._files.atomic import replacing, replacing_folder
from batchcorr.errors import FileError
from tests.cli.commands import (
    LIMITED,
    done,
    make_samples,
    names_in,
    needs_posix,
    read,
    shell,
)


def slow(target):
    return pytest.param(target, marks=pytest.mark.slow)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
def test_force_replaces_files_and_stores(folder, bladder):
    (folder / "out.h5ad").write_text("old")
    bladder.write_zarr(folder / "out.zarr")
    (folder / "out.zarr" / "old").write_text("old")
    for target in ("out.h5ad", "out.zarr"):
        done("correct", "in.h5ad", target, "--batch", "batch", "--force")
        assert read(folder / target).shape == bladder.shape
    assert not (folder / "out.zarr" / "old").exists()
    assert names_in(folder) == ["in.h5ad", "out.h5ad", "out.zarr"]


@needs_posix
@pytest.mark.parametrize("target", [slow("out.h5ad"), slow("out.zarr"), "c.npz"])
def test_a_full_disk_is_one_line_and_leaves_the_old_file(folder, target):
    x = np.random.default_rng(0).normal(size=(60, 400))
    data = anndata.AnnData(x, layers={"more": x})
    data.obs["batch"] = ["a", "b", "c"] * 20
    data.write_h5ad(folder / "in.h5ad")
    if target != "out.zarr":
        (folder / target).write_text("old")
    before = names_in(folder)
    bc.pp.combat(data, "batch", copy=True)  # so that compiled kernels are on the disk
    command = "fit" if target == "c.npz" else "correct"
    options = ["--batch", "batch", "--force"]
    process = shell(command, "in.h5ad", target, *options, cwd=folder, code=LIMITED)
    out, err = process.communicate()
    assert process.returncode == 1
    assert out == ""
    lines = err.splitlines()
    assert len(lines) == 1
    assert re.match(f"Error: {target} could not be written.*: File too large", lines[0])
    assert names_in(folder) == before
    if target != "out.zarr":
        assert (folder / target).read_text() == "old"


@needs_posix
@pytest.mark.parametrize("target", ["out.h5ad", slow("out.zarr")])
def test_ctrl_c_in_the_midst_of_writing(folder, target):
    x = np.random.default_rng(0).normal(size=(1500, 800)).astype(np.float32)
    layers = dict.fromkeys(("one", "two", "three"), x)
    data = anndata.AnnData(x, layers=layers)
    data.obs["batch"] = ["a", "b", "c"] * 500
    data.write_h5ad(folder / "in.h5ad")
    options = ["--batch", "batch", "--compress"]
    process = shell("correct", "in.h5ad", target, *options, cwd=folder)
    while process.poll() is None and not written(folder) > 100_000:
        time.sleep(0.001)
    process.send_signal(signal.SIGINT)
    time.sleep(0.02)
    process.send_signal(signal.SIGINT)  # people press it twice
    out, err = process.communicate()
    assert process.returncode == 130, err
    assert out == ""
    assert err == "Stopped: no file was partly written.\n"
    assert names_in(folder) == ["in.h5ad"]


def written(folder):
    """Return how many bytes have been written beside the target."""
    total = 0
    for part in folder.glob(".out-*"):
        for path in (part, *part.rglob("*")):
            try:
                total += path.stat().st_size
            except OSError:  # renamed or deleted meanwhile
                continue
    return total


def test_a_folder_is_put_back_if_the_new_one_does_not_come(tmp_path, monkeypatch):
    target = tmp_path / "out.zarr"
    target.mkdir()
    (target / "old").write_text("old")
    rename = Path.rename

    def fail(self, to):
        if to == target and self.suffix != ".old":
            raise PermissionError
        return rename(self, to)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(PermissionError), replacing_folder(target) as part:
        (part / "new").write_text("new")
    assert names_in(tmp_path) == ["out.zarr"]
    assert (target / "old").read_text() == "old"


@pytest.mark.parametrize("begin", [replacing, replacing_folder])
def test_an_error_while_writing_leaves_nothing(tmp_path, begin):
    with pytest.raises(KeyboardInterrupt), begin(tmp_path / "out.zarr"):
        raise KeyboardInterrupt
    assert names_in(tmp_path) == []
    with pytest.raises(FileError, match="cannot be written"):
        begin(tmp_path / "none" / "out.zarr").__enter__()


@needs_posix
@pytest.mark.slow
@pytest.mark.parametrize("target", ["out.csv", "out.tsv.gz"])
def test_a_full_disk_leaves_the_old_table(tables, target):
    (tables / target).write_text("old")
    x = np.random.default_rng(0).normal(size=(24, 200))
    large = anndata.AnnData(x, obs=make_samples().obs)
    large.write_h5ad(tables / "in.h5ad")
    bc.pp.combat(large, "day", copy=True)  # so that compiled kernels are on the disk
    before = names_in(tables)
    command = ["correct", "in.h5ad", target, "--batch", "day", "--force"]
    process = shell(*command, cwd=tables, code=LIMITED)
    out, err = process.communicate()
    assert (process.returncode, out) == (1, "")
    assert err == f"Error: {target} could not be written and is unchanged: File too large.\n"  # fmt: skip
    assert names_in(tables) == before
    assert (tables / target).read_text() == "old"


@needs_posix
@pytest.mark.slow
@pytest.mark.parametrize("target", ["out.csv", "out.csv.gz"])
def test_ctrl_c_in_the_midst_of_a_table(tables, target):
    x = np.random.default_rng(0).normal(size=(4500, 800))
    large = anndata.AnnData(x)
    large.obs["day"] = ["a", "b", "c"] * 1500
    large.write_h5ad(tables / "in.h5ad")
    before = names_in(tables)
    process = shell("correct", "in.h5ad", target, "--batch", "day", cwd=tables)
    while process.poll() is None and not any(
        part.stat().st_size > 50_000 for part in tables.glob(".out*")
    ):
        time.sleep(0.001)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate()
    assert process.returncode == 130, err
    assert (out, err) == ("", "Stopped: no file was partly written.\n")
    assert names_in(tables) == before
