"""Help, version, the list of methods, and that they start quickly."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib

import pytest

import batchcorr as bc
from batchcorr.methods import registry
from tests.cli.commands import (
    ROOT,
    done,
    shell,
)


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


@pytest.mark.parametrize(
    ("command", "heavy"),
    [
        ("--help", {"anndata", "numba", "numpy", "pandas", "sklearn", "scanpy"}),
        (
            "methods",
            {"anndata", "numba", "numpy", "pandas", "scipy", "sklearn", "scanpy"},
        ),
    ],
)
def test_what_only_tells_imports_nothing_heavy(tmp_path, command, heavy):
    code = f"import sys; from batchcorr.cli import app; app([{command!r}], "
    code += "standalone_mode=False); "
    code += f"sys.exit(' '.join(sys.modules.keys() & {heavy}))"
    process = shell(cwd=tmp_path, code=code)
    _, err = process.communicate()
    assert err.strip() == ""


def test_the_installed_command_is_the_app():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["scripts"] == {"batchcorr": "batchcorr.__main__:main"}


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


@pytest.mark.parametrize("command", ["correct", "moments", "test", "surrogate"])
def test_help_names_values_in_words(command):
    assert not re.search(r"<(bool|str|int|float|Path)>", done(command, "-h").stdout)


def test_help_shows_how_a_table_is_given():
    for command in ("correct", "fit", "apply", "moments"):
        assert re.search(r"\.csv .*--samples sheet\.csv", done(command, "-h").stdout)
