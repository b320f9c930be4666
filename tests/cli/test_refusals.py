"""Errors are one line, leave nothing, and have exit codes."""

from __future__ import annotations

import re

import pytest

from tests.cli.commands import (
    batchcorr,
    done,
    names_in,
    refused,
    shell,
)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (["none.h5ad", "o.h5ad"], "There is no file none.h5ad"),
        (["text.h5ad", "o.h5ad"], "text.h5ad cannot be read: it is no HDF5 file"),
        (["cut.h5ad", "o.h5ad"], "damaged or incomplete .*truncated file"),
        (["spoilt.h5ad", "o.h5ad"], "spoilt.h5ad cannot be read"),
        (["empty.zarr", "o.h5ad"], "empty.zarr cannot be read: it is no zarr store"),
        (["folder.h5ad", "o.h5ad"], "folder.h5ad is a folder"),
        (["file.zarr", "o.h5ad"], "file.zarr is no folder"),
        (["in.h5ad", "in.h5ad", "--force"], "is also the input"),
        (["in.h5ad", "link.h5ad", "--force"], "is also the input"),
        (["in.h5ad", "hard.h5ad", "--force"], "is also the input"),
        (["./in.h5ad", "x/../in.h5ad", "--force"], "is also the input"),
        (["in.h5ad", "text.h5ad"], "text.h5ad exists already.*--force"),
        (["in.h5ad", "empty.zarr"], "exists already"),
        (["in.h5ad", "x.zarr", "--force"], "not a zarr store: --force does not delete"),
        (["in.h5ad", "folder.h5ad", "--force"], "folder.h5ad is a folder"),
        (["in.h5ad", "none/o.h5ad"], "there is no folder"),
        (["in.h5ad", "text.h5ad/o.h5ad"], "there is no folder"),
        (["in.h5ad", "in.h5ad/o.h5ad"], "are inside each other"),
        (["in.h5ad", "o.h5ad", "--layer", "raw"], "There is no layer 'raw'"),
        (["in.h5ad", "o.h5ad", "--covariate", "canser"], "Did you mean 'cancer'"),
        (["in.h5ad", "o.h5ad", "--reference", "9"], "'9' is not one of the batches"),
        (
            ["in.h5ad", "o.h5ad", "--nuisance", "outcome", "--method", "standardize"],
            "has no nuisance",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_errors_are_one_line_and_leave_nothing(folder, arguments, match):
    whole = (folder / "in.h5ad").read_bytes()
    (folder / "cut.h5ad").write_bytes(whole[: len(whole) // 2])
    spoilt = bytearray(whole)
    spoilt[2000 : len(whole) - 2000] = bytes(len(whole) - 4000)
    (folder / "spoilt.h5ad").write_bytes(spoilt)
    (folder / "text.h5ad").write_text("sample,gene\n1,2\n")
    (folder / "file.zarr").write_text("no store")
    for name in ("empty.zarr", "folder.h5ad", "x.zarr/x", "x"):
        (folder / name).mkdir(parents=True)
    (folder / "link.h5ad").symlink_to("in.h5ad")
    (folder / "hard.h5ad").hardlink_to("in.h5ad")
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    line = refused("correct", *arguments, "--batch", "batch")
    assert re.search(match, line), line
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (["correct", "in.h5ad"], "Missing argument"),
        (
            ["correct", "in.xls", "o.h5ad", "--batch", "batch"],
            "must end in .h5ad, .zarr",
        ),
        (
            ["correct", "in.h5ad", "o.gz", "--batch", "batch"],
            "must end in .h5ad, .zarr",
        ),
        (["fit", "in.h5ad", "c.h5ad", "--batch", "batch"], "c.h5ad must end in .npz"),
        (["fit", "in.h5ad", "-o", "c.txt", "--batch", "batch"], "must end in .npz"),
        (
            ["fit", "in.h5ad", "--batch", "batch"],
            "in.h5ad is the only file given: name the",
        ),
        (
            ["fit", "c.npz"],
            "c.npz is the only file given: name the correction to write",
        ),
        (
            ["fit", "in.xls", "c.npz", "--batch", "batch"],
            "in.xls must end in .h5ad, .zarr",
        ),
        (
            ["fit", "in.h5ad", "in.zarr", "c.npz", "--batch", "batch"],
            "IN: in.h5ad, in.zarr are 2 files of samples.*anndata.concat.*moments",
        ),
        (
            ["fit", "a.npz", "in.h5ad", "-o", "c.npz", "--batch", "batch"],
            "IN: in.h5ad contains samples, but .npz files contain moments.*batchcorr moments",
        ),
        (
            ["fit", "a.npz", "c.npz", "--batch", "batch"],
            "--batch: .*schema defines batch",
        ),
        (
            ["fit", "a.npz", "c.npz", "--covariate", "x"],
            "--covariate: .*schema defines batch",
        ),
        (
            ["fit", "a.npz", "c.npz", "--formula", "~ x"],
            "--formula: .*schema defines batch",
        ),
        (
            ["fit", "a.npz", "c.npz", "--nuisance", "x"],
            "--nuisance: .*schema defines batch",
        ),
        (["fit", "a.npz", "c.npz", "--layer", "x"], "--layer: .*schema defines batch"),
        (
            ["fit", "a.npz", "c.npz", "--samples", "s.csv"],
            "--samples: .*schema defines batch",
        ),
        (["fit", "a.npz", "b.npz", "--force"], "with --force give the correction with"),
        (["correct", "in.h5ad", "o.h5ad"], "--batch: combat needs the column"),
        (["correct", "in.h5ad", "o.h5ad", "--method", "x"], "--method: .*'combat'"),
        (["--set", "mean_onyl=1"], "no parameter 'mean_onyl'. Did you mean"),
        (["--set", "formula=~x"], "no parameter 'formula'.*'mean_only'"),
        (["--set", "mean_only"], "must be NAME=VALUE"),
        (["--set", "mean_only=perhaps"], "must be true or false, not 'perhaps'"),
        (["--formula", "~ a", "--covariate", "cancer"], "either --formula or"),
        (["--method", "remove_batch_effect", "--reference", "5"], "no parameter"),
        (
            ["--method", "log_normalize"],
            "a normalization before correction: give --log-normalize",
        ),
        (["--frobnicate"], "No such option"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_usage_is_exit_code_2(folder, arguments, match):
    if arguments[0].startswith("--"):
        arguments = ["correct", "in.h5ad", "o.h5ad", "--batch", "batch", *arguments]
    said = refused(*arguments, code=2)
    assert re.search(match, said), said
    assert names_in(folder) == ["in.h5ad"]


def test_apply_refuses_what_is_no_correction(folder):
    (folder / "text.npz").write_text("nothing")
    assert "not a correction" in refused("apply", "text.npz", "in.h5ad", "o.h5ad")
    assert "no file none.npz" in refused("apply", "none.npz", "in.h5ad", "o.h5ad")
    done("fit", "in.h5ad", "c.npz", "--batch", "batch")
    assert "exists already" in refused("fit", "in.h5ad", "c.npz", "--batch", "batch")
    done("fit", "in.h5ad", "c.npz", "--batch", "batch", "--force")


def test_exit_codes_reach_the_shell(folder):
    for arguments, code in (
        (["correct", "none.h5ad", "o.h5ad", "--batch", "batch"], 1),
        (["correct"], 2),
    ):
        process = shell(*arguments, cwd=folder)
        _, err = process.communicate()
        assert process.returncode == code
        assert "Traceback" not in err


@pytest.mark.usefixtures("folder")
def test_a_bug_shows_its_traceback(monkeypatch):
    monkeypatch.setattr("batchcorr.pp.correct", lambda *_, **__: 1 / 0)
    result = batchcorr("correct", "in.h5ad", "o.h5ad", "--batch", "batch")
    assert isinstance(result.exception, ZeroDivisionError)


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("where", [0, 1, 3, 99])
def test_debug_shows_where_an_error_comes_from(where):
    command = ["correct", "in.h5ad", "o.h5ad", "--batch", "btch"]
    line = refused(*command)
    command.insert(where, "--debug")
    result = batchcorr(*command)
    assert (result.exit_code, result.stdout) == (1, "")
    lines = result.stderr.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert any("labels.py" in each for each in lines)
    assert lines[-1] == line
    assert batchcorr("methods", "--debug").exit_code == 0
    assert refused(*(each for each in command if each != "--debug")) == line
