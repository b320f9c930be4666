"""Corrections as batchcorr 0.1.0 saved them, with counts and values they were made of.

Run with batchcorr 0.1.0: python make.py FOLDER
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd

import batchcorr as bc

folder = Path(sys.argv[1])
rng = np.random.default_rng(0)
x = rng.normal(5, 1, (12, 3)).round(2)
x[:4, 2] = 1.0
counts = rng.negative_binomial(5, 0.1, (12, 3))
counts[:6, 2] = 0
batch = np.repeat(["a", "b"], 6)
known = pd.DataFrame({"sex": list("fm") * 6, "age": rng.normal(50, 9, 12).round(1)})
factors = pd.DataFrame({"batch": batch, "kit": list("xyz") * 4})
named = pd.DataFrame(x, columns=["g1", "g2", "g3"])
made = {
    "combat": (bc.ComBat(formula="~ sex + center(age)"), x, {"covariates": known}),
    "standardize": (
        bc.Standardize(reference=1),
        named,
        {"batch": np.repeat([1, 2], 6)},
    ),
    "remove_batch_effect": (
        bc.RemoveBatchEffect(),
        x,
        {"batch": factors, "nuisance": known[["age"]]},
    ),
    "combat_seq": (bc.ComBatSeq(), counts, {"covariates": known[["sex"]]}),
    "quantile_normalize": (bc.QuantileNormalize(), x, {}),
    "log_normalize": (bc.LogNormalize(method="tmm"), counts, {}),
}
results = {"x": x, "counts": counts, "age": known["age"].to_numpy()}
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    for name, (estimator, data, labels) in made.items():
        given = {} if name.endswith("normalize") else {"batch": batch} | labels
        estimator.fit(data, **given).save(folder / f"{name}.npz")
        results[name] = np.asarray(estimator.transform(data, **given))
np.savez_compressed(folder / "results.npz", **results)
