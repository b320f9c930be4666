"""The command line, on real files: what it writes, what it says, what it never leaves."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from typer.testing import CliRunner

import batchcorr as bc
from batchcorr._anndata.matrices import read_record
from batchcorr._files.atomic import replacing, replacing_folder
from batchcorr.cli import app
from batchcorr.errors import FileError
from batchcorr.methods import registry

ROOT = Path(__file__).resolve().parents[2]

needs_posix = pytest.mark.skipif(os.name != "posix", reason="signals and limits differ")


@pytest.fixture(scope="session")
def bladder():
    return bc.datasets.bladder()[:, :60].copy()


@pytest.fixture
def folder(bladder, tmp_path, monkeypatch):
    """A working folder with the bladder data in `in.h5ad`."""
    bladder.write_h5ad(tmp_path / "in.h5ad")
    monkeypatch.chdir(tmp_path)
    return tmp_path


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


def shell(*arguments, cwd, code="from batchcorr.cli import app; app()", **options):
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


# -- demo --------------------------------------------------------------------------


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
    assert names_in(tmp_path) == ["bladder_corrected.h5ad"]


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
    assert read_record(corrected, None)["kept"] == ["cancer"]
    assert re.search("exists already", refused("demo", "--output", "in.h5ad"))
    assert "Wrote in.h5ad" in done("demo", "--output", "in.h5ad", "--force").stdout


# -- correct, fit, apply -------------------------------------------------------------


@pytest.mark.parametrize("target", ["out.h5ad", "out.zarr"])
@pytest.mark.parametrize("source", ["in.h5ad", "in.zarr"])
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
def test_correct_equals_the_function(folder, bladder, source, target):
    if source == "in.zarr":
        bladder.write_zarr(folder / source)
    said = done("correct", source, target, "--batch", "batch", "--covariate", "cancer")
    assert f"Wrote {target}: 57 samples × 60 features" in said.stdout
    assert "not for differential testing" in said.stdout
    assert said.stderr.startswith("Warning: 'cancer' is strongly associated")
    assert len(said.stderr.splitlines()) == 1
    wanted = bc.pp.combat(bladder, "batch", covariates="cancer", copy=True)
    found = read(folder / target)
    np.testing.assert_array_equal(found.X, wanted.X)
    assert found.obs.equals(wanted.obs)
    assert read_record(found, None) == read_record(wanted, None)


@pytest.mark.filterwarnings("ignore::batchcorr.errors.BatchCorrWarning")
@pytest.mark.parametrize(
    ("options", "parameters"),
    [
        (["--reference", "5"], {"reference": "5"}),
        (["--formula", "~ cancer"], {"covariates": "~ cancer"}),
        (["--formula", "cancer"], {"covariates": "~ cancer"}),
        (["--set", "mean_only=true"], {"mean_only": True}),
        (["--set", "mean-only=yes", "--set", "parametric=0"], "both"),
        (["--method", "standardize", "--set", "target=unit"], "unit"),
        (
            ["--method", "remove_batch_effect", "--nuisance", "age", "--batch", "site"],
            "nuisance",
        ),
        (["--key-added", "new"], {"key_added": "new"}),
        (["--layer", "log"], {"layer": "log"}),
        (["--compress"], {}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_options_are_the_function_s_parameters(folder, bladder, options, parameters):
    bladder = bladder.copy()
    bladder.obs["age"] = np.linspace(20, 80, 57)[np.arange(57) * 5 % 57]
    bladder.obs["site"] = np.where(np.arange(57) % 2, "a", "b")
    bladder.layers["log"] = bladder.X**2
    bladder.write_h5ad(folder / "in.h5ad")
    more = {
        "both": {"mean_only": True, "parametric": False},
        "unit": {"method": "standardize", "target": "unit"},
        "nuisance": {
            "batch_key": ["batch", "site"],
            "method": "remove_batch_effect",
            "nuisance": ["age"],
        },
    }
    given = {"batch_key": "batch", "method": "combat"}
    given |= more[parameters] if isinstance(parameters, str) else parameters
    done("correct", "in.h5ad", "out.h5ad", "--batch", "batch", *options)
    wanted = bc.pp.correct(bladder, copy=True, **given)
    found = read(folder / "out.h5ad")
    np.testing.assert_array_equal(found.X, wanted.X)
    assert set(found.layers) == set(wanted.layers)
    for layer in found.layers:
        np.testing.assert_array_equal(found.layers[layer], wanted.layers[layer])


@pytest.mark.parametrize(
    "method",
    [name for name, kind in sorted(registry().items()) if not kind.record.normalizes],
)
def test_every_method_of_the_registry_runs(folder, method):
    counts = np.random.default_rng(0).negative_binomial(5, 0.2, size=(24, 30))
    data = anndata.AnnData(counts.astype(np.float32))
    data.obs["batch"] = ["a", "b"] * 12
    data.write_h5ad(folder / "in.h5ad")
    options = ["--batch", "batch", "--method", method]
    done("correct", "in.h5ad", "whole.h5ad", *options)
    done("fit", "in.h5ad", "c.npz", *options)
    done("apply", "c.npz", "in.h5ad", "applied.h5ad")
    whole, applied = (read(folder / f"{name}.h5ad").X for name in ("whole", "applied"))
    np.testing.assert_array_equal(applied, whole)
    assert not np.array_equal(whole, counts)


def test_fit_and_apply_equal_correct(folder, bladder):
    keep = ["--batch", "batch", "--covariate", "cancer"]
    done("correct", "in.h5ad", "whole.h5ad", *keep)
    assert "Wrote c.npz: combat" in done("fit", "in.h5ad", "c.npz", *keep).stdout
    done("fit", "in.h5ad", *keep, "-o", "o.npz")
    one, other = (bc.load(name) for name in ("c.npz", "o.npz"))
    np.testing.assert_array_equal(one.correction_.scale, other.correction_.scale)
    done("apply", "c.npz", "in.h5ad", "applied.h5ad")
    whole = read(folder / "whole.h5ad").X
    np.testing.assert_array_equal(read(folder / "applied.h5ad").X, whole)

    bladder[40:].copy().write_h5ad(folder / "new.h5ad")  # other samples, other name
    done("apply", "c.npz", "new.h5ad", "new_out.h5ad", "--key-added", "corrected")
    found = read(folder / "new_out.h5ad")
    np.testing.assert_array_equal(found.X, bladder.X[40:])
    np.testing.assert_allclose(found.layers["corrected"], whole[40:], rtol=1e-12)


def test_apply_finds_batches_in_another_column(folder, bladder):
    done("fit", "in.h5ad", "c.npz", "--batch", "batch", "--method", "standardize")
    other = bladder.copy()
    other.obs = other.obs.rename(columns={"batch": "day"})
    other.write_h5ad(folder / "other.h5ad")
    line = refused("apply", "c.npz", "other.h5ad", "out.h5ad")
    assert "'batch' is not a column" in line
    done("apply", "c.npz", "other.h5ad", "out.h5ad", "--batch", "day")
    wanted = bc.pp.standardize(bladder, "batch", copy=True)
    np.testing.assert_allclose(read(folder / "out.h5ad").X, wanted.X, rtol=1e-12)


def test_counts_are_logged_and_corrected_in_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    counts = rng.negative_binomial(4, 0.05, (24, 30)).astype(np.float32)
    obs = pd.DataFrame(
        {"batch": ["a", "b", "c"] * 8}, index=[f"s{i}" for i in range(24)]
    )
    adata = anndata.AnnData(counts.copy(), obs=obs)
    adata.write_h5ad("in.h5ad")
    done("correct", "in.h5ad", "out.h5ad", "--batch", "batch", "--log-normalize")
    found = read(tmp_path / "out.h5ad")
    bc.pp.log_normalize(adata)
    bc.pp.combat(adata, "batch")
    np.testing.assert_array_equal(found.X, adata.X)
    done(
        "correct",
        "in.h5ad",
        "k.h5ad",
        "--batch",
        "batch",
        "--log-normalize",
        "--key-added",
        "corrected",
    )
    beside = read(tmp_path / "k.h5ad")
    np.testing.assert_array_equal(beside.X, counts)
    np.testing.assert_array_equal(beside.layers["corrected"], adata.X)


def test_a_sparse_matrix_becomes_dense_only_when_told(folder, bladder):
    sparse = bladder.copy()
    sparse.X = sp.csr_matrix(np.where(sparse.X > 6, sparse.X, 0))
    sparse.write_h5ad(folder / "sparse.h5ad")
    command = ["correct", "sparse.h5ad", "out.h5ad", "--batch", "batch"]
    line = refused(*command, "--no-dense")
    assert line.endswith("or ask for it all the same with --dense.")
    assert names_in(folder) == ["in.h5ad", "sparse.h5ad"]
    assert "The corrected matrix is dense" in done(*command).stderr
    assert done(*command, "--dense", "--force").stderr == ""
    assert isinstance(read(folder / "out.h5ad").X, np.ndarray)


@pytest.mark.usefixtures("folder")
def test_correcting_twice_warns_in_the_words_of_the_command():
    done("correct", "in.h5ad", "once.h5ad", "--batch", "batch")
    twice = done("correct", "once.h5ad", "twice.h5ad", "--batch", "batch")
    assert "keep them with --key-added." in twice.stderr


# -- methods, version, help ----------------------------------------------------------


def test_methods_lists_the_registry():
    said = done("methods").stdout
    for name, kind in registry().items():
        assert re.search(rf"^{name} +{kind.__name__} ", said, re.MULTILINE)
    assert "mean_only=false" in said
    assert "covariate_columns" not in said


def test_version_and_help():
    assert done("--version").stdout == f"batchcorr {bc.__version__}\n"
    for command in ("demo", "correct", "fit", "apply", "methods"):
        assert command in done("--help").stdout
        assert "Usage: batchcorr" in done(command, "-h").stdout.replace(
            "root", "batchcorr"
        )


def test_help_imports_nothing_heavy(tmp_path):
    code = "import sys; from batchcorr.cli import app; app(['--help'], "
    code += "standalone_mode=False); sys.exit(' '.join(sys.modules.keys() & "
    code += "{'anndata', 'numba', 'numpy', 'pandas', 'sklearn', 'scanpy'}))"
    process = shell(cwd=tmp_path, code=code)
    _, err = process.communicate()
    assert err.strip() == ""


def test_the_installed_command_is_the_app():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["scripts"] == {"batchcorr": "batchcorr.cli:app"}


def test_a_console_without_our_letters_is_served(tmp_path):
    process = subprocess.run(
        [sys.executable, "-m", "batchcorr", "--help"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        encoding="ascii",
        check=False,
    )
    assert process.returncode == 0, process.stderr


# -- what is refused -----------------------------------------------------------------


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
        (["in.h5ad", "in.h5ad", "--force"], "is the input itself"),
        (["in.h5ad", "link.h5ad", "--force"], "is the input itself"),
        (["in.h5ad", "hard.h5ad", "--force"], "is the input itself"),
        (["./in.h5ad", "x/../in.h5ad", "--force"], "is the input itself"),
        (["in.h5ad", "text.h5ad"], "text.h5ad exists already.*--force"),
        (["in.h5ad", "empty.zarr"], "exists already"),
        (["in.h5ad", "x.zarr", "--force"], "no zarr store: --force does not delete"),
        (["in.h5ad", "folder.h5ad", "--force"], "folder.h5ad is a folder"),
        (["in.h5ad", "none/o.h5ad"], "there is no folder"),
        (["in.h5ad", "text.h5ad/o.h5ad"], "there is no folder"),
        (["in.h5ad", "in.h5ad/o.h5ad"], "lie within each other"),
        (["in.h5ad", "o.h5ad", "--layer", "raw"], "There is no layer 'raw'"),
        (["in.h5ad", "o.h5ad", "--covariate", "canser"], "Did you mean 'cancer'"),
        (["in.h5ad", "o.h5ad", "--reference", "9"], "'9' is not one of the batches"),
        (["in.h5ad", "o.h5ad", "--nuisance", "outcome"], "has no nuisance"),
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
        (["correct", "in.xls", "o.h5ad", "--batch", "batch"], "must end in .h5ad or"),
        (["correct", "in.h5ad", "o.gz", "--batch", "batch"], "must end in .h5ad or"),
        (["fit", "in.h5ad", "c.h5ad", "--batch", "batch"], "c.h5ad must end in .npz"),
        (["fit", "in.h5ad", "-o", "c.txt", "--batch", "batch"], "must end in .npz"),
        (["fit", "in.h5ad", "--batch", "batch"], "in.h5ad is the only file: name the"),
        (["fit", "c.npz"], "c.npz is the only file: name the correction to write"),
        (["fit", "in.xls", "c.npz", "--batch", "batch"], "in.xls must end in .h5ad or"),
        (
            ["fit", "in.h5ad", "in.zarr", "c.npz", "--batch", "batch"],
            "IN: in.h5ad, in.zarr are 2 files of samples.*anndata.concat.*moments",
        ),
        (
            ["fit", "a.npz", "in.h5ad", "-o", "c.npz", "--batch", "batch"],
            "IN: in.h5ad holds samples and .npz files moments.*batchcorr moments",
        ),
        (["fit", "a.npz", "c.npz", "--batch", "batch"], "--batch: .*schema holds the"),
        (["fit", "a.npz", "c.npz", "--covariate", "x"], "--covariate: .*schema holds"),
        (["fit", "a.npz", "c.npz", "--formula", "~ x"], "--formula: .*schema holds"),
        (["fit", "a.npz", "c.npz", "--nuisance", "x"], "--nuisance: .*schema holds"),
        (["fit", "a.npz", "c.npz", "--layer", "x"], "--layer: .*schema holds the l"),
        (["fit", "a.npz", "c.npz", "--samples", "s.csv"], "--samples: .*schema holds"),
        (["fit", "a.npz", "b.npz", "--force"], "with --force name the correction with"),
        (["correct", "in.h5ad", "o.h5ad"], "--batch: combat needs the column"),
        (["correct", "in.h5ad", "o.h5ad", "--method", "x"], "--method: .*'combat'"),
        (["--set", "mean_onyl=1"], "no parameter 'mean_onyl'. Did you mean"),
        (["--set", "formula=~x"], "no parameter 'formula'.*'mean_only'"),
        (["--set", "mean_only"], "must be NAME=VALUE"),
        (["--set", "mean_only=perhaps"], "must be true or false, not 'perhaps'"),
        (["--formula", "~ a", "--covariate", "cancer"], "either a formula or"),
        (["--method", "remove_batch_effect", "--reference", "5"], "no parameter"),
        (["--method", "log_normalize"], "batchcorr.pp.log_normalize in Python"),
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


# -- nothing is half written ---------------------------------------------------------


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


LIMITED = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
from batchcorr.cli import app
app()
"""


@needs_posix
@pytest.mark.parametrize("target", ["out.h5ad", "out.zarr", "c.npz"])
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
@pytest.mark.parametrize("target", ["out.h5ad", "out.zarr"])
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
    assert err == "Stopped: no file is half written.\n"
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
