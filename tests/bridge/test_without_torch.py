"""The package needs no torch; the bridge says how to get it."""

from __future__ import annotations

import subprocess
import sys

BLOCK = """
import sys

class NoTorch:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "torch":
            raise ModuleNotFoundError("torch is blocked", name=name)

sys.meta_path.insert(0, NoTorch())
import batchcorr as bc
"""


def run(code):
    done = subprocess.run(
        [sys.executable, "-c", BLOCK + code],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_package_works_without_torch():
    code = """
import numpy as np
x = np.random.default_rng(0).normal(size=(20, 5))
print(bc.ComBat().fit_transform(x, batch=[0, 1] * 10).shape)
"""
    assert run(code).strip() == "(20, 5)"


def test_the_bridge_says_what_to_install():
    code = """
try:
    bc.bridge.capture
except bc.errors.MissingPackageError as error:
    print(isinstance(error, ImportError), error)
"""
    said = run(code)
    assert said.startswith("True")
    assert 'pip install "batchcorr[torch]"' in said
