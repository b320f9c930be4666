"""Memory that a correction adds beyond X: run in a process of its own.

python benchmarks/memory.py WHAT DTYPE ROWS FEATURES     prints {"x": …, "added": …}
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import anndata as ad
import inputs
import numpy as np
from measure import Peak

import batchcorr as bc

if TYPE_CHECKING:
    import pandas as pd

COVARIATES = ["sex", "type", "age"]


def estimator(x: Any, obs: pd.DataFrame) -> Any:
    return bc.ComBat(copy=False).fit_transform(x, batch=obs["batch"])


def with_covariates(x: Any, obs: pd.DataFrame) -> Any:
    return bc.ComBat(copy=False).fit_transform(
        x, batch=obs["batch"], covariates=obs[COVARIATES]
    )


def pp(x: Any, obs: pd.DataFrame) -> Any:
    adata = ad.AnnData(x, obs=obs)
    bc.pp.combat(adata, "batch")
    return adata.X


WHAT = {"estimator": estimator, "pp": pp, "covariates": with_covariates}


def added(what: str, dtype: str, rows: int, features: int) -> dict[str, int]:
    """Measure in a child process; return the size of X and what was added."""
    command = [sys.executable, __file__, what, dtype, str(rows), str(features)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, int] = json.loads(done.stdout)
    return found


def main(what: str, dtype: str, rows: str, features: str) -> None:
    run = WHAT[what]
    obs = inputs.labels(500, 10)
    run(inputs.dense(obs, 40, np.dtype(dtype)), obs)  # import and compile

    obs = inputs.labels(int(rows), 10)
    x = inputs.dense(obs, int(features), np.dtype(dtype))
    peak = Peak()
    result = run(x, obs)
    added = peak.added()
    if not np.shares_memory(result, x):
        print(f"{what}: X was not written in place", file=sys.stderr)
    print(json.dumps({"x": x.nbytes, "added": added}))


if __name__ == "__main__":
    main(*sys.argv[1:])
